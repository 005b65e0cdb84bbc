"""`catalogue.toml` in the bot's home: data sets that the operator lets others name, on Discord above all.

  [harbour-talk]
  path = "talk/harbour.jsonl"         # a file or folder, from here or from the root; or  hub = "owner/name"
  right = "licensed:CC-BY-4.0"        # own-writing, data-package, form, licensed:<name> or discord-api
  stated_by = "Mina Vale"
  stated_on = 2026-11-20
  why = "Written for this server; every author agreed."
  format = "sharegpt"                 # optional: recognised by content
  persona_names = ["Wick"]            # optional: who of those who speak in it is the persona, by name or id

It is read anew each time. An entry with a fault leaves the others as they are.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from personas.errors import MaterialError
from personas.rights import Statement, statement_of, wrong_statement

CATALOGUE_FILE = "catalogue.toml"
FIELDS = {"path", "hub", "right", "stated_by", "stated_on", "why", "format", "persona_names"}
NAME = re.compile(r"[\w][\w .-]{0,63}")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Entry:
    """A data set by name: the file or folder, or the id on a hub, and who states which right to it.

    `persona_names` are further names and ids under which the persona speaks in it.
    """

    name: str
    path: Path | None
    hub: str
    format: str | None
    statement: Statement
    persona_names: tuple[str, ...] = ()

    def located(self) -> Path:
        """Where it lies on this machine; nothing is fetched here. Raises `MaterialError` when it does not."""
        if self.path:
            if not self.path.exists():
                raise MaterialError(f"The file of {self.name!r} is not there.", f"Correct {CATALOGUE_FILE}.")
            return self.path
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(self.hub, repo_type="dataset", local_files_only=True))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError):
            raise MaterialError(
                f"{self.name!r} ({self.hub}) has not been fetched to this machine.",
                f"The operator can: `python -m trainer dataset inspect {self.hub}`.",
            ) from None


@dataclass(frozen=True)
class ReadCatalogue:
    """`entries` by name; `faults` says of each other entry, by its name, what is wrong with it ("" is the file)."""

    entries: dict[str, Entry]
    faults: dict[str, str]


def read_catalogue(home: Path) -> ReadCatalogue:
    """The catalogue of a home; empty where there is no file."""
    file = home / CATALOGUE_FILE
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return ReadCatalogue({}, {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
        return ReadCatalogue({}, {"": f"{CATALOGUE_FILE} cannot be read: {reason}."})
    entries, faults = {}, {}
    for name, table in tables.items():
        if fault := _fault(name, table):
            faults[name] = f"{CATALOGUE_FILE}: {name!r} {fault}."
        else:
            path = home / Path(table["path"]).expanduser() if "path" in table else None
            names = tuple(table.get("persona_names", ()))
            entries[name] = Entry(name, path, table.get("hub", ""), table.get("format"), statement_of(table), names)
    return ReadCatalogue(entries, faults)


def _fault(name: str, table: object) -> str:
    """What is wrong with an entry, as the end of a sentence."""
    if not isinstance(table, dict):
        return "is no table"
    if not NAME.fullmatch(name):
        return "has a name that is too long or holds unusual signs"
    if unknown := sorted(table.keys() - FIELDS):
        return f"has unknown fields: {', '.join(unknown)} (known: {', '.join(sorted(FIELDS))})"
    if ("path" in table) == ("hub" in table):
        return "needs either path or hub"
    if not all(isinstance(table.get(key, ""), str) and table.get(key, "-") for key in ("path", "hub", "format")):
        return "has a path, hub or format that is no text"
    if "hub" in table and not HUB_ID.fullmatch(table["hub"]):
        return "has a hub id that is not of the form owner/name"
    names = table.get("persona_names", [])
    if not (isinstance(names, list) and all(isinstance(name, str) and name.strip() for name in names)):
        return 'has persona_names that are no list of names, such as ["Wick"]'
    return wrong_statement(table)
