"""While replies are made the trainer is asked to hold: two programs that compute at once slow each other down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINGER_S = 1.0
"""So long after the last reply the trainer goes on: in a talk the next one often follows at once."""


class GivingWay:
    """Counts the replies that wait or are being made, and says when there are some and when there are none."""

    def __init__(self, hold: Callable[[bool], None]) -> None:
        """`hold` is told True with the first reply, False some time after the last."""
        self._hold = hold
        self._replies = 0
        self._letting_go: asyncio.TimerHandle | None = None

    @property
    def is_asked(self) -> bool:
        """Whether the trainer is to hold now."""
        return bool(self._replies or self._letting_go)

    @contextmanager
    def reply(self) -> Iterator[None]:
        """A reply is asked for and made inside the block. To be used on the event loop."""
        if self._letting_go:
            self._letting_go.cancel()
            self._letting_go = None
        elif not self._replies:
            self._hold(True)
        self._replies += 1
        try:
            yield
        finally:
            self._replies -= 1
            if not self._replies:
                self._letting_go = asyncio.get_running_loop().call_later(LINGER_S, self._let_go)

    def _let_go(self) -> None:
        self._letting_go = None
        self._hold(False)
