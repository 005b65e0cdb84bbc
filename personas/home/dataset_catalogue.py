"""The catalogue of data sets: the operator's `catalogue.toml`, and published ones on a hub."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.errors import MaterialError
from personas.home.atomic_files import read_model
from personas.home.column_maps import MAP_FIELD, pairs_error, read_mapping
from personas.home.data_subjects import Consent
from personas.home.hub_download import HUB_ID_PATTERN
from personas.home.published_datasets import PublishedDataset, published_datasets
from personas.home.rights import (
    RightsDecision,
    RightsStatement,
    decide_right,
    parse_statement,
    statement_error,
)
from personas.schemas.base import FrozenModel
from personas.schemas.formatting import format_size

CATALOGUE_FILE = "catalogue.toml"
CATALOGUE_FIELDS = {
    "path", "hub", "files", "right", "stated_by", "stated_on", "why", "format", "persona_names", "language",
    MAP_FIELD,
}  # fmt: skip
FETCHED_FOLDER = "fetched"
NO_LICENCE_TEXT = "no licence stated"
FETCH_RECORD = ".fetched.json"
ENTRY_NAME_PATTERN = re.compile(r"[\w][\w .-]{0,63}")


class FetchRecord(FrozenModel):
    """Content of `.fetched.json` in a fetched data set: its hub id, commit, and files with their
    sizes in bytes.
    """

    hub: str
    revision: str
    files: Mapping[str, int]


class DatasetNotFetchedError(MaterialError):
    """A data set of the catalogue that is on a hub, but not on this machine."""

    def __init__(self, entry: "CatalogueEntry") -> None:
        facts = f", {format_size(entry.about.bytes)}, {entry.licence}" if entry.about else ""
        super().__init__(
            f"{entry.name!r} ({entry.hub}{facts}) has not been fetched to this machine.",
            f"The operator can fetch it: `python -m trainer catalogue fetch {entry.name}`, or on "
            "the dashboard.",
        )
        self.name = entry.name


@dataclass(frozen=True)
class CatalogueEntry:
    """A named data set (path or hub id) with its stated right, and names and ids of the persona in
    it.

    `files` are the patterns of files to fetch from the hub, `fetched` is their folder, complete or
    absent. `about` has the facts of a published data set, which `ships` unless it is in the
    operator's catalogue too. `mapping` are pairs such as `speaker=Absender` for a table whose
    columns are not known.
    """

    name: str
    path: Path | None
    hub: str
    format: str | None
    statement: RightsStatement
    persona_names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    language: str = ""
    fetched: Path | None = None
    about: PublishedDataset | None = None
    ships: bool = False
    mapping: tuple[str, ...] = ()

    @property
    def licence(self) -> str:
        """The licence or other right in a word, for lists."""
        return self.statement.right.removeprefix("licensed:") or NO_LICENCE_TEXT

    @property
    def record(self) -> FetchRecord | None:
        """The record of the fetch; None if there was none. Raises `MaterialError` if the record
        cannot be read.
        """
        if not self.fetched:
            return None
        advice = f"Delete {self.fetched}, and fetch it again."
        record = read_model(self.fetched / FETCH_RECORD, FetchRecord, advice)
        if record is None or record.hub != self.hub:  # the entry named another one then
            return None
        return record

    @property
    def origin(self) -> str:
        """The name in data sheets: its hub id with the commit that was fetched, or its name."""
        if record := self.record:
            return f"{self.hub}@{record.revision[:12]}"
        return self.hub or self.name

    @property
    def is_here(self) -> bool:
        """True if it is on this machine."""
        try:
            return bool(self.locate())
        except MaterialError:
            return False

    def locate(self) -> Path:
        """Return its path on this machine, without downloading. Raises `MaterialError` if it is not
        there.
        """
        if self.path:
            if not self.path.exists():
                raise MaterialError(
                    f"The file of {self.name!r} does not exist.", f"Correct {CATALOGUE_FILE}."
                )
            return self.path
        if self.fetched and self.record:
            return self.fetched
        if self.files:  # the hub's cache may hold other files of it as well
            raise DatasetNotFetchedError(self)
        from huggingface_hub import snapshot_download  # takes 0.15 s; only entries on a hub need it
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )

        try:
            return Path(snapshot_download(self.hub, repo_type="dataset", local_files_only=True))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError):
            raise DatasetNotFetchedError(self) from None

    def find_mapping(self) -> tuple[str, ...]:
        """Return its mapping, or the one stored beside its file. Raises `MaterialError`."""
        if self.mapping or not self.path:
            return self.mapping
        return read_mapping(self.path)

    def decide_right(self, consent: Consent) -> RightsDecision:
        """Decide whether it may be trained on."""
        if self.about and self.ships and not self.statement.right:
            return RightsDecision(
                "",
                f"{self.name} ({self.hub}) may not be trained on: its page states no licence.",
                "Whoever has a right to it states so on its page of the dashboard, or in "
                f"{CATALOGUE_FILE}.",
            )
        return decide_right(self.name, stated=self.statement.right, consent=consent)


@dataclass(frozen=True)
class DatasetCatalogue:
    """Valid `entries` by name; `faults` maps the other names to what is wrong with them ("" is the
    file itself).
    """

    entries: dict[str, CatalogueEntry]
    faults: dict[str, str]


def read_catalogue(home: Path) -> DatasetCatalogue:
    """Read the catalogue of a home: the operator's entries, and the published data sets under other
    names.
    """
    fetched = home / FETCHED_FOLDER
    entries = {}
    for name, published in published_datasets().items():
        entries[name] = CatalogueEntry(
            name,
            path=None,
            hub=published.hub,
            format=None,
            statement=published.statement,
            files=published.files,
            language=published.language,
            fetched=fetched / name,
            about=published,
            ships=True,
        )
    try:
        tables = parse_catalogue(read_catalogue_bytes(home), home)
    except MaterialError as error:
        return DatasetCatalogue(entries, {"": error.message})
    faults = {}
    for name, table in tables.items():
        if fault := _entry_error(name, table):
            faults[name] = f"{home / CATALOGUE_FILE}: {name!r} {fault}."
            entries.pop(name, None)
        else:
            entries[name] = _entry(home, name, table)
    return DatasetCatalogue(entries, faults)


def read_catalogue_bytes(home: Path) -> bytes:
    """Read the catalogue; empty where there is none. Raises `MaterialError`."""
    try:
        return (home / CATALOGUE_FILE).read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise _unreadable(home, error.strerror or type(error).__name__) from error


def parse_catalogue(content: bytes, home: Path) -> dict[str, Any]:
    """Parse the catalogue of a home. Raises `MaterialError`, which names the file and the line."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(home, str(error)) from error


