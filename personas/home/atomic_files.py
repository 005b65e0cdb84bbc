"""Atomic files and folders, fsync, and folder locks."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_private_file(file: Path, content: bytes) -> None:
    """Put a file in place of what is there, readable by its owner only. Raises `OSError`; what was there stays then."""
    aside = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def fsync_path(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """The same for a folder and all that is in it."""
    for path in folder.rglob("*"):
        fsync_path(path)
    fsync_path(folder)


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Hold a folder against others; False when another process does. The kernel lets go of it when this one dies."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _try_lock(handle)
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """A folder to fill; it gets its final name when the block ends well and vanishes otherwise.

    Raises `FileExistsError` when the final name is taken.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield aside
        fsync_tree(aside)
        if final.exists():
            raise FileExistsError(f"{final} exists already")
        aside.rename(final)
        fsync_path(final.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
