"""How many may wait: a bounded number, of which a quarter is left to others; who comes too late hears for how long."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from personas.errors import EngineBusyError

FIRST_GUESS_S = 18.0
"""What a reply takes among as many as are answered at once, before any has ended: 33 took so long on two cores."""
MEMORY = 0.8
"""How much of what was measured before counts beside the latest measurement."""
SHARE = 3
"""A guild may hold so many times as many places as are left free, so that some always are."""


class Places:
    """Counts the requests that are on their way. May be used from any thread."""

    def __init__(self, of_one_guild: int, at_once: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        """A guild may have so many requests on their way while it is alone; a third more are left to others.

        `at_once` of them are answered at a time.
        """
        self._places, self._clock = of_one_guild * (SHARE + 1) / SHARE, clock
        self._taken: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._last_end: float | None = None
        self._at_once, self._apart_s = at_once, FIRST_GUESS_S / at_once

    def take(self, guild_id: int) -> None:
        """Take a place. Raises `EngineBusyError` when there is none for this guild."""
        with self._lock:
            taken = self._taken.total()
            if self._taken[guild_id] >= SHARE * (self._places - taken):
                wait_s = max(1.0, self.wait_s())
                waiting = max(0, taken - self._at_once)  # the others are being written
                told = f"{waiting} replies are waiting already.", f"Try again in about {round(wait_s)} s."
                raise EngineBusyError(*told, wait_s)
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
