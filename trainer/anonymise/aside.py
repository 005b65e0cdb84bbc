"""Files that are written aside, for their owner's eyes, and take their name when they are whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """A file written aside, that takes its name at the end; after an error there is none.

    What a killed process has left of the same file is removed first: it holds half a result, and nobody knows of it.
    Errors of writing name the file.
    """
    _remove_left(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogatepass", newline="") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
                os.fchmod(out.fileno(), _usual_mode())
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the system that name no file, as those of writing, name this one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _remove_left(path: Path) -> None:
    for left in path.parent.glob("." + path.name.translate(PLAIN) + ".*"):
        process = left.suffix[1:]
        if process.isdecimal() and left.name == f".{path.name}.{process}" and not _runs(int(process)):
            left.unlink(missing_ok=True)


PLAIN = {ord(sign): f"[{sign}]" for sign in "*?["}
"""A file's own signs that a pattern would take for something else."""


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _usual_mode() -> int:
    """What a file has that is made without a word about it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask
