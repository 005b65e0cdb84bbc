"""The material of a job folder: checked against its digests, read, and turned into conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from personas.card import read_card
from personas.consent import NOBODY, Consent, read_consent
from personas.contracts import JobSpec, Material, Persona, explain
from personas.errors import MaterialError, MaterialGoneError, RequestError
from personas.heldout import HELD_OUT_FILE, HeldOut
from personas.job_keys import JobKeys
from personas.lore import WORLD, LoreIndex, read_lore
from personas.material import material_digest
from personas.preferences import Preference, read_preferences
from personas.rights import DISCORD_API, ON_THE_COMMAND_LINE, decide
from trainer.anonymise import Anonymiser
from trainer.anonymise.staying import world_names
from trainer.building.people import Met
from trainer.conversation import Conversation, is_log
from trainer.general import mixes, parted
from trainer.recipe import Recipe
from trainer.sources import ReadOptions, usable

ALLOWED_KINDS = {
    "persona": ("card", "log", "dataset", "lore", "messages", "general", "adapter"),
    "dialogue": ("messages", "dataset", "general", "adapter"),
    "preference": ("card", "log", "dataset", "lore", "general", "adapter", "preferences"),
}
SOURCES = {"persona": "log", "dialogue": "messages", "preference": "log"}
SPEAKERLESS = ("card", "lore", "preferences")
MADE = ("dataset", "adapter")
"""Made by this program before, of what was allowed then."""
Paths = Mapping[str, list[tuple[Path, Material]]]


@dataclass(frozen=True)
class Content:
    """What the material holds. `general` measures what training makes a model forget; `dropped` counts by reason.

    `met` are the people of it, to be listed under `people_key`. `permission` is Discord's, as the operator states it;
    `replaced` counts what stands for something else now, by kind. `as_it_came` are the same conversations before their
    people had pseudonyms: what is held out is decided by them, as in `dataset build`. `held_out` was held out before.
    `built` is a data set's folder that takes the place of conversations, `consent` what is allowed today. `to_mix` is
    general dialogue to train on besides, `preferences` what was liked better than what, without personal data.
    """

    persona: Persona | None
    conversations: list[Conversation]
    general: list[Conversation]
    lore: LoreIndex | None
    dropped: Counter[str]
    met: Met = field(default_factory=Met)
    people_key: bytes = b""
    permission: str = ""
    replaced: Mapping[str, int] = field(default_factory=dict)
    as_it_came: Sequence[Conversation] = ()
    held_out: HeldOut | None = None
    built: Path | None = None
    consent: Consent = NOBODY
    to_mix: Sequence[Conversation] = ()
    preferences: Sequence[Preference] = ()


def read_spec(folder: Path) -> JobSpec:
    """The folder's `request.json`. Raises `RequestError`."""
    try:
        return JobSpec.model_validate_json((folder / "request.json").read_bytes())
    except ValidationError as error:
        raise explain(error) from None
    except OSError as error:
        raise RequestError(
            f"{folder / 'request.json'} cannot be read: {error.strerror}.", "Name a job folder."
        ) from None


