"""Noticing that a job folder has gone while its run goes on, before anything is written where it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from personas.errors import TrainingError


class JobGoneError(TrainingError):
    """The job folder is no longer where it was."""

    can_resume = True


def watching(folder: Path, check: Callable[[], None]) -> Callable[[], None]:
    """`check`, and a look whether the folder is still the one that it is now. The look raises `JobGoneError`."""
    kept = _identity(folder)

    def check_both() -> None:
        check()
        if _identity(folder) != kept:
            raise JobGoneError(
                f"The job folder {folder} is gone.",
                "Put it back, then run the same job again: it goes on from its last checkpoint.",
            )

    return check_both


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
