"""Admission: limits the requests of each guild and member, and estimates their wait."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

from personas.errors import EngineBusyError

INITIAL_REPLY_S = 18.0
"""Assumed seconds per reply before any has ended; 33 concurrent replies took this long on two
cores.
"""
INTERVAL_SMOOTHING = 0.8
"""Weight of earlier measurements in the moving average of the seconds between two ends of
replies.
"""
# A guild holds at most three times as many places as are free, so that some always are.
GUILD_SHARE_FACTOR = 3
# Share of the longest wait that a member's further request may expect.
MAX_WAIT_SHARE = 0.75
# Replies that have to end before the wait is estimated.
MIN_MEASURED_ENDS = 10
# A member may have an eighth of the requests that may wait for a guild, but at least two.
MEMBERS_OF_A_FULL_QUEUE = 8
MIN_MEMBER_REQUESTS = 2


class AdmissionControl:
    """Counts the requests that wait or run. Thread-safe.

    A guild's limit is proportional to the places that are free (dynamic thresholds, Choudhury and
    Hahne, 1998): one flooding guild leaves a quarter of them to others, and the limit falls as more
    guilds come. A member has at most `member_limit`; member 0 (no particular member) has the
    guild's limit. A member with a pending request gets no second one while the guild's wait, at the
    measured rate, is near `max_wait_s`, after which requests fail.
    """

    def __init__(
        self,
        guild_limit: int,
        concurrency: int = 1,
        clock: Callable[[], float] = time.monotonic,
        *,
        member_limit: int = 8,
        max_wait_s: float = float("inf"),
    ) -> None:
        """Admit `guild_limit` requests of one guild, a third more in total; `concurrency` of them
        run at a time.
        """
        self._places = guild_limit * (GUILD_SHARE_FACTOR + 1) / GUILD_SHARE_FACTOR
        self._clock = clock
        self._member_limit = member_limit
        self._longest_wait_s = MAX_WAIT_SHARE * max_wait_s
        self._requests: Counter[int] = Counter()
        self._member_requests: Counter[tuple[int, int]] = Counter()
        self._lock = threading.Lock()
        self._last_end: float | None = None
        self._measured = 0
        self._concurrency = concurrency
        self._interval_s = INITIAL_REPLY_S / concurrency

    @classmethod
    def of_engine(
        cls,
        rows: int,
        max_waiting: int,
        max_wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Return the limits of an engine that runs `rows` requests, while `max_waiting` more of a
        guild wait.
        """
        member_limit = max(MIN_MEMBER_REQUESTS, max_waiting // MEMBERS_OF_A_FULL_QUEUE)
        return cls(
            guild_limit=rows + max_waiting,
            concurrency=rows,
            clock=clock,
            member_limit=member_limit,
            max_wait_s=max_wait_s,
        )

    def acquire(self, guild_id: int, member_id: int = 0) -> None:
        """Count a new request. Raises `EngineBusyError` when the member or the guild has no place
        left.
        """
        with self._lock:
            requests = self._requests.total()
            member_requests = self._member_requests[guild_id, member_id]
            if member_id and member_requests >= self._member_limit:
                raise member_busy_error(self._member_limit, max(1.0, self._interval_s))
            is_full = self._requests[guild_id] >= GUILD_SHARE_FACTOR * (self._places - requests)
            if is_full or (member_requests and self._would_wait_too_long(guild_id)):
                wait_s = max(1.0, self.wait_s())
                waiting = max(0, requests - self._concurrency)
                message = f"{waiting} replies are waiting already, as many as one server may have."
                raise EngineBusyError(message, f"Try again in about {round(wait_s)} s.", wait_s)
            self._requests[guild_id] += 1
            self._member_requests[guild_id, member_id] += 1

    def release(self, guild_id: int, member_id: int = 0) -> None:
        """Count the end of a request and update the average interval."""
        with self._lock:
            now = self._clock()
            if self._last_end is not None:
                latest_s = now - self._last_end
                self._interval_s = (
                    INTERVAL_SMOOTHING * self._interval_s + (1 - INTERVAL_SMOOTHING) * latest_s
                )
                self._measured += 1
            _decrease(self._requests, guild_id)
            _decrease(self._member_requests, (guild_id, member_id))
            # A pause without requests says nothing about the time that replies take.
            self._last_end = now if self._requests else None

    def _would_wait_too_long(self, guild_id: int) -> bool:
        """Estimate the wait from the guild's share of the ends: all guilds with requests get the
        same share.
        """
        before = min(self._requests.total(), self._requests[guild_id] * len(self._requests))
        if self._measured < MIN_MEASURED_ENDS:
            return False
        return before * self._interval_s > self._longest_wait_s

    def wait_s(self) -> float:
        """Estimate how many seconds a new request would wait."""
        return self._requests.total() * self._interval_s


def member_busy_error(limit: int, wait_s: float) -> EngineBusyError:
    """Return the error of a member who has as many unfinished replies as one may have."""
    message = f"{limit} replies to the same member are unfinished, as many as one may have."
    return EngineBusyError(message, "Ask again when one of them has ended.", wait_s)


def _decrease(counter: Counter[Any], key: object) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
