"""Progress on standard error: one line that moves for people at a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from personas.progress import PLAIN_EVERY_S, Plain


class Counting:
    """A counter on standard error, one line for each thing that is done."""

    def __init__(self, every_s: float = PLAIN_EVERY_S) -> None:
        self._bar: Any = None
        self._doing, self._count = "", 0
        self._plain = Plain(every_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def heard(self, doing: str, more: int) -> None:
        """So many more records or samples of what is being done."""
        if self._doing != doing:
            self.__exit__(None, None, None)
            self._bar = tqdm(desc=doing, unit=" rows", file=sys.stderr, disable=None)
            self._doing, self._count = doing, 0
        self._bar.update(more)
        self._count += more
        self._plain.say(f"{doing}: {self._count:,} rows")
