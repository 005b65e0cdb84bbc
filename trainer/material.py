"""The material of a job folder: checked against its digests, read, and turned into conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from personas.card import read_card
from personas.consent import NOBODY, read_consent
from personas.contracts import JobSpec, Material, Persona, explain
from personas.errors import MaterialError, RequestError
from personas.heldout import HELD_OUT_FILE, HeldOut
from personas.job_keys import JobKeys
from personas.lore import WORLD, LoreIndex, read_lore
from personas.material import material_digest
from personas.rights import DISCORD_API, decide
from trainer.anonymise import Anonymiser
from trainer.anonymise.staying import world_names
from trainer.conversation import Conversation
from trainer.people import Met
from trainer.recipe import Recipe
from trainer.sources import ReadOptions, usable

ALLOWED_KINDS = {"persona": ("card", "log", "lore", "general"), "dialogue": ("messages", "general")}
SOURCES = {"persona": "log", "dialogue": "messages"}
SPEAKERLESS = ("card", "lore")


@dataclass(frozen=True)
class Content:
    """What the material holds. `general` measures what training makes a model forget; `dropped` counts by reason.

    `met` are the people of it, to be listed under `people_key`. `permission` is Discord's, as the operator states it;
    `replaced` counts what stands for something else now, by kind. `as_it_came` are the same conversations before their
    people had pseudonyms: what is held out is decided by them, as in `dataset build`. `held_out` was held out before.
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
    task = spec.request.task_type
    paths = {kind: _paths(folder, spec, kind) for kind in ALLOWED_KINDS[task]}
    if foreign := sorted({material.kind for material in spec.materials} - paths.keys()):
        raise MaterialError(f"A {task} job has no use for material of the kind {', '.join(foreign)}.", "Leave it out.")
    for needed in (SOURCES[task], "general"):
        if not paths[needed]:
            raise MaterialError(f"The job holds no material of the kind {needed!r}.", f"A {task} job needs some.")
    dropped: Counter[str] = Counter()
    consent, keys = read_consent(folder), JobKeys.in_folder(folder)
    options = ReadOptions(
        consent=consent, session_gap_s=recipe.session_gap_minutes * 60, names_by="`persona_names` in catalogue.toml"
    )
    if task == "persona":
        persona = _persona(paths["card"], spec)
        talk = _conversations(paths["log"], replace(options, persona=persona), dropped)
        lore = _lore(paths["lore"], persona)
        anonymiser = Anonymiser(keys.pseudonyms, persona=persona, keep=world_names(persona, lore))
        met = Met(anonymiser.strangers)
        for conversation in talk:
            met.meet(conversation)
            anonymiser.meet(conversation)
        conversations = [anonymiser.masked(conversation) for conversation in talk]
    else:
        persona, lore, met, anonymiser = None, None, Met(), Anonymiser(keys.pseudonyms)
        talk = _conversations(paths["messages"], options, dropped)
        conversations = [anonymiser.cleaned(conversation) for conversation in talk]
    general = _conversations(paths["general"], options, Counter())
    replaced = dict(anonymiser.counts)
    held_out = HeldOut.read(folder / HELD_OUT_FILE, keys.people)
    of = (met, keys.people, consent.permission, replaced, talk, held_out)
    return Content(persona, conversations, general, lore, dropped, *of)


def _paths(folder: Path, spec: JobSpec, kind: str) -> list[tuple[Path, Material]]:
    """Where the materials of a kind lie, each allowed for training and equal to its digest."""
    return [(_checked(folder / "material", material), material) for material in spec.materials if material.kind == kind]


def _checked(root: Path, material: Material) -> Path:
    path = root / material.path
    if not path.resolve().is_relative_to(root.resolve()):
        raise MaterialError(f"{material.path} points out of the job's material folder.", "Copy it into the folder.")
    if material.kind in SPEAKERLESS and material.right != DISCORD_API:
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
        raise MaterialError(f"{material.path} cannot be read: {error.strerror}.", advice) from None
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
        # What nobody signs for counts as what its format says.
        right = material.right if material.stated_by else ""
        of = replace(options, right=right, arrived=material.arrived, persona_names=material.persona_names)
        for item in usable(path, of, material.format):
            if isinstance(item, Conversation):
                found.append(item)
            else:
                dropped.update({item.reason: item.rows} if item.rows else {})
    return found


def _lore(folders: list[tuple[Path, Material]], persona: Persona) -> LoreIndex | None:
    passages = [p for path, _ in folders for p in read_lore(path, (persona.id, WORLD))]
    return LoreIndex(passages) if passages else None
