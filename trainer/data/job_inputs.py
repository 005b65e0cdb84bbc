"""Reads a job folder's material: checks digests and rights, anonymises, yields conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from personas.card import read_card
from personas.errors import MaterialError, MaterialGoneError, RequestError
from personas.home.data_subjects import NO_CONSENT, Consent, read_consent
from personas.home.holdout_index import HOLDOUT_FILE, HoldoutIndex
from personas.home.job_folder import material_digest
from personas.home.preferences import PreferenceRecord, read_preferences
from personas.home.pseudonyms import JobKeys
from personas.home.rights import COMMAND_LINE_STATEMENT, decide_right
from personas.lore import WORLD, LoreIndex, read_lore
from personas.schemas.base import DISCORD_API, explain_validation_error
from personas.schemas.chat import Persona
from personas.schemas.training import JobSpec, Material
from trainer.anonymise import Anonymiser
from trainer.anonymise.allowlist import world_names
from trainer.data.data_mixture import mixes_general, split_general
from trainer.data.ledger import Participants
from trainer.schemas import Recipe
from trainer.sources.conversation import Conversation, is_chat_log
from trainer.sources.reader import read_usable
from trainer.sources.source_format import ReadOptions

ALLOWED_KINDS = {
    "persona": ("card", "log", "dataset", "lore", "messages", "general", "adapter"),
    "dialogue": ("messages", "dataset", "general", "adapter"),
    "preference": ("card", "log", "dataset", "lore", "general", "adapter", "preferences"),
}
SOURCE_KINDS = {"persona": "log", "dialogue": "messages", "preference": "log"}
KINDS_WITHOUT_SPEAKERS = ("card", "lore", "preferences")
BUILT_KINDS = ("dataset", "adapter")
"""Made by this program before, of what was allowed then."""
MaterialPaths = Mapping[str, list[tuple[Path, Material]]]


@dataclass(frozen=True)
class JobInputs:
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
    met: Participants = field(default_factory=Participants)
    people_key: bytes = b""
    permission: str = ""
    replaced: Mapping[str, int] = field(default_factory=dict)
    raw_conversations: Sequence[Conversation] = ()
    held_out: HoldoutIndex | None = None
    built: Path | None = None
    consent: Consent = NO_CONSENT
    to_mix: Sequence[Conversation] = ()
    preferences: Sequence[PreferenceRecord] = ()


def read_spec(folder: Path) -> JobSpec:
    """The folder's `request.json`. Raises `RequestError`."""
    try:
        return JobSpec.model_validate_json((folder / "request.json").read_bytes())
    except ValidationError as error:
        raise explain_validation_error(error) from None
    except OSError as error:
        raise RequestError(
            f"{folder / 'request.json'} cannot be read: {error.strerror}.", "Name a job folder."
        ) from None


def read_job_inputs(folder: Path, spec: JobSpec, recipe: Recipe) -> JobInputs:
    """All material of a job. Raises `UnderstudyError` naming the file that cannot be used, and why."""
    paths = _material_paths(folder, spec)
    consent, keys = read_consent(folder), JobKeys.in_folder(folder)
    options = ReadOptions(
        consent=consent, session_gap_s=recipe.session_gap_minutes * 60, names_by="`persona_names` in catalogue.toml"
    )
    persona = _find_persona(paths["card"], spec) if spec.request.persona else None
    lore = _read_lore_index(paths["lore"], persona) if persona else None
    anonymiser = Anonymiser(keys.pseudonyms, persona=persona, keep=world_names(persona, lore) if persona else ())
    met = Participants(anonymiser.strangers) if persona else Participants()
    dropped: Counter[str] = Counter()
    talk = _read_conversations(paths[SOURCE_KINDS[spec.request.task_type]], replace(options, persona=persona), dropped)
    if persona:
        for conversation in talk:
            met.meet(conversation)
            anonymiser.meet(conversation)
    make_unknown = anonymiser.masked if persona else anonymiser.mask_patterns
    conversations = [make_unknown(conversation) for conversation in talk]
    general = _read_conversations(paths["general"], options, Counter())
    to_mix: Sequence[Conversation] = ()
    if persona and (mixes_general(recipe) or paths["messages"]):
        general, to_mix = _split_mixture(
            _read_conversations(paths["messages"], options, Counter()), general, recipe, anonymiser, met
        )
    return JobInputs(
        persona=persona,
        conversations=conversations,
        general=general,
        lore=lore,
        dropped=dropped,
        met=met,
        people_key=keys.people,
        permission=consent.permission,
        replaced=dict(anonymiser.counts),
        raw_conversations=talk,
        held_out=HoldoutIndex.read(folder / HOLDOUT_FILE, keys.people),
        built=paths["dataset"][0][0] if paths["dataset"] else None,
        consent=consent,
        to_mix=to_mix,
        preferences=[_anonymise_preference(one, anonymiser) for one in _read_preferences(paths["preferences"])],
    )


def read_job_preferences(folder: Path, spec: JobSpec) -> list[PreferenceRecord]:
    """What a preference job learns from, as it came. Raises `MaterialError` where it may not be trained on."""
    return _read_preferences(_paths_of_kind(folder, spec, "preferences"))


def _read_preferences(files: list[tuple[Path, Material]]) -> list[PreferenceRecord]:
    found = [one for path, _ in files for one in read_preferences(path)]
    if any(one.right == DISCORD_API for one in found):
        raise MaterialError(
            "A preference came through Discord's API, and nothing says whose words it holds.",
            "Learn from replies that were taught through a form, and from votes on the operator's prompts.",
        )
    return found


