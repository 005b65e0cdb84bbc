"""Figures that the trainer's `dataset inspect` found in an upload, in a file beside it."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from personas.home.atomic_files import write_private_file


class ColumnLook(BaseModel):
    """A column of a table and what it looks like, such as `2 names that recur`; no content."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    name: str
    looks_like: str


class ColumnsAsked(BaseModel):
    """The question which column is what: the columns, and proposed roles. `has_header`: the file
    names them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    columns: tuple[ColumnLook, ...]
    proposal: dict[str, str] = {}
    has_header: bool = True

    @property
    def pairs(self) -> tuple[str, ...]:
        return tuple(f"{role}={column}" for role, column in self.proposal.items())


class FileInspection(BaseModel):
    """Figures that `dataset inspect` found in a file of this size and modification time; no message
    texts.

    `question` stands for a table whose columns nobody has mapped; then nothing was read. `report`
    lists what was taken `as_is`, with `other_meaning`, and `not_taken`, each with `what` and `why`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    bytes: int
    changed_ns: int
    format: str
    rows: int = 0
    conversations: int = 0
    turns: int = 0
    languages: dict[str, int] = {}
    rejected_count: int = 0
    reasons: dict[str, int] = {}
    question: ColumnsAsked | None = None
    report: dict[str, list[dict[str, str]]] = {}


def save_inspection(file: Path, figures: dict[str, Any]) -> None:
    """Store an inspection's figures, without message texts."""
    about = file.stat()
    inspection = FileInspection.model_validate(
        {**figures, "bytes": about.st_size, "changed_ns": about.st_mtime_ns}
    )
    write_private_file(_inspection_file(file), inspection.model_dump_json().encode())


def delete_inspection(file: Path) -> None:
    _inspection_file(file).unlink(missing_ok=True)


def _inspection_file(file: Path) -> Path:
    return file.with_name(f".{file.name}.about.json")


def read_inspection(file: Path) -> FileInspection | None:
    """Read the figures of a file; None if there are none, or the file has changed since."""
    with suppress(OSError, ValidationError, ValueError):
        stored = FileInspection.model_validate(json.loads(_inspection_file(file).read_bytes()))
        now = file.stat()
        if (stored.bytes, stored.changed_ns) == (now.st_size, now.st_mtime_ns):
            return stored
    return None
