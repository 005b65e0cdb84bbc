"""Data sets a job may name: built folders, the operator's `catalogue.toml`, and published ones on a
hub.
"""

import functools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from personas.errors import MaterialError
from personas.home.atomic_files import read_model, write_file
from personas.home.column_maps import MAP_FIELD, pairs_error, read_mapping
from personas.home.data_subjects import PEOPLE_FILE, Consent
from personas.home.hub_download import HUB_ID_PATTERN
from personas.home.rights import (
    RightsDecision,
    RightsStatement,
    decide_right,
    parse_statement,
    statement_error,
)
from personas.home.toml_text import toml_table
from personas.schemas.base import DISCORD_API, FrozenModel, Right, right_error
from personas.schemas.formatting import format_size

TRAIN_FILE = "train.jsonl"
EVAL_FILE = "eval.jsonl"
STATS_FILE = "stats.json"
REBUILD_ADVICE = "Build the data set again."
# Right of a data set with samples under several rights, none of them Discord's.
MIXED_RIGHT = "licensed:mixed"
CATALOGUE_FILE = "catalogue.toml"
CATALOGUE_FIELDS = {
    "path", "hub", "files", "right", "stated_by", "stated_on", "why", "format", "persona_names", "language",
    MAP_FIELD,
}  # fmt: skip
PUBLISHED_FILE = Path(__file__).with_name("published_datasets.toml")
FETCHED_FOLDER = "fetched"
FETCH_RECORD = ".fetched.json"
CATALOGUE_LOCK = f".{CATALOGUE_FILE}.lock"
LOCK_TIMEOUT_S = 10.0
ENTRY_NAME_PATTERN = re.compile(r"[\w][\w .-]{0,63}")


def is_built_dataset(folder: Path) -> bool:
    """Return True if a folder was built by `dataset build`, complete or damaged."""
    samples = (TRAIN_FILE, EVAL_FILE)
    about = (STATS_FILE, PEOPLE_FILE)
    return all(any((folder / name).is_file() for name in names) for names in (samples, about))


def combine_rights(rights: Mapping[str, int]) -> Right:
    """Return the right that covers all of several, given with counts: `discord-api` if it is among
    them.
    """
    if DISCORD_API in rights:
        return DISCORD_API
    return next(iter(rights)) if len(rights) == 1 else MIXED_RIGHT


def format_right_counts(rights: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(rights.items()))


def dataset_statement(folder: Path) -> RightsStatement:
    """Read the right stated in a built data set. Raises `MaterialError` if there is none."""
    file = folder / STATS_FILE
    try:
        rights = json.loads(file.read_text(encoding="utf-8"))["by_right"]
        counts = {str(right): int(count) for right, count in rights.items()}
        day = datetime.fromtimestamp(file.stat().st_mtime, UTC).date().isoformat()
    except FileNotFoundError:
        raise MaterialError(
            f"The data set {folder.name} is damaged: it has no {STATS_FILE}.", REBUILD_ADVICE
        ) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise MaterialError(
            f"{folder.name} does not state the rights to its samples.", REBUILD_ADVICE
        ) from error
    if not counts or any(right_error(right) for right in counts):
        raise MaterialError(f"{folder.name} has samples without a right.", REBUILD_ADVICE)
    why = f"Samples by right: {format_right_counts(counts)}. Its data sheet says who states them."
    return RightsStatement(combine_rights(counts), f"the data set {folder.name}", day, why)


class PublishedDataset(FrozenModel):
    """Facts about a published data set, as its page on the hub stated them on the day `read_on`.

    `files` are patterns of the files to fetch, of `bytes` in all. `licence` is empty where the page
    states none.
    """

    title: str
    hub: str
    files: tuple[str, ...]
    bytes: int
    rows: str
    language: str
    licence: str
    good_for: str
    not_for: str
    read_on: date

    @property
    def statement(self) -> RightsStatement:
        """The right under its licence; empty without one."""
        if not self.licence:
            return NO_STATEMENT
        publisher = self.hub.partition("/")[0]
        why = f"The licence on the page of {self.hub} on the hub."
        return RightsStatement(f"licensed:{self.licence}", publisher, self.read_on.isoformat(), why)


NO_STATEMENT = RightsStatement("", "", "", "")


@functools.cache
def published_datasets() -> Mapping[str, PublishedDataset]:
    """Return the published data sets that ship as entries, by name."""
    tables = tomllib.loads(PUBLISHED_FILE.read_text(encoding="utf-8"))
    return {name: PublishedDataset.model_validate(table) for name, table in tables.items()}


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
        return self.statement.right.removeprefix("licensed:") or "no licence stated"

    @property
    def record(self) -> FetchRecord | None:
        """The record of the fetch; None if there was none. Raises `MaterialError` if the record
        cannot be read.
        """
        file = self.fetched / FETCH_RECORD if self.fetched else None
        record = (
            read_model(file, FetchRecord, f"Delete {self.fetched}, and fetch it again.")
            if file
            else None
        )
        return record if record and record.hub == self.hub else None

    @property
    def origin(self) -> str:
        """The name in data sheets: its hub id with the commit that was fetched, or its name."""
        record = self.record
        return f"{self.hub}@{record.revision[:12]}" if record else self.hub or self.name

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
        return self.mapping or (read_mapping(self.path) if self.path else ())

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
    entries = {
        name: CatalogueEntry(
            name,
            None,
            of.hub,
            None,
            of.statement,
            (),
            of.files,
            of.language,
            fetched / name,
            about=of,
            ships=True,
        )
        for name, of in published_datasets().items()
    }
    try:
        tables = _parse_catalogue(_read_bytes(home), home)
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


