"""Paths on the command line: the home, writable outputs, and the log of exports."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from personas.cli_entry import DISK_FULL_ERRNOS
from personas.errors import MaterialError, RequestError
from personas.home.data_subjects import read_people
from personas.home.export_log import EVERYBODY, record_export
from trainer.cli.error_handling import translate_write_error
from trainer.process.environment import find_home


def require_writable(out: Path, advice: str = "Name another place with --out.") -> None:
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
        if error.errno in DISK_FULL_ERRNOS:
            raise translate_write_error(error) from None
        raise RequestError(f"{out} cannot be written: {error.strerror} ({place}).", advice) from None


def log_export(what: Literal["data set", "adapter"], made_of: Path, out: Path) -> None:
    """List an export in the home if people are in what it was made of. Raises `OSError`."""
    people: Collection[str]
    try:
        people = read_people(made_of).keys()
    except MaterialError:  # nobody can say who is in it
        people = (EVERYBODY,)
    if people:
        record_export(find_home(), what, out if out.is_file() else str(out.absolute()), people)


def resolve_home(named: Path | None) -> Path:
    """The bot's home: as named, or where it is otherwise."""
    from trainer.process.environment import find_home, require_home

    return require_home(named) if named else find_home()
