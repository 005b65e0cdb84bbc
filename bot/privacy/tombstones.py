"""Who has been forgotten, so that a backup does not bring them back.

Tombstones lie in the store and in `<home>/keys/tombstones.json`, under keys; each copy takes up what the other has.
Beside a person's ids their telling names are listed, for files that know no ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.store import Store
from personas.durable import put_private
from personas.errors import KeyFileError

TOMBSTONES_FILE = Path("keys") / "tombstones.json"


class Tombstones(BaseModel):
    """`tombstones.json`: each forgotten person's keys, and when they were forgotten last (seconds since 1970)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    tombstones: dict[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")], float] = {}


def read_tombstones(home: Path) -> dict[str, float]:
    """The file's tombstones; none where there is no file. Raises `KeyFileError` when it cannot be read."""
    file = home / TOMBSTONES_FILE
    try:
        return Tombstones.model_validate_json(file.read_bytes()).tombstones
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise KeyFileError(
            f"{file} cannot be read.",
            "It says who must stay forgotten. Put it back from a backup, or move it away if there is none: the "
            "database knows them too.",
        ) from error


def bury(home: Path, store: Store, people: set[str], at: float) -> None:
    """Note in both places that these people are forgotten. Raises `OSError`."""
    for person in people:
        store.people.bury(person, at)
    reconcile(home, store)


def reconcile(home: Path, store: Store) -> dict[str, float]:
    """Let both places know all tombstones, the latest date of each; gives them. Raises `OSError`, `KeyFileError`."""
    listed = read_tombstones(home)
    for person, at in listed.items():
        store.people.bury(person, at)
    every = store.people.tombstones()
    if every != listed:
        _write(home / TOMBSTONES_FILE, Tombstones(tombstones=dict(sorted(every.items()))))
    return every


def _write(file: Path, tombstones: Tombstones) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    put_private(file, tombstones.model_dump_json(indent=1).encode() + b"\n")