def _read_bytes(home: Path) -> bytes:
    """Read the catalogue; empty where there is none. Raises `MaterialError`."""
    try:
        return (home / CATALOGUE_FILE).read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise _unreadable(home, error.strerror or type(error).__name__) from error


def _parse_catalogue(content: bytes, home: Path) -> dict[str, Any]:
    """Parse the catalogue of a home. Raises `MaterialError`, which names the file and the line."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(home, str(error)) from error


def _unreadable(home: Path, reason: str) -> MaterialError:
    message = f"{home / CATALOGUE_FILE} cannot be read: {reason}."
    return MaterialError(message, "Correct it by hand; it was not changed.")


def _entry(home: Path, name: str, table: dict[str, Any]) -> CatalogueEntry:
    path = home / Path(table["path"]).expanduser() if "path" in table else None
    names = tuple(table.get("persona_names", ()))
    files = tuple(table.get("files", ()))
    hub = table.get("hub", "")
    language = table.get("language", "")
    fetched = home / FETCHED_FOLDER / name if hub else None
    about = next((of for of in published_datasets().values() if of.hub == hub), None)
    mapping = tuple(table.get(MAP_FIELD, ()))
    right = parse_statement(table)
    return CatalogueEntry(
        name,
        path,
        hub,
        table.get("format"),
        right,
        names,
        files,
        language,
        fetched,
        about,
        mapping=mapping,
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
        if not (
            isinstance(values, list)
            and all(isinstance(value, str) and value.strip() for value in values)
        ):
            return f"has {key} that are not a list of {example}"
    return pairs_error(table.get(MAP_FIELD, [])) or statement_error(table)


# ------------------------------------------------------------------------------------------------
# editing


def edit_catalogue(home: Path, name: str, fields: Mapping[str, Any] | None) -> None:
    """Write an entry of `catalogue.toml`, or remove it (None); comments and the other entries stay
    as they are.

    Raises `MaterialError` if the file cannot be read or is being edited, and `OSError`.
    """
    file = (home / CATALOGUE_FILE).resolve()  # a link stays a link
    try:
        with FileLock(home / CATALOGUE_LOCK, timeout=LOCK_TIMEOUT_S):
            while True:
                old = _read_bytes(home)
                new = _edited(old, _parse_catalogue(old, home), name, fields)
                if _read_bytes(home) == old:  # nobody has saved it in an editor meanwhile
                    write_file(file, new, file.stat().st_mode & 0o777 if file.exists() else 0o600)
                    return
    except Timeout:
        raise MaterialError(
            f"{CATALOGUE_FILE} is being edited by another process.", "Try again."
        ) from None


def _edited(
    old: bytes, tables: dict[str, Any], name: str, fields: Mapping[str, Any] | None
) -> bytes:
    """Return the file's content with an entry written or removed; each result is parsed to make
    sure.
    """
    wanted = {key: table for key, table in tables.items() if key != name} | (
        {name: dict(fields)} if fields else {}
    )
    text = old.decode()
    newline = "\r\n" if "\r\n" in text else "\n"
    block = toml_table(name, fields).replace("\n", newline) if fields else ""
    if name not in tables:
        gap = newline if text and not text.endswith("\n") else ""
        return f"{text}{gap}{newline if text and fields else ''}{block}".encode()
    for before, after in _splits_at_entry(text, name):
        kept = (
            before
            if fields
            else before.removesuffix(newline)
            if before.endswith(2 * newline)
            else before
        )
        new = f"{kept}{block}{after}"
        try:
            if tomllib.loads(new.removeprefix("\ufeff")) == wanted:
                return new.encode()
        except (ValueError, RecursionError):
            continue
    raise MaterialError(
        f"{CATALOGUE_FILE}: {name!r} is not a table of its own under [{name}].",
        "Edit it by hand; it was not changed.",
    )


def _splits_at_entry(text: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield the text before and after what may be the entry; comments before the next table stay
    with that.
    """
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    headers = [number for number, line in enumerate(lines) if _header(line) is not None]
    for start in (number for number in headers if _header(lines[number]) == name):
        for end in [*(number for number in headers if number > start), len(lines)]:
            last = end
            while lines[last - 1].strip() == "" or lines[last - 1].lstrip().startswith("#"):
                last -= 1
            for cut in (last, end):
                yield "".join(lines[:start]), "".join(lines[cut:])


def _header(line: str) -> str | None:
    """Return the first part of a table's name; None if the line is not the head of a table."""
    if not line.lstrip("\ufeff \t").startswith("["):
        return None
    try:
        return next(iter(tomllib.loads(line.lstrip("\ufeff"))))
    except (ValueError, RecursionError):
        return None
