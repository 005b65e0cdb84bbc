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
    """Replace a file atomically, readable by its owner only. Raises `OSError`, and then keeps the old content."""
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
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Flush a folder with all its content to disk."""
    for path in folder.rglob("*"):
        fsync_path(path)
    fsync_path(folder)


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Lock a folder against other processes; yields False if another one holds it. The kernel releases it on exit."""
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
    """Yield a temporary folder; it gets its final name if the block succeeds and is deleted otherwise.

    Raises `FileExistsError` if the final name is taken.
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
