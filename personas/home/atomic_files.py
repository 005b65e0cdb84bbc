"""Atomic files and folders, fsync, and folder locks."""

import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from personas.errors import MaterialError

Model = TypeVar("Model", bound=BaseModel)
TEMPORARY_FILE_PATTERN = re.compile(r"\..+\.(\d+\.[0-9a-f]{8}|[0-9a-f]{8}\.part)")
TEMPORARY_FOLDER_PATTERN = re.compile(r"\..+\.[a-z0-9_]{8}")
MIN_ABANDONED_S = 60.0
"""Temporary files are no younger when they are deleted: those of a moment ago may not be locked
yet.
"""


def write_private_file(file: Path, content: bytes) -> None:
    """Replace a file atomically, readable by its owner only. Raises `OSError`, and then keeps the
    old content.
    """
    write_file(file, content, mode=0o600)


def write_file(file: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace a file atomically and durably, readable as the umask allows.

    Raises `OSError`, and then keeps the old content unless only the last step, the flush of its
    folder, has failed.
    """
    # In the same folder: a file can be renamed atomically within one file system only.
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        # The mode at creation: content that is private was never readable for others.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            claim_temporary(out.fileno())
            out.write(content)
            out.flush()
            # Before the renaming: otherwise a power failure may leave the name without the content.
            os.fsync(out.fileno())
        replace_durably(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def replace_durably(temporary: Path, final: Path) -> None:
    """Rename a file or folder whose content is on disk, and flush its new name. Raises
    `OSError`.
    """
    temporary.replace(final)
    fsync_path(final.parent)


def write_model(file: Path, model: BaseModel) -> None:
    """Write a model as JSON like `write_private_file`."""
    write_private_file(file, model.model_dump_json(indent=1).encode() + b"\n")


def read_model(file: Path, kind: type[Model], advice: str) -> Model | None:
    """Read a JSON file; None where there is none. Raises `MaterialError` with the advice if it
    cannot be read.
    """
    try:
        return kind.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise MaterialError(f"{file} cannot be read.", advice) from error


def fsync_path(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        fsync_path(path)
    fsync_path(folder)


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Lock a file or folder; yields False if another process holds it. The kernel releases it on
    exit.
    """
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


def claim_temporary(handle: int) -> None:
    """Lock a temporary file or folder against `delete_abandoned_files` and
    `delete_abandoned_folders`, where the file system can; its closing unlocks it.
    """
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def delete_abandoned_files(root: Path) -> list[Path]:
    """Delete temporary files below a folder that no running process owns; return them. Raises
    `OSError`.
    """
    abandoned = []
    for parent, _, files in os.walk(root):
        for name in files:
            path = Path(parent, name)
            if TEMPORARY_FILE_PATTERN.fullmatch(name) and _is_abandoned(path):
                abandoned.append(path)
    for path in abandoned:
        path.unlink(missing_ok=True)
    return abandoned


def delete_abandoned_folders(root: Path) -> list[Path]:
    """Delete those of `atomic_folder` below a folder that no running process owns; return them.
    Raises `OSError`.
    """
    abandoned = []
    for parent, folders, _ in os.walk(root):
        for name in folders:
            path = Path(parent, name)
            if TEMPORARY_FOLDER_PATTERN.fullmatch(name) and _is_abandoned(path):
                abandoned.append(path)
    for path in abandoned:
        shutil.rmtree(path, ignore_errors=True)
    return abandoned


def _is_abandoned(path: Path) -> bool:
    try:
        is_old = time.time() - path.lstat().st_mtime > MIN_ABANDONED_S
        if not is_old or path.is_symlink():
            return False
        with lock_folder(path) as is_free:
            return is_free
    except OSError:  # gone meanwhile, or a file system without locks
        return False


@contextmanager
def atomic_folder(
    final: Path,
    before_rename: Callable[[], None] = lambda: None,
    storing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[Path]:
    """Yield a folder that gets its name if the block succeeds, else is deleted. Raises
    `FileExistsError`.

    `before_rename` is called last, and may refuse by raising, as `storing` may, which surrounds the
    renaming.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    handle = os.open(temporary, os.O_RDONLY)
    try:
        claim_temporary(handle)
        yield temporary
        # All files first, then the name: a folder with its final name is complete.
        fsync_tree(temporary)
        before_rename()
        with storing():
            if final.exists():
                raise FileExistsError(f"{final} exists already")
            replace_durably(temporary, final)
    finally:
        os.close(handle)
        shutil.rmtree(temporary, ignore_errors=True)
