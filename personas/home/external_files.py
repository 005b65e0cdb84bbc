"""Log of exported files (`exports.jsonl`) and the people in them."""

import hashlib
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from personas.schemas.base import FrozenModel

EXPORTS_FILE = "exports.jsonl"
ExportKind = Literal["data set", "adapter", "history", "card", "backup"]
EVERYBODY = "*"  # in place of a list of people: everyone in the home at that time, as in a backup


class ExportRecord(FrozenModel):
    """An exported file: `at` in seconds since 1970, `people` keyed, or `EVERYBODY` alone."""

    at: float
    what: ExportKind
    path: str
    sha256: str = ""
    people: tuple[Annotated[str, Field(pattern=r"^(\*|[0-9a-f]{32})$")], ...]


def record_export(home: Path, what: ExportKind, path: Path | str, people: Collection[str], sha256: str = "") -> None:
    """Append a record; a file on this machine is hashed here. Raises `OSError`."""
    if isinstance(path, Path):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        path = str(path.absolute())
    line = ExportRecord(at=time.time(), what=what, path=path, sha256=sha256, people=tuple(sorted(people)))
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(home / EXPORTS_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "a", encoding="utf-8") as out:
        out.write(line.model_dump_json() + "\n")
        out.flush()
        os.fsync(out.fileno())


def read_exports(home: Path) -> list[ExportRecord]:
    """Read all records, oldest first; unreadable lines are skipped."""
    try:
        lines = (home / EXPORTS_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        try:
            records.append(ExportRecord.model_validate_json(line))
        except ValidationError:  # cut off by a crash, or written by a later version
            continue
    return records


def find_exports_containing(home: Path, people: Collection[str]) -> list[ExportRecord]:
    """Find the exports that contain one of these keyed people, or everybody."""
    wanted = {*people, EVERYBODY}
    return [export for export in read_exports(home) if not wanted.isdisjoint(export.people)]