def read_content(folder: Path, spec: JobSpec, recipe: Recipe) -> Content:
    """All material of a job. Raises `UnderstudyError` naming the file that cannot be used, and why."""
    paths = _all_paths(folder, spec)
    consent, keys = read_consent(folder), JobKeys.in_folder(folder)
    options = ReadOptions(
        consent=consent, session_gap_s=recipe.session_gap_minutes * 60, names_by="`persona_names` in catalogue.toml"
    )
    persona = _persona(paths["card"], spec) if spec.request.persona else None
    lore = _lore(paths["lore"], persona) if persona else None
    anonymiser = Anonymiser(keys.pseudonyms, persona=persona, keep=world_names(persona, lore) if persona else ())
    met = Met(anonymiser.strangers) if persona else Met()
    dropped: Counter[str] = Counter()
    talk = _conversations(paths[SOURCES[spec.request.task_type]], replace(options, persona=persona), dropped)
    if persona:
        for conversation in talk:
            met.meet(conversation)
            anonymiser.meet(conversation)
    make_unknown = anonymiser.masked if persona else anonymiser.cleaned
    conversations = [make_unknown(conversation) for conversation in talk]
    general = _conversations(paths["general"], options, Counter())
    to_mix: Sequence[Conversation] = ()
    if persona and (mixes(recipe) or paths["messages"]):
        general, to_mix = _mixture(
            _conversations(paths["messages"], options, Counter()), general, recipe, anonymiser, met
        )
    return Content(
        persona=persona,
        conversations=conversations,
        general=general,
        lore=lore,
        dropped=dropped,
        met=met,
        people_key=keys.people,
        permission=consent.permission,
        replaced=dict(anonymiser.counts),
        as_it_came=talk,
        held_out=HeldOut.read(folder / HELD_OUT_FILE, keys.people),
        built=paths["dataset"][0][0] if paths["dataset"] else None,
        consent=consent,
        to_mix=to_mix,
        preferences=[_without_names(one, anonymiser) for one in _preferences(paths["preferences"])],
    )


def preferences_of(folder: Path, spec: JobSpec) -> list[Preference]:
    """What a preference job learns from, as it came. Raises `MaterialError` where it may not be trained on."""
    return _preferences(_paths(folder, spec, "preferences"))


def _preferences(files: list[tuple[Path, Material]]) -> list[Preference]:
    found = [one for path, _ in files for one in read_preferences(path)]
    if any(one.right == DISCORD_API for one in found):
        raise MaterialError(
            "A preference came through Discord's API, and nothing says whose words it holds.",
            "Learn from replies that were taught through a form, and from votes on the operator's prompts.",
        )
    return found


def _without_names(one: Preference, anonymiser: Anonymiser) -> Preference:
    """A preference with everything replaced that is found in its texts."""
    masked = anonymiser.masked_text
    said = tuple(turn.model_copy(update={"text": masked(turn.text)}) for turn in one.prompt)
    replies = {"chosen": one.chosen and masked(one.chosen), "rejected": one.rejected and masked(one.rejected)}
    return one.model_copy(update={"prompt": said, **replies})


def adapter_to_start_from(folder: Path, spec: JobSpec) -> Path | None:
    """The adapter of a job that trains one further. Raises `MaterialError` when it is not the one the job has."""
    found = _paths(folder, spec, "adapter")
    return found[0][0] if found else None


def _mixture(
    messages: list[Conversation],
    general: list[Conversation],
    recipe: Recipe,
    anonymiser: Anonymiser,
    met: Met,
) -> tuple[list[Conversation], list[Conversation]]:
    """General dialogue that measures forgetting, and what is trained on besides the persona's talk."""
    if not mixes(recipe):
        raise RequestError(
            "There is general dialogue to train on, and the recipe trains on none.",
            "Take the recipe mixed-80-20 or two-stage, or set general_share.",
        )
    measured, to_mix = parted(messages, general)
    for conversation in to_mix:
        met.meet(conversation)
        if is_log(conversation):
            anonymiser.meet(conversation)
    return measured, [anonymiser.masked(talk) if is_log(talk) else anonymiser.cleaned(talk) for talk in to_mix]


