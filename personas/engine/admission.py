"""Admission control: bounds the requests of each guild, and says whether a request can start."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum

from personas.errors import EngineBusyError

INITIAL_REPLY_S = 18.0
"""Assumed seconds per reply before any has ended; 33 concurrent replies took this long on two cores."""
INTERVAL_SMOOTHING = 0.8
"""Weight of earlier measurements in the moving average of the seconds between two ends of replies."""
GUILD_SHARE_FACTOR = 3  # a guild holds at most three times as many places as are free, so that some always are


class AdmissionControl:
    """Counts the requests that wait or run. Thread-safe.

    A guild's limit is proportional to the places that are free (dynamic thresholds, Choudhury and Hahne, 1998): one
    flooding guild leaves a quarter of them to others, and the limit falls as more guilds come.
    """

    def __init__(self, guild_limit: int, concurrency: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        """Admit `guild_limit` requests of one guild, a third more in total; `concurrency` of them run at a time."""
        self._places, self._clock = guild_limit * (GUILD_SHARE_FACTOR + 1) / GUILD_SHARE_FACTOR, clock
        self._requests: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._last_end: float | None = None
        self._concurrency, self._interval_s = concurrency, INITIAL_REPLY_S / concurrency

    def acquire(self, guild_id: int) -> None:
        """Count a new request. Raises `EngineBusyError` when the guild has no place left."""
        with self._lock:
            requests = self._requests.total()
            if self._requests[guild_id] >= GUILD_SHARE_FACTOR * (self._places - requests):
                wait_s = max(1.0, self.wait_s())
                waiting = max(0, requests - self._concurrency)
                advice = f"Try again in about {round(wait_s)} s."
                raise EngineBusyError(f"{waiting} replies are waiting already.", advice, wait_s)
            self._requests[guild_id] += 1

    def release(self, guild_id: int) -> None:
        """Count the end of a request and update the average interval."""
        with self._lock:
            now = self._clock()
            if self._last_end is not None:
                latest_s = now - self._last_end
                self._interval_s = INTERVAL_SMOOTHING * self._interval_s + (1 - INTERVAL_SMOOTHING) * latest_s
            self._requests[guild_id] -= 1
            self._last_end = now if self._requests.total() else None

    def wait_s(self) -> float:
        """Estimate how many seconds a new request would wait."""
        return self._requests.total() * self._interval_s


class AdapterState(Enum):
    """Answers whether a sequence with an adapter can start."""

    READY = "it can start now"
    LOADING = "its weights have not been read yet"
    NO_SLOT = "it waits for a slot: all are in use, or an earlier version of its folder is being dropped"
    FAILED = "its weights could not be read; starting it raises the error"
