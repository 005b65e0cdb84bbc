"""What was replaced, for a person to check: a file that only its owner can read, and that is deleted after a time.

It names everybody whom the result hides, so it is listed in the home (`personas.reviews`) before it is begun; the bot
and every later run of `anonymise` delete what is due.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from personas.reviews import note_review
from trainer.anonymise.aside import naming
from trainer.anonymise.entity import Entity

CONTEXT = 40
"""Characters on either side."""
DAY_S = 86_400.0


class Review(AbstractContextManager["Review"]):
    """Writes the file: a line that says when it is deleted, then one line for each replacement."""

    def __init__(self, path: Path, home: Path, now: float, days: int) -> None:
        """`now` in seconds since 1970. Raises `MaterialError` and `OSError`."""
        note_review(home, path, now + days * DAY_S)
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._path = path
        self._out = os.fdopen(handle, "w", encoding="utf-8", errors="surrogatepass")
        self.delete_on = datetime.fromtimestamp(now + days * DAY_S, UTC).isoformat(timespec="seconds")
        self.source = self.row = ""
        self._write({"delete_on": self.delete_on, "why": "It names the people whom the result hides."})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with naming(self._path):
            self._out.close()

    def note(self, text: str, entities: Sequence[Entity]) -> None:
        """Write down what is replaced in a text; `row` says where it is from, `source` in which of several files."""
        of = {"source": self.source} if self.source else {}
        for entity in entities:
            around = text[max(0, entity.start - CONTEXT) : entity.end + CONTEXT]
            self._write(
                {
                    **of,
                    "row": self.row,
                    "kind": entity.kind,
                    "original": text[entity.start : entity.end],
                    "replacement": entity.replacement,
                    "context": " ".join(around.split()),
                }
            )

    def _write(self, line: dict[str, str]) -> None:
        with naming(self._path):
            self._out.write(json.dumps(line, ensure_ascii=False) + "\n")