def _all_paths(folder: Path, spec: JobSpec) -> Paths:
    """Where the materials of each kind lie. Raises `MaterialError` for those that are too many or too few."""
    task = spec.request.task_type
    if foreign := sorted({material.kind for material in spec.materials} - {*ALLOWED_KINDS[task]}):
        raise MaterialError(f"A {task} job has no use for material of the kind {', '.join(foreign)}.", "Leave it out.")
    kinds = {kind for allowed in ALLOWED_KINDS.values() for kind in allowed}
    paths = {kind: _paths(folder, spec, kind) for kind in sorted(kinds)}
    source = SOURCES[task]
    if not paths["dataset"]:
        _require(bool(paths[source]), source, task)
    elif paths[source] or len(paths["dataset"]) > 1:
        raise MaterialError("The job holds a data set and other talk beside it.", "One is enough: leave the rest out.")
    if len(paths["adapter"]) > 1:
        raise MaterialError("The job holds two adapters to start from.", "Leave one out.")
    if task == "preference":
        _require(bool(paths["adapter"]), "adapter", task)
        _require(bool(paths["preferences"]), "preferences", task)
    _require(bool(paths["general"]), "general", task)
    return paths


def _require(is_there: bool, kind: str, task: str) -> None:
    if not is_there:
        raise MaterialError(f"The job holds no material of the kind {kind!r}.", f"A {task} job needs some.")


def _paths(folder: Path, spec: JobSpec, kind: str) -> list[tuple[Path, Material]]:
    """Where the materials of a kind lie, each allowed for training and equal to its digest."""
    root, consent = folder / "material", read_consent(folder)
    return [(_checked(root, material, consent), material) for material in spec.materials if material.kind == kind]


def _checked(root: Path, material: Material, consent: Consent) -> Path:
    path = root / material.path
    if not path.resolve().is_relative_to(root.resolve()):
        raise MaterialError(f"{material.path} points out of the job's material folder.", "Copy it into the folder.")
    if material.kind in MADE:
        decide(material.path, signed=material.right if material.stated_by else "", consent=consent).require()
    elif material.kind in SPEAKERLESS and material.right != DISCORD_API:
        decide(material.path, signed=material.right if material.stated_by else "", consent=NOBODY).require()
    elif material.kind in SPEAKERLESS:
        raise MaterialError(
            f"{material.path} came through Discord's API, and nothing in it says who wrote what, so nobody can have "
            "opted in.",
            "Use your own writing, or text that its authors gave for this through a form.",
        )
    try:
        digest = material_digest(path)
    except OSError as error:
        advice = "Put it back and run the same job again, or make the job anew."
        raise MaterialGoneError(f"{material.path} cannot be read: {error.strerror}.", advice) from None
    if digest != material.sha256:
        raise MaterialError(f"{material.path} is not what the request was made for.", "Make the job anew.")
    return path


def _persona(cards: list[tuple[Path, Material]], spec: JobSpec) -> Persona:
    personas = [read_card(path) for path, _ in cards if path.suffix == ".toml"]
    wanted = spec.request.persona
    found = next((persona for persona in personas if persona.id == wanted), None)
    if found is None:
        held = ", ".join(persona.id for persona in personas) or "none"
        raise MaterialError(f"The job holds no card of {wanted!r} (cards: {held}).", "Add the card to the material.")
    return found


def _conversations(
    files: list[tuple[Path, Material]], options: ReadOptions, dropped: Counter[str]
) -> list[Conversation]:
    """What can be used of files in any format; `dropped` counts their other records by reason.

    Raises `MaterialError` when one may not be trained on, none of it can be used, or the persona never speaks in it.
    """
    found: list[Conversation] = []
    for path, material in files:
        # What nobody signs for counts as what its format says, and before what the command line says.
        is_claimed = material.stated_by == ON_THE_COMMAND_LINE
        signed = material.right if material.stated_by and not is_claimed else ""
        claimed = material.right if is_claimed else ""
        of = replace(
            options, right=signed, claimed=claimed, arrived=material.arrived, persona_names=material.persona_names
        )
        for item in usable(path, of, material.format):
            if isinstance(item, Conversation):
                found.append(item)
            else:
                dropped.update({item.reason: item.rows} if item.rows else {})
    return found


def _lore(folders: list[tuple[Path, Material]], persona: Persona) -> LoreIndex | None:
    passages = [p for path, _ in folders for p in read_lore(path, (persona.id, WORLD))]
    return LoreIndex(passages) if passages else None
