"""Runs a command line: exit codes, Ctrl-C, closed streams, broken pipes and full disks."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 0, 1, 2, 130, 141
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK_FULL_MESSAGE = "The disk is full. Free some space, then run the same command again."


def run(load: Callable[[], Callable[[], int]]) -> int:
    """The exit code of the command that `load` imports. Ctrl-C ends it at any moment: with 130, and one line."""
    _reopen_closed_streams()
    _set_interrupt_handler(_exit_immediately)
    command = load()
    _set_interrupt_handler(signal.default_int_handler)
    try:
        code = _exit_code(command)
        sys.stdout.flush()  # what cannot be written is to be known here, not when the interpreter ends
    except KeyboardInterrupt as stop:
        print_error(f"Stopped. {stop}".rstrip())
        discard_output()
        os._exit(EXIT_INTERRUPTED)  # threads that compute are not waited for
    except BrokenPipeError:  # whoever read, as `head`, has enough
        discard_output()
        code = EXIT_BROKEN_PIPE
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        discard_output()
        print_error(DISK_FULL_MESSAGE)
        code = EXIT_FAILED
    _set_interrupt_handler(_exit_immediately)
    return code


def print_error(line: str) -> None:
    """Print a line on standard error, if it can be."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def discard_output() -> None:
    """What waits to be written is written as far as it can be; it would fail again at the interpreter's end."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _exit_code(command: Callable[[], int]) -> int:
    try:
        return command()
    except SystemExit as end:  # argparse's: help was asked for, or its words are not understood
        return int(end.code or EXIT_DONE)


def _reopen_closed_streams() -> None:
    """Give a stream that the shell closed (`>&-`) to nowhere; what an encoding lacks is printed as a question mark."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _set_interrupt_handler(handler: Callable[[int, FrameType | None], object]) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell starts what is to run in the background
        signal.signal(signal.SIGINT, handler)


def _exit_immediately(_number: int, _frame: FrameType | None) -> None:
    """Nothing has begun yet, or everything is done: a `KeyboardInterrupt` would only break an import, or the end."""
    with contextlib.suppress(OSError):
        os.write(2, b"Stopped.\n")
    os._exit(EXIT_INTERRUPTED)
