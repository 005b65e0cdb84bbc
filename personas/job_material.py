"""Material of a training job before it is copied into the job's folder: what ships, and what an operator names.

`personas.rights` says where rights are stated, and decides. A log without a stated right counts as taken from Discord's
API. A data set that `dataset build` made says itself under which rights its samples are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from personas.adapters import NAME_ANOTHER, verify
from personas.card import SHIPPED_CARDS
from personas.catalogue import Entry
from personas.consent import Consent
from personas.contracts import Material
from personas.data_set import is_data_set, joint_right, statement_of_set
from personas.errors import RequestError
from personas.lore import WORLD
from personas.rights import DISCORD_API, Right, Statement, decide, statement_beside

Kind = Literal["card", "log", "messages", "dataset", "lore", "general", "adapter", "preferences"]

PROJECT = "own-writing", "the Understudy authors", "Written for this project, which they ship with."
"""Cards and lore that ship: right, who states it, why."""


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
    """Material before it is copied. `copies` pairs each file or folder with its path inside the job's material.

    `text` is what lies under `path` where it is made for the job. `arrived` is the day on which it came (ISO 8601),
    empty where each of its messages says that for itself.
    """

    kind: Kind
    path: str
    origin: str
    stated: Statement
    arrived: str = ""
    copies: tuple[tuple[Path, str], ...] = ()
    text: str = ""
    format: str | None = None
    persona_names: tuple[str, ...] = ()

    @property
    def right(self) -> Right:
        """Under which right it is used."""
        return self.stated.right

    def copied(self, sha256: str) -> Material:
        """The entry for the job folder, once the copy's digest is known."""
        return Material(
            kind=self.kind,
            path=self.path,
            origin=self.origin,
            right=self.stated.right,
            stated_by=self.stated.stated_by,
            stated_on=self.stated.stated_on,
            why=self.stated.why,
            arrived=self.arrived,
            sha256=sha256,
            format=self.format,
            persona_names=self.persona_names,
        )


def given(
    kind: Kind, path: str, origin: str, stated: tuple[Right, str, str], *copies: tuple[Path, str]
) -> SourceMaterial:
    """A card or lore; what it is used for was stated when it came."""
    right, stated_by, why = stated
    day = max(day_of(source) for source, _ in copies)
    return SourceMaterial(kind, path, origin, Statement(right, stated_by, day, why), day, copies)


def shipped_lore(shipped: ShippedData, persona_id: str) -> list[SourceMaterial]:
    """The lore of a persona and of the world, where there is any."""
    folders = [folder for owner in (persona_id, WORLD) if (folder := shipped.lore / owner).is_dir()]
    copies = tuple((folder, f"lore/{folder.name}") for folder in folders)
    return [given("lore", "lore", shipped.lore.name, PROJECT, *copies)] if folders else []


def shipped_general(shipped: ShippedData, consent: Consent, without: Path | None = None) -> list[SourceMaterial]:
    """General dialogue, but for one file of it."""
    files = sorted(shipped.general.glob("*.jsonl"))
    return [single("general", path, consent) for path in files if path != without]


def single(kind: Kind, file: Path, consent: Consent) -> SourceMaterial:
    """A file that ships, with what is stated beside it; a log without counts as taken from Discord's API.

    Raises `MaterialError` where it may not be trained on.
    """
    stated = statement_beside(file)
    by_form = DISCORD_API if kind == "log" else ""
    right = decide(file.name, by_form=by_form, signed=stated.right if stated else "", consent=consent).require()
    path, day = f"{file.parent.name}/{file.name}", day_of(file)
    stated = stated or Statement(right, "", day, "")
    return SourceMaterial(kind, path, path, stated, stated.stated_on, ((file, path),))


def named(kind: Kind, entry: Entry, consent: Consent) -> SourceMaterial:
    """The operator's data set; where it lies is nobody else's business. Raises `MaterialError` as `single` does."""
    file = entry.located()
    if is_data_set(file):
        return data_set(file, entry.name, consent)
    decide(entry.name, signed=entry.statement.right, consent=consent).require()
    path = f"named/{entry.name}{''.join(file.suffixes[-2:]) if file.is_file() else ''}"
    arrived, origin, names = entry.statement.stated_on, entry.hub or entry.name, entry.persona_names
    copies = ((file, path),)
    return SourceMaterial(kind, path, origin, entry.statement, arrived, copies, "", entry.format, names)


def data_set(folder: Path, origin: str, consent: Consent) -> SourceMaterial:
    """A data set that `dataset build` made. Raises `MaterialError` where it may not be trained on."""
    stated = statement_of_set(folder)
    decide(origin, signed=stated.right, consent=consent).require()
    path = f"named/{origin}"
    return SourceMaterial("dataset", path, origin, stated, "", ((folder, path),))


def dialogue_place(home: Path, job_name: str) -> Path:
    """Where the adapter of a dialogue job of this name belongs."""
    return home / "models" / "dialogue" / job_name


def dialogue_adapter(home: Path, job_name: str, consent: Consent) -> SourceMaterial:
    """A dialogue adapter of the home, to start from. Raises as `adapter` does, and `RequestError` for no such one."""
    place = dialogue_place(home, job_name)
    if not place.is_dir():
        there = sorted(path.name for path in place.parent.glob("[!.]*/"))
        known = f"There are: {', '.join(there)}." if there else "Train one first: task_type dialogue."
        raise RequestError(f"There is no dialogue adapter {job_name!r} to start from.", known)
    return adapter(place, job_name, consent)


def adapter(folder: Path, origin: str, consent: Consent) -> SourceMaterial:
    """An adapter to start from, once each of its files has been compared with its manifest.

    Raises `AdapterError` for a damaged one, and `MaterialError` where what it learned may not be trained on any more.
    """
    manifest = verify(folder, NAME_ANOTHER)
    right = joint_right(manifest.rights) if manifest.rights else ""
    decide(f"The adapter {origin}", signed=right, consent=consent).require()
    day = manifest.created_at[:10]
    stated = Statement(right, f"the adapter {origin}", day, "Its data sheet says who states the rights to its samples.")
    path = f"adapter/{origin}"
    return SourceMaterial("adapter", path, origin, stated, day, ((folder, path),))


def day_of(path: Path) -> str:
    """The day on which a file came, as far as the disk knows (ISO 8601)."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