def _unreadable(home: Path, reason: str) -> MaterialError:
    message = f"{home / CATALOGUE_FILE} cannot be read: {reason}."
    return MaterialError(message, "Correct it by hand; it was not changed.")


def _entry(home: Path, name: str, table: dict[str, Any]) -> CatalogueEntry:
    hub = table.get("hub", "")
    about = None
    for published in published_datasets().values():
        if published.hub == hub:
            about = published
            break
    path = None
    if "path" in table:
        path = home / Path(table["path"]).expanduser()
    return CatalogueEntry(
        name,
        path=path,
        hub=hub,
        format=table.get("format"),
        statement=parse_statement(table),
        persona_names=tuple(table.get("persona_names", ())),
        files=tuple(table.get("files", ())),
        language=table.get("language", ""),
        fetched=home / FETCHED_FOLDER / name if hub else None,
        about=about,
        mapping=tuple(table.get(MAP_FIELD, ())),
    )


def _entry_error(name: str, table: object) -> str:
    """Describe what is wrong with an entry, as the end of a sentence; empty if it is valid."""
    if not isinstance(table, dict):
        return "is not a table"
    if not ENTRY_NAME_PATTERN.fullmatch(name):
        return "has a name that is too long or has unusual characters"
    if unknown := sorted(table.keys() - CATALOGUE_FIELDS):
        return (
            f"has unknown fields: {', '.join(unknown)} (known: "
            f"{', '.join(sorted(CATALOGUE_FIELDS))})"
        )
    if ("path" in table) == ("hub" in table):
        return "needs either path or hub"
    texts = ("path", "hub", "format", "language")
    if not all(isinstance(table.get(key, ""), str) and table.get(key, "-") for key in texts):
        return "has a path, hub, format or language that is not text"
    if "hub" in table and not HUB_ID_PATTERN.fullmatch(table["hub"]):
        return "has a hub id that is not of the form owner/name"
    if "files" in table and "hub" not in table:
        return "has files, which only a data set on a hub has"
    for key, example in (
        ("persona_names", 'names, such as ["Wick"]'),
        ("files", 'patterns, such as ["*.jsonl"]'),
    ):
        values = table.get(key, [])
        is_list = isinstance(values, list)
        if not is_list or not all(isinstance(value, str) and value.strip() for value in values):
            return f"has {key} that are not a list of {example}"
    return pairs_error(table.get(MAP_FIELD, [])) or statement_error(table)
