"""Places that are written to: found out before the work begins, and what is said when writing fails all the same."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from personas.entry import DISK_FULL
from personas.errors import RequestError, UnderstudyError
from trainer.process.failures import refused_by_disk


def require_place(out: Path, advice: str = "Name another place with --out.") -> None:
    """Raise `RequestError` unless files can be made in the folder `out`, or where it or the file `out` is to be."""
    place = out.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if out.exists() and not out.is_dir():
        if not out.is_file():  # a device, say, in whose place a file would stand afterwards
            raise RequestError(f"{out} is neither a file nor a folder.", "Name another.")
        place = out.absolute().parent
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=place):
            pass
    except OSError as error:
        if error.errno in DISK_FULL:
            raise told_of(error) from None
        raise RequestError(f"{out} cannot be written: {error.strerror} ({place}).", advice) from None


def told_of(error: OSError | sqlite3.OperationalError) -> UnderstudyError:
    """What the system refuses, for people."""
    refused = refused_by_disk(error)
    if (refused and refused.errno in DISK_FULL) or "disk is full" in str(error):
        return UnderstudyError("The disk is full.", "Free some space, then run the same command again.")
    error = refused or error
    if not isinstance(error, OSError):
        return UnderstudyError(f"A working file cannot be used: {error}.", "Check the disk, then run it again.")
    where = f"{error.filename}: " if error.filename else ""
    return UnderstudyError(f"{where}{error.strerror or error}.", "Check the path and its rights.")
