"""Material of a training job before it is copied into the job folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from personas.card.toml_card import SHIPPED_CARDS
from personas.errors import RequestError
from personas.home.adapters import (
    NAME_ADAPTER_ADVICE,
    find_dialogue_adapters,
    require_manifest,
    verify_adapter,
)
from personas.home.built_dataset import combine_rights, dataset_statement, is_built_dataset
from personas.home.data_subjects import Consent
from personas.home.dataset_catalogue import CatalogueEntry, read_catalogue
from personas.home.rights import RightsStatement, decide_right, read_statement
from personas.schemas.base import DISCORD_API, Right
from personas.schemas.training import Material, MaterialKind
from personas.shipped_folders import SHIPPED_DATA

PROJECT_STATEMENT = (
    "own-writing",
    "the Understudy authors",
    "Written for this project, which they ship with.",
)
"""Right, author and reason of the shipped cards and lore."""


@dataclass(frozen=True)
class ShippedData:
    """Paths of the files that ship with the project. Without `adapters`, every persona begins
    untrained.
    """

    logs: Path
    general: Path
    general_training: Path
    lore: Path
    cards: Path
    recipes: Path
    synthetic: Path
    adapters: Path | None = None

    @classmethod
    def of(
        cls, root: Path, cards: Path = SHIPPED_CARDS, *, data_folder: Path | None = None
    ) -> Self:
        data = data_folder or root / "data"
        recipes = root / "trainer" / "recipe" / "recipes"
        return cls(
            logs=data / "logs",
            general=data / "general",
            general_training=data / "general-training",
            lore=data / "rag-resources",
            cards=cards,
            recipes=recipes,
            synthetic=data / "synthetic",
            adapters=data / "adapters",
        )

    @classmethod
    def from_source_tree(cls) -> Self:
        """Return the files of the source tree or installed package that this code runs from."""
        return cls.of(Path(__file__).resolve().parents[2], data_folder=SHIPPED_DATA)

    def datasets(self) -> dict[str, Path]:
        """Return the logs, synthesised dialogues and general dialogue, by name."""
        datasets: dict[str, Path] = {}
        for path in (*self.logs.glob("*.json"), *self.synthetic.glob("*.jsonl")):
            datasets[path.stem] = path
        for path in self.general.glob("*.jsonl"):
            datasets[f"general-{path.stem}"] = path
        return datasets

    def dialogues(self) -> set[str]:
        """Return the names of the general dialogue."""
        return {name for name, path in self.datasets().items() if path.parent == self.general}


@dataclass(frozen=True)
class SourceMaterial:
    """Material before it is copied. `copies` pairs each file or folder with its path inside the
    job's material.

    `text` is content to write to `path`, for generated material. `edit` gets the source and the text of
    each copied file, and returns the text that the job gets. `arrived` is the day it arrived
    (ISO 8601), empty where each message has its own date.
    """

    kind: MaterialKind
    path: str
    origin: str
    statement: RightsStatement
    arrived: str = ""
    copies: tuple[tuple[Path, str], ...] = ()
    text: str = ""
    format: str | None = None
    persona_names: tuple[str, ...] = ()
    mapping: tuple[str, ...] = ()
    edit: Callable[[Path, str], str] | None = None

    @property
    def right(self) -> Right:
        return self.statement.right

    def to_material(self, sha256: str) -> Material:
        return Material(
            kind=self.kind,
            path=self.path,
            origin=self.origin,
            right=self.statement.right,
            stated_by=self.statement.stated_by,
            stated_on=self.statement.stated_on,
            why=self.statement.why,
            arrived=self.arrived,
            sha256=sha256,
            format=self.format,
            persona_names=self.persona_names,
            mapping=self.mapping,
        )


def stated_material(
    kind: MaterialKind,
    path: str,
    origin: str,
    stated: tuple[Right, str, str],
    *,
    copies: Sequence[tuple[Path, str]],
) -> SourceMaterial:
    """Build material from cards or lore; its right was stated when it arrived.

    `stated` is the right, the name of the person who states it, and the reason.
    """
    right, stated_by, why = stated
    day = max(modification_date(source) for source, _ in copies)
    return SourceMaterial(
        kind,
        path,
        origin,
        statement=RightsStatement(right, stated_by, day, why),
        arrived=day,
        copies=tuple(copies),
    )


def shipped_general_material(
    shipped: ShippedData, consent: Consent, omit: Path | None = None
) -> list[SourceMaterial]:
    """Collect the shipped general dialogue, except one file."""
    files = sorted(shipped.general.glob("*.jsonl"))
    return [shipped_file_material("general", path, consent) for path in files if path != omit]


def general_training_material(shipped: ShippedData, consent: Consent) -> list[SourceMaterial]:
    """Collect the shipped general dialogue that is trained on where a recipe mixes some in."""
    files = sorted(shipped.general_training.glob("*.jsonl"))
    return [shipped_file_material("general-training", path, consent) for path in files]


def shipped_file_material(kind: MaterialKind, file: Path, consent: Consent) -> SourceMaterial:
    """Build material from a shipped file; a log without statement counts as Discord's. Raises
    `MaterialError`.
    """
    stated = read_statement(file)
    by_form = DISCORD_API if kind == "log" else ""
    stated_right = stated.right if stated else ""
    decision = decide_right(file.name, format_right=by_form, stated=stated_right, consent=consent)
    right = decision.require()
    path = f"{file.parent.name}/{file.name}"
    if stated is None:
        stated = RightsStatement(right, "", modification_date(file), "")
    return SourceMaterial(
        kind,
        path,
        origin=path,
        statement=stated,
        arrived=stated.stated_on,
        copies=((file, path),),
    )


def synthetic_materials(
    shipped: ShippedData, home: Path, persona_id: str, consent: Consent
) -> list[SourceMaterial]:
    """Collect synthesised dialogues of a persona: the shipped ones, and sets of the catalogue named
    `ID_synthetic…`.

    Raises `MaterialError` if one is not on this machine or may not be trained on.
    """
    name = f"{persona_id}_synthetic"
    materials = []
    if (file := shipped.synthetic / f"{name}.jsonl").is_file():
        materials.append(shipped_file_material("pairs", file, consent))
    ships = bool(materials)
    for entry in read_catalogue(home).entries.values():
        if not entry.name.startswith(name) or (ships and entry.name == name):
            continue
        material = catalogue_material("pairs", entry, consent)
        if material.kind == "pairs":  # a built data set has another one
            materials.append(material)
    return materials


def catalogue_material(
    kind: MaterialKind, entry: CatalogueEntry, consent: Consent
) -> SourceMaterial:
    """Build material from a catalogue entry, whose path stays private. Raises `MaterialError`."""
    if entry.hub:
        entry.decide_right(consent).require()  # nobody should fetch what may not be trained on
    file = entry.locate()
    if is_built_dataset(file):
        return built_dataset_material(file, entry.name, consent)
    entry.decide_right(consent).require()
    path = f"named/{entry.name}"
    if file.is_file():
        path += "".join(file.suffixes[-2:])  # two for `.jsonl.gz`
    return SourceMaterial(
        kind,
        path,
        origin=entry.origin,
        statement=entry.statement,
        arrived=entry.statement.stated_on,
        copies=((file, path),),
        format=entry.format,
        persona_names=entry.persona_names,
        mapping=entry.find_mapping(),
    )


def built_dataset_material(folder: Path, origin: str, consent: Consent) -> SourceMaterial:
    """Build material from a folder of `dataset build`. Raises `MaterialError` if it may not be
    trained on.
    """
    stated = dataset_statement(folder)
    decide_right(origin, stated=stated.right, consent=consent).require()
    path = f"named/{origin}"
    return SourceMaterial(
        "dataset", path, origin, statement=stated, arrived="", copies=((folder, path),)
    )


def dialogue_adapter_material(
    home: Path, job_name: str, consent: Consent, *, verify: bool = True
) -> SourceMaterial:
    """Build material from a named dialogue adapter. Raises `RequestError` if unknown, else like
    `adapter_material`.
    """
    available = find_dialogue_adapters(home)
    if job_name not in available:
        advice = "Train one first: task_type dialogue."
        if available:
            advice = f"There are: {', '.join(available)}."
        raise RequestError(f"There is no dialogue adapter {job_name!r}.", advice)
    return adapter_material(available[job_name].folder, job_name, consent, verify=verify)


def adapter_material(
    folder: Path, origin: str, consent: Consent, *, verify: bool = True
) -> SourceMaterial:
    """Build material from an adapter to train further; `verify` reads all of its files and compares
    checksums.

    Raises `AdapterError` for a damaged one, and `MaterialError` if its training data may no longer
    be trained on.
    """
    if verify:
        manifest = verify_adapter(folder, NAME_ADAPTER_ADVICE)
    else:
        manifest = require_manifest(folder, NAME_ADAPTER_ADVICE)
    right = combine_rights(manifest.rights) if manifest.rights else ""
    decide_right(f"The adapter {origin}", stated=right, consent=consent).require()
    day = manifest.created_at[:10]
    why = "Its data sheet says who states the rights to its samples."
    stated = RightsStatement(right, f"the adapter {origin}", day, why)
    path = f"adapter/{origin}"
    return SourceMaterial(
        "adapter", path, origin, statement=stated, arrived=day, copies=((folder, path),)
    )


def modification_date(path: Path) -> str:
    """Return the modification date of a file (ISO 8601)."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