def _anonymise_preference(one: PreferenceRecord, anonymiser: Anonymiser) -> PreferenceRecord:
    """A preference with everything replaced that is found in its texts."""
    masked = anonymiser.anonymise_text
    said = tuple(turn.model_copy(update={"text": masked(turn.text)}) for turn in one.prompt)
    replies = {"chosen": one.chosen and masked(one.chosen), "rejected": one.rejected and masked(one.rejected)}
    return one.model_copy(update={"prompt": said, **replies})


def parent_adapter_folder(folder: Path, spec: JobSpec) -> Path | None:
    """The adapter of a job that trains one further. Raises `MaterialError` when it is not the one the job has."""
    found = _paths_of_kind(folder, spec, "adapter")
    return found[0][0] if found else None


def _split_mixture(
    messages: list[Conversation],
    general: list[Conversation],
    recipe: Recipe,
    anonymiser: Anonymiser,
    met: Participants,
) -> tuple[list[Conversation], list[Conversation]]:
    """General dialogue that measures forgetting, and what is trained on besides the persona's talk."""
    if not mixes_general(recipe):
        raise RequestError(
            "There is general dialogue to train on, and the recipe trains on none.",
            "Take the recipe mixed-80-20 or two-stage, or set general_share.",
        )
    measured, to_mix = split_general(messages, general)
    for conversation in to_mix:
        met.meet(conversation)
        if is_chat_log(conversation):
            anonymiser.meet(conversation)
    return measured, [
        anonymiser.masked(talk) if is_chat_log(talk) else anonymiser.mask_patterns(talk) for talk in to_mix
    ]


def _material_paths(folder: Path, spec: JobSpec) -> MaterialPaths:
    """Where the materials of each kind lie. Raises `MaterialError` for those that are too many or too few."""
    task = spec.request.task_type
    if foreign := sorted({material.kind for material in spec.materials} - {*ALLOWED_KINDS[task]}):
        raise MaterialError(f"A {task} job has no use for material of the kind {', '.join(foreign)}.", "Leave it out.")
    kinds = {kind for allowed in ALLOWED_KINDS.values() for kind in allowed}
    paths = {kind: _paths_of_kind(folder, spec, kind) for kind in sorted(kinds)}
    source = SOURCE_KINDS[task]
    if not paths["dataset"]:
        _require_kind(bool(paths[source]), source, task)
    elif paths[source] or len(paths["dataset"]) > 1:
        raise MaterialError("The job holds a data set and other talk beside it.", "One is enough: leave the rest out.")
    if len(paths["adapter"]) > 1:
        raise MaterialError("The job holds two adapters to start from.", "Leave one out.")
    if task == "preference":
        _require_kind(bool(paths["adapter"]), "adapter", task)
        _require_kind(bool(paths["preferences"]), "preferences", task)
    _require_kind(bool(paths["general"]), "general", task)
    return paths


def _require_kind(is_there: bool, kind: str, task: str) -> None:
    if not is_there:
        raise MaterialError(f"The job holds no material of the kind {kind!r}.", f"A {task} job needs some.")


def _paths_of_kind(folder: Path, spec: JobSpec, kind: str) -> list[tuple[Path, Material]]:
    """Where the materials of a kind lie, each allowed for training and equal to its digest."""
    root, consent = folder / "material", read_consent(folder)
    return [
        (_check_material(root, material, consent), material) for material in spec.materials if material.kind == kind
    ]


def _check_material(root: Path, material: Material, consent: Consent) -> Path:
    path = root / material.path
    if not path.resolve().is_relative_to(root.resolve()):
        raise MaterialError(f"{material.path} points out of the job's material folder.", "Copy it into the folder.")
    if material.kind in BUILT_KINDS:
        decide_right(material.path, stated=material.right if material.stated_by else "", consent=consent).require()
    elif material.kind in KINDS_WITHOUT_SPEAKERS and material.right != DISCORD_API:
        decide_right(material.path, stated=material.right if material.stated_by else "", consent=NO_CONSENT).require()
    elif material.kind in KINDS_WITHOUT_SPEAKERS:
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


def _find_persona(cards: list[tuple[Path, Material]], spec: JobSpec) -> Persona:
    personas = [read_card(path) for path, _ in cards if path.suffix == ".toml"]
    wanted = spec.request.persona
    found = next((persona for persona in personas if persona.id == wanted), None)
    if found is None:
        held = ", ".join(persona.id for persona in personas) or "none"
        raise MaterialError(f"The job holds no card of {wanted!r} (cards: {held}).", "Add the card to the material.")
    return found


def _read_conversations(
    files: list[tuple[Path, Material]], options: ReadOptions, dropped: Counter[str]
) -> list[Conversation]:
    """What can be used of files in any format; `dropped` counts their other records by reason.

    Raises `MaterialError` when one may not be trained on, none of it can be used, or the persona never speaks in it.
    """
    found: list[Conversation] = []
    for path, material in files:
        # What nobody signs for counts as what its format says, and before what the command line says.
        is_claimed = material.stated_by == COMMAND_LINE_STATEMENT
        signed = material.right if material.stated_by and not is_claimed else ""
        claimed = material.right if is_claimed else ""
        of = replace(
            options, right=signed, claimed=claimed, arrived=material.arrived, persona_names=material.persona_names
        )
        for item in read_usable(path, of, material.format):
            if isinstance(item, Conversation):
                found.append(item)
            else:
                dropped.update({item.reason: item.rows} if item.rows else {})
    return found


def _read_lore_index(folders: list[tuple[Path, Material]], persona: Persona) -> LoreIndex | None:
    passages = [p for path, _ in folders for p in read_lore(path, (persona.id, WORLD))]
    return LoreIndex(passages) if passages else None
