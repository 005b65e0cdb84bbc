"""Turns errors of a command into a message on standard error and an exit code."""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from personas.cli_entry import (
    DISK_FULL_ERRNOS,
    EXIT_BROKEN_PIPE,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    discard_output,
)
from personas.errors import MaterialError, RequestError, UnderstudyError
from personas.home.data_subjects import read_people
from personas.home.export_log import EVERYBODY, record_export
from trainer.process.cancellation import Terminated, raise_on_sigterm
from trainer.process.environment import find_home, require_home
from trainer.process.events import find_disk_error


def with_error_handling(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], int]:
    """The command with whatever goes wrong around it told to people in a line or two; returns the exit code."""

    def run(options: argparse.Namespace) -> int:
        try:
            with raise_on_sigterm():
                command(options)
            sys.stdout.flush()  # what cannot be written is to be known here, not when the interpreter ends
        except UnderstudyError as error:
            return _print_error(error)
        except (KeyboardInterrupt, Terminated) as stop:
            print(f"Stopped. {stop}".rstrip(), file=sys.stderr)
            return EXIT_INTERRUPTED if isinstance(stop, KeyboardInterrupt) else EXIT_TERMINATED
        except BrokenPipeError:  # whoever read, as `head`, has enough
            discard_output()
            return EXIT_BROKEN_PIPE
        except (OSError, sqlite3.OperationalError) as error:
            discard_output()
            return _print_error(translate_write_error(error))
        return EXIT_DONE

    return run


def _print_error(error: UnderstudyError) -> int:
    print(error, file=sys.stderr)
    return EXIT_FAILED


EXIT_TERMINATED = 143


def translate_write_error(error: OSError | sqlite3.OperationalError) -> UnderstudyError:
    """What the system refuses, for people."""
    refused = find_disk_error(error)
    if (refused and refused.errno in DISK_FULL_ERRNOS) or "disk is full" in str(error):
        return UnderstudyError("The disk is full.", "Free some space, then run the same command again.")
    error = refused or error
    if not isinstance(error, OSError):
        return UnderstudyError(f"A working file cannot be used: {error}.", "Check the disk, then run it again.")
    where = f"{error.filename}: " if error.filename else ""
    return UnderstudyError(f"{where}{error.strerror or error}.", "Check the path and its rights.")


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

    return require_home(named) if named else find_home()
