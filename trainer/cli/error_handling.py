"""Turns errors of a command into a message on standard error and an exit code."""

import argparse
import sqlite3
import sys
from collections.abc import Callable

from personas.cli_entry import (
    DISK_FULL_ERRNOS,
    EXIT_BROKEN_PIPE,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    discard_output,
)
from personas.errors import UnderstudyError
from trainer.process.cancellation import Terminated, raise_on_sigterm
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
