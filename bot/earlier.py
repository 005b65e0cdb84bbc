"""What a card or a file of lore said before it was changed on the operator's pages, so that it can be brought back.

What `<home>/lore/<guild id>/<persona id>/<file>` said lies in `<home>/earlier/lore/<guild id>/<persona id>/<file>/`, a
file for each text, named by when it was kept; cards likewise. A text is kept until newer ones push it out, or until
whoever gave the file is forgotten.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bot.errors import RefusedError

EARLIER = "earlier"
MOST_KEPT = 20
"""How many texts of one file are kept; of more the oldest goes."""
STAMP = "%Y%m%dT%H%M%S.%f"
NUMBER = re.compile(r"\d{8}T\d{6}\.\d{6}")


@dataclass(frozen=True)
class Kept:
    """A text as it was until `at` (seconds since 1970). `number` names it among those of its file."""

    number: str
    at: float
    size_bytes: int


@dataclass(frozen=True)
class Earlier:
    """The earlier texts of one file of a home. All that reads or writes may take as long as the disk does."""

    folder: Path
    suffix: str

    @classmethod
    def of(cls, home: Path, file: Path) -> Earlier:
        """Those of a file below `home`, whether or not it is there."""
        return cls(home / EARLIER / file.relative_to(home), file.suffix)

    def keep(self, content: bytes, at: float) -> None:
        """Keep a text that is about to be replaced. Raises `OSError`."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = datetime.fromtimestamp(at, UTC).strftime(STAMP) + self.suffix
        aside = self.folder / f"{name}.part"
        aside.write_bytes(content)
        aside.replace(self.folder / name)
        for old in self.all()[MOST_KEPT:]:
            self._file(old.number).unlink(missing_ok=True)

    def all(self) -> list[Kept]:
        """What is kept, newest first."""
        files = sorted(self.folder.glob(f"*{self.suffix}"), reverse=True)
        return [_kept(file) for file in files if NUMBER.fullmatch(file.name.removesuffix(self.suffix))]

    def read(self, number: str) -> bytes:
        """One of the texts. Raises `RefusedError` where there is none of this number."""
        if NUMBER.fullmatch(number):
            try:
                return self._file(number).read_bytes()
            except FileNotFoundError:
                pass
        raise RefusedError(f"There is no earlier text {number!r}.", "It may have been pushed out by newer ones.")

    def forget(self) -> None:
        """Keep none of them any longer."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, number: str) -> Path:
        return self.folder / f"{number}{self.suffix}"


def _kept(file: Path) -> Kept:
    number = file.name.removesuffix(file.suffix)
    at = datetime.strptime(number, STAMP).replace(tzinfo=UTC).timestamp()
    return Kept(number, at, file.stat().st_size)
