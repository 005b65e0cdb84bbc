"""Earlier revisions of cards and lore files, kept so that they can be restored."""

import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from bot.platform.errors import RefusedError
from personas.home.atomic_files import write_file

REVISIONS_FOLDER = "earlier"
MAX_REVISIONS = 20
"""Revisions of one file; the oldest are deleted."""
REVISION_TIME_FORMAT = "%Y%m%dT%H%M%S.%f"
REVISION_PATTERN = re.compile(r"\d{8}T\d{6}\.\d{6}")


@dataclass(frozen=True)
class Revision:
    """A file's content until `at` (seconds since 1970). `number` identifies it among the file's
    revisions.
    """

    number: str
    at: float
    size_bytes: int


@dataclass(frozen=True)
class RevisionHistory:
    """The revisions of one file of a home. Methods that read or write block on the disk."""

    folder: Path
    suffix: str

    @classmethod
    def of(cls, home: Path, file: Path) -> Self:
        """The revisions of a file below `home`, which may be missing."""
        return cls(home / REVISIONS_FOLDER / file.relative_to(home), file.suffix)

    def keep(self, content: bytes, at: float) -> None:
        """Store a content that is about to be replaced. Raises `OSError`."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = datetime.fromtimestamp(at, UTC).strftime(REVISION_TIME_FORMAT) + self.suffix
        write_file(self.folder / name, content)
        for old in self.all()[MAX_REVISIONS:]:
            self._file(old.number).unlink(missing_ok=True)

    def all(self) -> list[Revision]:
        """List the revisions, newest first."""
        revisions = []
        for file in sorted(self.folder.glob(f"*{self.suffix}"), reverse=True):
            number = file.name.removesuffix(self.suffix)
            if REVISION_PATTERN.fullmatch(number):
                at = datetime.strptime(number, REVISION_TIME_FORMAT).replace(tzinfo=UTC)
                revisions.append(Revision(number, at.timestamp(), file.stat().st_size))
        return revisions

    def read(self, number: str) -> bytes:
        """Read a revision. Raises `RefusedError` where there is none of this number."""
        if REVISION_PATTERN.fullmatch(number):
            try:
                return self._file(number).read_bytes()
            except FileNotFoundError:
                pass
        raise RefusedError(f"There is no revision {number!r}.", "Newer ones may have replaced it.")

    def forget(self) -> None:
        """Delete all revisions."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, number: str) -> Path:
        return self.folder / f"{number}{self.suffix}"
