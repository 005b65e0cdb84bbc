"""Data sets a job may name: built folders, and the operator's `catalogue.toml`."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from personas.errors import MaterialError
from personas.home.data_subjects import PEOPLE_FILE
from personas.home.rights import RightsStatement, parse_statement, statement_error
from personas.schemas.base import DISCORD_API, Right, right_error

TRAIN_FILE, EVAL_FILE, STATS_FILE = "train.jsonl", "eval.jsonl", "stats.json"
REBUILD_ADVICE = "Build the data set again."
MIXED_RIGHT = "licensed:mixed"  # right of a data set with samples under several rights, none of them Discord's
CATALOGUE_FILE = "catalogue.toml"
CATALOGUE_FIELDS = {"path", "hub", "right", "stated_by", "stated_on", "why", "format", "persona_names"}
ENTRY_NAME_PATTERN = re.compile(r"[\w][\w .-]{0,63}")
HUB_ID_PATTERN = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def is_built_dataset(folder: Path) -> bool:
    """Return True if a folder was built by `dataset build`, complete or damaged."""
    samples, about = (TRAIN_FILE, EVAL_FILE), (STATS_FILE, PEOPLE_FILE)
    return all(any((folder / name).is_file() for name in names) for names in (samples, about))


def combine_rights(rights: Mapping[str, int]) -> Right:
    """Return the right that covers all of several, given with counts: `discord-api` if it is among them."""
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
        raise MaterialError(f"The data set {folder.name} is damaged: it has no {STATS_FILE}.", REBUILD_ADVICE) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise MaterialError(f"{folder.name} does not state the rights to its samples.", REBUILD_ADVICE) from error
    if not counts or any(right_error(right) for right in counts):
        raise MaterialError(f"{folder.name} has samples without a right.", REBUILD_ADVICE)
    why = f"Samples by right: {format_right_counts(counts)}. Its data sheet says who states them."
    return RightsStatement(combine_rights(counts), f"the data set {folder.name}", day, why)


@dataclass(frozen=True)
class CatalogueEntry:
    """A named data set (path or hub id) with its stated right, and names and ids of the persona in it."""

    name: str
    path: Path | None
    hub: str
    format: str | None
    statement: RightsStatement
    persona_names: tuple[str, ...] = ()

    def locate(self) -> Path:
        """Return its path on this machine, without downloading. Raises `MaterialError` if it is not there."""
        if self.path:
            if not self.path.exists():
                raise MaterialError(f"The file of {self.name!r} does not exist.", f"Correct {CATALOGUE_FILE}.")
            return self.path
        from huggingface_hub import snapshot_download  # takes 0.15 s; only entries on a hub need it
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(self.hub, repo_type="dataset", local_files_only=True))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError):
            raise MaterialError(
                f"{self.name!r} ({self.hub}) has not been fetched to this machine.",
                f"The operator can: `python -m trainer dataset inspect {self.hub}`.",
            ) from None


@dataclass(frozen=True)
class DatasetCatalogue:
    """Valid `entries` by name; `faults` maps the other names to what is wrong with them ("" is the file itself)."""

    entries: dict[str, CatalogueEntry]
    faults: dict[str, str]


def read_catalogue(home: Path) -> DatasetCatalogue:
    """Read the catalogue of a home; empty without a file."""
    file = home / CATALOGUE_FILE
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return DatasetCatalogue({}, {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
        return DatasetCatalogue({}, {"": f"{CATALOGUE_FILE} cannot be read: {reason}."})
    entries, faults = {}, {}
    for name, table in tables.items():
        if fault := _entry_error(name, table):
            faults[name] = f"{CATALOGUE_FILE}: {name!r} {fault}."
        else:
            path = home / Path(table["path"]).expanduser() if "path" in table else None
            names = tuple(table.get("persona_names", ()))
            hub, statement = table.get("hub", ""), parse_statement(table)
            entries[name] = CatalogueEntry(name, path, hub, table.get("format"), statement, names)
    return DatasetCatalogue(entries, faults)


def _entry_error(name: str, table: object) -> str:
    """Describe what is wrong with an entry, as the end of a sentence; empty if it is valid."""
    if not isinstance(table, dict):
        return "is not a table"
    if not ENTRY_NAME_PATTERN.fullmatch(name):
        return "has a name that is too long or has unusual characters"
    if unknown := sorted(table.keys() - CATALOGUE_FIELDS):
        return f"has unknown fields: {', '.join(unknown)} (known: {', '.join(sorted(CATALOGUE_FIELDS))})"
    if ("path" in table) == ("hub" in table):
        return "needs either path or hub"
    if not all(isinstance(table.get(key, ""), str) and table.get(key, "-") for key in ("path", "hub", "format")):
        return "has a path, hub or format that is not text"
    if "hub" in table and not HUB_ID_PATTERN.fullmatch(table["hub"]):
        return "has a hub id that is not of the form owner/name"
    names = table.get("persona_names", [])
    if not (isinstance(names, list) and all(isinstance(name, str) and name.strip() for name in names)):
        return 'has persona_names that are not a list of names, such as ["Wick"]'
    return statement_error(table)
