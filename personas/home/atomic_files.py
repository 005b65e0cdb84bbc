"""Atomic files and folders, fsync, and folder locks."""

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from personas.errors import MaterialError

Model = TypeVar("Model", bound=BaseModel)


def write_private_file(file: Path, content: bytes) -> None:
    """Replace a file atomically, readable by its owner only. Raises `OSError`, and then keeps the old content."""
    write_file(file, content, mode=0o600)


def write_file(file: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace a file atomically and durably, readable as the umask allows.

    Raises `OSError`, and then keeps the old content unless only the last step, the flush of its folder, has failed.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        replace_durably(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def replace_durably(temporary: Path, final: Path) -> None:
    """Rename a file or folder whose content is on disk, and flush its new name. Raises `OSError`."""
    temporary.replace(final)
    fsync_path(final.parent)


def write_model(file: Path, model: BaseModel) -> None:
    """Write a model as JSON like `write_private_file`."""
    write_private_file(file, model.model_dump_json(indent=1).encode() + b"\n")


def read_model(file: Path, kind: type[Model], advice: str) -> Model | None:
    """Read a JSON file; None where there is none. Raises `MaterialError` with the advice if it cannot be read."""
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
def atomic_folder(final: Path, before_rename: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Yield a folder that gets its name if the block succeeds, else is deleted. Raises `FileExistsError`.

    `before_rename` is called last, and may refuse by raising.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield temporary
        fsync_tree(temporary)
        if final.exists():
            raise FileExistsError(f"{final} exists already")
        before_rename()
        temporary.rename(final)
        fsync_path(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
