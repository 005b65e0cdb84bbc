"""The material of a job folder: checked against its digests, read, and turned into conversations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from personas.card import read_card
from personas.contracts import JobSpec, Material, Persona, explain
from personas.errors import MaterialError, RequestError
from personas.lore import WORLD, LoreIndex, read_lore
from personas.material import material_digest
from trainer.anonymise import dataset_key, pseudonymise
from trainer.conversation import Conversation, Rejected
from trainer.recipe import Recipe
from trainer.sources import ReadOptions, read, recognise

ALLOWED_KINDS = {"persona": ("card", "log", "lore", "general"), "dialogue": ("messages", "general")}
SOURCES = {"persona": "log", "dialogue": "messages"}


@dataclass(frozen=True)
class Content:
    """What the material holds. `general` measures what training makes a model forget; `dropped` counts by reason."""

    persona: Persona | None
    conversations: list[Conversation]
    general: list[Conversation]
    lore: LoreIndex | None
    dropped: Counter[str]


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
    if task == "persona":
        persona = _persona(paths["card"], spec)
        conversations = _persona_talk(paths["log"], spec, recipe, persona, dropped)
        lore = _lore(paths["lore"], persona)
    else:
        persona, lore = None, None
        conversations = _dialogues(paths["messages"], dropped)
    return Content(persona, conversations, _dialogues(paths["general"], Counter()), lore, dropped)


def _paths(folder: Path, spec: JobSpec, kind: str) -> list[tuple[Path, Material]]:
    """Where the materials of a kind lie, each allowed for training and equal to its digest."""
    return [(_checked(folder / "material", material), material) for material in spec.materials if material.kind == kind]


def _checked(root: Path, material: Material) -> Path:
    path = root / material.path
    if not path.resolve().is_relative_to(root.resolve()):
        raise MaterialError(f"{material.path} points out of the job's material folder.", "Copy it into the folder.")
    if material.right == "discord-api":
        raise MaterialError(
            f"{material.path} came through Discord's API; Discord's developer policy forbids training on it.",
            "Use your own writing, your data package, or text that its authors gave for this through a form.",
        )
    try:
        digest = material_digest(path)
    except OSError as error:
        raise MaterialError(f"{material.path} cannot be read: {error.strerror}.", "Make the job anew.") from None
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


def _persona_talk(
    logs: list[tuple[Path, Material]], spec: JobSpec, recipe: Recipe, persona: Persona, dropped: Counter[str]
) -> list[Conversation]:
    gap_s = recipe.session_gap_minutes * 60
    talk: list[Conversation] = []
    for path, material in logs:
        options = ReadOptions(persona=persona, right=material.right, session_gap_s=gap_s)
        talk.extend(_usable(path, material, options, dropped))
    return pseudonymise(talk, dataset_key(spec.request), persona)


def _dialogues(files: list[tuple[Path, Material]], dropped: Counter[str]) -> list[Conversation]:
    return [c for path, material in files for c in _usable(path, material, ReadOptions(right=material.right), dropped)]


def _usable(path: Path, material: Material, options: ReadOptions, dropped: Counter[str]) -> list[Conversation]:
    """The conversations of a file in any format; `dropped` counts its other records by reason.

    Raises `MaterialError` when none of it can be used, or the persona never speaks in it.
    """
    usable: list[Conversation] = []
    first: Rejected | None = None
    for item in read(path, options, material.format):
        if isinstance(item, Conversation):
            usable.append(item)
        else:
            first = first or item
            dropped.update({item.reason: item.rows} if item.rows else {})
    if not usable:
        why = f"; {first.row}: {first.reason}" if first else ""
        expected = recognise(path, material.format).expected
        raise MaterialError(f"Nothing in {path.name} can be used{why}.", f"Expected: {expected}.")
    return usable


def _lore(folders: list[tuple[Path, Material]], persona: Persona) -> LoreIndex | None:
    passages = [p for path, _ in folders for p in read_lore(path, (persona.id, WORLD))]
    return LoreIndex(passages) if passages else None
