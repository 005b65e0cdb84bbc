"""What may be named from Discord: data sets, personas and recipes by name, never a path.

A log `data/logs/<name>.json` is the data set `<name>`, a file `data/general/<name>.jsonl` the data set
`general-<name>`; `personas.rights` says where their rights are stated. A log without a stated right counts as taken
from Discord's API. The operator adds others in `catalogue.toml` (`personas.catalogue`), which states rights itself.
"""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from bot.personas import own_card
from personas.card import SHIPPED_CARDS, read_card
from personas.catalogue import CATALOGUE_FILE, Entry, ReadCatalogue, read_catalogue
from personas.contracts import Material, TrainingRequest
from personas.errors import RequestError
from personas.lore import WORLD
from personas.rights import RIGHTS_FILE, Right, statement_beside

log = logging.getLogger(__name__)

Kind = Literal["card", "log", "messages", "lore", "general"]

PROJECT: tuple[Right, str] = ("own-writing", "the Understudy authors")
"""Cards and lore ship with the project, which wrote them."""
IMPORTED: tuple[Right, str] = ("form", "moderators of a server")
"""A server's own cards and lore were given to the bot on purpose, for what it does with them."""


@dataclass(frozen=True)
class ShippedData:
    """Where the files lie that ship with the project."""

    logs: Path
    general: Path
    lore: Path
    cards: Path
    recipes: Path

    @classmethod
    def of(cls, root: Path, cards: Path = SHIPPED_CARDS) -> Self:
        """The files of a source tree."""
        data = root / "data"
        return cls(data / "logs", data / "general", data / "rag-resources", cards, root / "trainer" / "recipes")

    @classmethod
    def beside_the_code(cls) -> Self:
        """The files of the source tree that this code runs from."""
        return cls.of(Path(__file__).resolve().parent.parent)


@dataclass(frozen=True)
class SourceMaterial:
    """Material before it is copied. `copies` pairs each file or folder with its path inside the job's material."""

    kind: Kind
    path: str
    origin: str
    right: Right
    stated_by: str
    copies: tuple[tuple[Path, str], ...]
    format: str | None = None

    def copied(self, sha256: str) -> Material:
        """The entry for the job folder, once the copy's digest is known."""
        return Material(
            kind=self.kind,
            path=self.path,
            origin=self.origin,
            right=self.right,
            stated_by=self.stated_by,
            sha256=sha256,
            format=self.format,
        )


