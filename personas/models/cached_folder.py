"""A folder that is made once, by one of the processes that want it."""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def make_once(last_file: Path, make: Callable[[], None]) -> None:
    """Make the folder of `last_file` unless that file is there, before which the others have to be.
    One process at a time does so, and the rest wait. Raises `OSError`.
    """
    if last_file.exists():
        return
    folder = last_file.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not last_file.exists():
            make()
