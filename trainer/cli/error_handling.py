"""Turns errors of a command into a message on standard error and an exit code; resolves and checks
its paths.
"""

import argparse
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from personas.cli_common import as_typed
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
from personas.home.external_files import EVERYBODY, ExportState, record_export
from trainer.process.environment import find_home, require_home
from trainer.process.events import failed_event, find_disk_error
from trainer.process.run_control import Terminated, raise_on_sigterm

EXIT_TERMINATED = 143


def with_error_handling(
    command: Callable[[argparse.Namespace], int | None],
) -> Callable[[argparse.Namespace], int]:
    """Wrap a command so that errors print in a line or two; the wrapper returns the exit code."""

    def run(options: argparse.Namespace) -> int:
        try:
            with raise_on_sigterm():
                code = command(options)
            sys.stdout.flush()  # report write errors here, not when the interpreter exits
        except UnderstudyError as error:
            return _print_error(error)
        except (KeyboardInterrupt, Terminated) as stop:
            print(f"Stopped. {stop}".rstrip(), file=sys.stderr)
            return EXIT_INTERRUPTED if isinstance(stop, KeyboardInterrupt) else EXIT_TERMINATED
        except BrokenPipeError:  # the reader, such as `head`, has stopped
            discard_output()
            return EXIT_BROKEN_PIPE
        except (OSError, sqlite3.OperationalError) as error:
            discard_output()
            return _print_error(translate_write_error(error))
        return code or EXIT_DONE

    return run


def with_failure_report(
    command: Callable[[argparse.Namespace], None],
) -> Callable[[argparse.Namespace], int]:
    """Wrap a command that computes as `with_error_handling` does, so that every other error prints
    like a run's.
    """

    def run(options: argparse.Namespace) -> None:
        try:
            command(options)
        except BrokenPipeError:
            raise
        except Exception as error:
            failed = failed_event(error)
            raise UnderstudyError(failed.cause, failed.advice) from error

    return with_error_handling(run)


def _print_error(error: UnderstudyError) -> int:
    print(as_typed(str(error)), file=sys.stderr)
    return EXIT_FAILED


def translate_write_error(error: OSError | sqlite3.OperationalError) -> UnderstudyError:
    """Translate a system error to a message for people."""
    refused = find_disk_error(error)
    if (refused and refused.errno in DISK_FULL_ERRNOS) or "disk is full" in str(error):
        return UnderstudyError(
            "The disk is full.", "Free some space, then run the same command again."
        )
    error = refused or error
    if not isinstance(error, OSError):
        return UnderstudyError(
            f"A working file cannot be used: {error}.", "Check the disk, then run it again."
        )
    where = f"{error.filename}: " if error.filename else ""
    return UnderstudyError(
        f"{where}{error.strerror or error}.", "Check the path and its permissions."
    )


def require_writable(out: Path, advice: str = "Name another place with --out.") -> None:
    """Raise `RequestError` unless files can be created in the folder `out`, or at the place of the
    file `out`.
    """
    folder = out.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if out.exists() and not out.is_dir():
        if not out.is_file():  # such as a device, which must not be replaced by a file
            raise RequestError(f"{out} is neither a file nor a folder.", "Name another.")
        folder = out.absolute().parent
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=folder):
            pass
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise translate_write_error(error) from None
        raise RequestError(
            f"{out} cannot be written: {error.strerror} ({folder}).", advice
        ) from None


def log_export(
    what: Literal["data set", "adapter"],
    made_of: Path,
    out: Path | str,
    *,
    transfer: str = "",
    state: ExportState = "done",
) -> None:
    """Record an export in the home if its source contains people. Raises `OSError`.

    A `transfer` to another machine is recorded before it begins and after it ended.
    """
    people: Collection[str]
    try:
        people = read_people(made_of).keys()
    except MaterialError:  # the people in it are unknown
        people = (EVERYBODY,)
    if people:
        path = out if isinstance(out, str) or out.is_file() else str(out.absolute())
        record_export(find_home(), what, path, people, transfer=transfer, state=state)


def resolve_home(named: Path | None) -> Path:
    """Return the named home, or the default one."""
    return require_home(named) if named else find_home()