class Catalogue:
    """The data sets, personas and recipes that a request may name. Reads the folders anew at each call."""

    def __init__(self, shipped: ShippedData, base_model: str, home: Path) -> None:
        """`base_model` is the one that is served; `home` may hold the operator's `catalogue.toml`."""
        self._shipped, self._base_model, self._home = shipped, base_model, home
        self._told: dict[str, str] = {}

    def datasets(self) -> list[str]:
        """The names of all data sets, in order."""
        return sorted(self._dataset_files().keys() | self._operators().entries.keys())

    def recipes(self) -> list[str]:
        """The names of all recipes, in order."""
        return sorted(path.stem for path in self._shipped.recipes.glob("*.toml"))

    def materials_for(self, request: TrainingRequest) -> tuple[SourceMaterial, ...]:
        """The materials that a request takes.

        Raises `RequestError` when it names something unknown or not allowed here, and `MaterialError` or `CardError`
        when a file that it needs cannot be read.
        """
        self._check_names(request)
        if request.persona is None:
            return self._for_dialogue(request)
        return self._for_persona(request.persona, request.dataset or request.persona)

    def _check_names(self, request: TrainingRequest) -> None:
        if request.dataset_path:
            raise RequestError(
                "A path cannot be named here, only a data set of the catalogue.", _known(self.datasets(), "")
            )
        if request.base_model != self._base_model:
            raise RequestError(
                f"An adapter for another base model ({request.base_model}) cannot be served here.",
                f"Leave the base model out, or start the bot with BASE_MODEL={request.base_model}.",
            )
        if request.recipe not in (recipes := self.recipes()):
            raise RequestError(f"There is no recipe {request.recipe!r}.", _known(recipes, request.recipe))

    def _for_persona(self, persona_id: str, dataset: str) -> tuple[SourceMaterial, ...]:
        card = self._card(persona_id)
        if entry := self._entry(dataset):
            return (card, _named("log", entry), *self._lore(persona_id), *self._general())
        file = self._dataset_file(dataset)
        if file.suffix != ".json":
            raise RequestError(
                f"A persona learns from a log in which it speaks; {dataset!r} has no speakers.",
                "Leave the data set out to take the persona's own log.",
            )
        return (card, _single("log", file), *self._lore(persona_id), *self._general())

    def _for_dialogue(self, request: TrainingRequest) -> tuple[SourceMaterial, ...]:
        messages = sorted(name for name, file in self._dataset_files().items() if file.suffix == ".jsonl")
        if request.dataset is None:
            raise RequestError(
                "A dialogue job needs a data set.", _known(sorted([*messages, *self._operators().entries]), "")
            )
        if entry := self._entry(request.dataset):
            return (_named("messages", entry), *self._general())
        file = self._dataset_file(request.dataset)
        if request.dataset not in messages:
            raise RequestError(f"{request.dataset!r} is a log, which trains a persona.", _known(messages, ""))
        # What is trained on tells little of what training makes the model forget: taken where there is nothing else.
        general = self._general(without=file) or self._general()
        return (_single("messages", file), *general)

    def _dataset_files(self) -> dict[str, Path]:
        logs = {path.stem: path for path in self._shipped.logs.glob("*.json")}
        return logs | {f"general-{path.stem}": path for path in self._shipped.general.glob("*.jsonl")}

    def _dataset_file(self, name: str) -> Path:
        files = self._dataset_files()
        if name not in files:
            raise RequestError(f"There is no data set {name!r}.", _known(self.datasets(), name))
        return files[name]

    def _entry(self, name: str) -> Entry | None:
        """The operator's data set of that name. Raises `RequestError` when its entry has a fault."""
        read = self._operators()
        if fault := read.faults.get(name):
            raise RequestError(fault, f"The operator can correct {CATALOGUE_FILE}.")
        return read.entries.get(name)

    def _operators(self) -> ReadCatalogue:
        """The operator's catalogue as it is now; each fault is logged once. Names that ship cannot be taken."""
        read = read_catalogue(self._home)
        shipped = self._dataset_files()
        faults = read.faults | {
            name: f"{CATALOGUE_FILE}: {name!r} is the name of a data set that ships."
            for name in read.entries.keys() & shipped.keys()
        }
        for name, fault in faults.items():
            if self._told.get(name) != fault:
                log.warning("%s", fault)
        self._told = faults
        entries = {name: entry for name, entry in read.entries.items() if name not in faults}
        return ReadCatalogue(entries, {name: fault for name, fault in faults.items() if name not in shipped})

    def _card(self, persona_id: str) -> SourceMaterial:
        if own := own_card(self._home, persona_id):
            return SourceMaterial("card", own.name, "an imported card", *IMPORTED, copies=((own, own.name),))
        cards = {read_card(path).id: path for path in sorted(self._shipped.cards.glob("*.toml"))}
        if persona_id not in cards:
            raise RequestError(f"There is no persona {persona_id!r}.", _known(sorted(cards), persona_id))
        path = cards[persona_id]
        return SourceMaterial("card", path.name, f"cards/{path.name}", *PROJECT, copies=((path, path.name),))

    def _lore(self, persona_id: str) -> list[SourceMaterial]:
        if own := own_card(self._home, persona_id):
            folder = self._home / "lore" / own.parent.parent.name / persona_id
            given = ((folder, f"lore/{persona_id}"),)
            return (
                [SourceMaterial("lore", "lore", "a server's lore", *IMPORTED, copies=given)] if folder.is_dir() else []
            )
        folders = [folder for owner in (persona_id, WORLD) if (folder := self._shipped.lore / owner).is_dir()]
        copies = tuple((folder, f"lore/{folder.name}") for folder in folders)
        return [SourceMaterial("lore", "lore", self._shipped.lore.name, *PROJECT, copies=copies)] if folders else []

    def _general(self, without: Path | None = None) -> list[SourceMaterial]:
        return [_single("general", path) for path in sorted(self._shipped.general.glob("*.jsonl")) if path != without]


def _single(kind: Kind, file: Path) -> SourceMaterial:
    stated = statement_beside(file)
    if stated is None or stated.right == "discord-api":
        raise RequestError(
            f"{file.name} may not be trained on: nobody has stated a right, so it counts as taken from Discord's API.",
            f'Whoever holds the rights states so in {RIGHTS_FILE} beside it: a table ["{file.name}"] with right, '
            "stated_by, stated_on and why.",
        )
    path = f"{file.parent.name}/{file.name}"
    return SourceMaterial(kind, path, path, stated.right, stated.stated_by, copies=((file, path),))


def _named(kind: Kind, entry: Entry) -> SourceMaterial:
    """The material of the operator's data set; where it lies is nobody else's business."""
    file, stated = entry.located(), entry.statement
    path = f"named/{entry.name}{''.join(file.suffixes[-2:]) if file.is_file() else ''}"
    origin = entry.hub or entry.name
    return SourceMaterial(kind, path, origin, stated.right, stated.stated_by, ((file, path),), entry.format)


def _known(names: list[str], wanted: str) -> str:
    """All names, those that look like what was wanted first."""
    if not names:
        return "There are none."
    near = difflib.get_close_matches(wanted, names, n=len(names), cutoff=0.5)
    return f"Known: {', '.join([*near, *(name for name in names if name not in near)])}."
