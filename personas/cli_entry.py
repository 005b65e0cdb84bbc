"""Runs a command line: exit codes, Ctrl-C, closed streams, broken pipes and full disks."""

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

# 2: argparse's wrong usage
EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK_FULL_MESSAGE = "The disk is full. Free some space, then run the same command again."


def run(load: Callable[[], Callable[[], int]]) -> int:
    """Run the command that `load` imports and return its exit code. Ctrl-C ends it at any moment:
    130, and one line.
    """
    _reopen_closed_streams()
    _set_interrupt_handler(_exit_immediately)
    try:
        command = load()
        _set_interrupt_handler(signal.default_int_handler)
        code = _exit_code(command)
        sys.stdout.flush()  # errors must appear here, not at the exit of the interpreter
    except KeyboardInterrupt as stop:
        print_error(f"Stopped. {stop}".rstrip())
        discard_output()
        os._exit(EXIT_INTERRUPTED)  # without waiting for threads that compute
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        discard_output()
        code = EXIT_BROKEN_PIPE
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        discard_output()
        print_error(DISK_FULL_MESSAGE)
        code = EXIT_FAILED
    except Exception as error:
        if not (message := mend_cut_bytecode(error)):
            raise
        discard_output()
        print_error(f"{message} Run the same command again.")
        code = EXIT_FAILED
    _set_interrupt_handler(_exit_immediately)
    return code


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Let Ctrl-C end the process at once inside the block, where a command imports what it needs: a
    `KeyboardInterrupt` would only break the import.
    """
    before = signal.getsignal(signal.SIGINT)
    _set_interrupt_handler(_exit_immediately)
    try:
        yield
    finally:
        if callable(before):
            _set_interrupt_handler(before)


def print_error(line: str) -> None:
    """Print a line on standard error; failures to write are ignored."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def discard_output() -> None:
    """Flush standard output, or redirect it to /dev/null where that fails: the interpreter flushes
    again at exit.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _exit_code(command: Callable[[], int]) -> int:
    try:
        return command()
    except SystemExit as end:  # argparse: --help or invalid arguments
        return int(end.code or EXIT_DONE)


def mend_cut_bytecode(error: BaseException) -> str:
    """Remove the file of a module's bytecode that ended too early, and say so; empty for another
    error. The end may be the cause of an error, such as that of a library that imports its modules
    on demand.

    Where the disk is full, Python 3.11 takes the part that it could write for the whole
    (python/cpython#126606), and no later start gets past that import.
    """
    path = ""
    cause: BaseException | None = error
    while cause and not isinstance(cause, EOFError):
        cause = cause.__cause__ or cause.__context__
    trace = cause.__traceback__ if cause else None
    while trace:
        if trace.tb_frame.f_code.co_filename.startswith("<frozen importlib"):
            path = trace.tb_frame.f_locals.get("bytecode_path") or path
        trace = trace.tb_next
    if not path:
        return ""
    try:
        Path(path).unlink(missing_ok=True)
    except OSError:
        return f"{path} was cut off, as a full disk leaves it. Remove it."
    return f"{path} was cut off, as a full disk leaves it, and is removed."


def _reopen_closed_streams() -> None:
    """Open /dev/null for streams the shell closed (`>&-`); unencodable characters are printed as
    question marks.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _set_interrupt_handler(handler: Callable[[int, FrameType | None], object]) -> None:
    # Shells have background jobs ignore it.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def _exit_immediately(_number: int, _frame: FrameType | None) -> None:
    """Exit at once: outside the command a `KeyboardInterrupt` would only break an import or the
    shutdown.
    """
    with contextlib.suppress(OSError):
        os.write(2, b"Stopped.\n")
    os._exit(EXIT_INTERRUPTED)
