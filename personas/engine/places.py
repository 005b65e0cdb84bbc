"""How many may wait: a bounded number, of which a quarter is left to others; who comes too late hears for how long."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from personas.errors import EngineBusyError

FIRST_GUESS_S = 3.0
"""How far apart replies end, before any has."""
MEMORY = 0.8
"""How much of what was measured before counts beside the latest measurement."""
SHARE = 3
"""A guild may hold so many times as many places as are left free, so that some always are."""


class Places:
    """Counts the requests that are on their way. May be used from any thread."""

    def __init__(self, of_one_guild: int, clock: Callable[[], float] = time.monotonic) -> None:
        """A guild may have so many requests on their way while it is alone; a third more are left to others."""
        self._places, self._clock = of_one_guild * (SHARE + 1) / SHARE, clock
        self._taken: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._last_end: float | None = None
        self._apart_s = FIRST_GUESS_S

    def take(self, guild_id: int) -> None:
        """Take a place. Raises `EngineBusyError` when there is none for this guild."""
        with self._lock:
            taken = self._taken.total()
            if self._taken[guild_id] >= SHARE * (self._places - taken):
                raise EngineBusyError(f"{taken} replies are waiting already.", f"Try again in {self._wait_words()}.")
            self._taken[guild_id] += 1

    def give_back(self, guild_id: int) -> None:
        """A request has ended."""
        with self._lock:
            now = self._clock()
            if self._last_end is not None:
                self._apart_s = MEMORY * self._apart_s + (1 - MEMORY) * (now - self._last_end)
            self._taken[guild_id] -= 1
            self._last_end = now if self._taken.total() else None

    def wait_s(self) -> float:
        """For how long somebody who came now would wait, as far as the latest replies show."""
        return self._taken.total() * self._apart_s

    def _wait_words(self) -> str:
        return f"about {max(1, round(self.wait_s()))} s"
