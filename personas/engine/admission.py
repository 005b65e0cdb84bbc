"""Admission: the bounds of the batch, and of the requests of guilds and members; says whether one
can start.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, Self, TypeVar

from personas.errors import EngineBusyError

INITIAL_REPLY_S = 18.0
"""Assumed seconds per reply before any has ended; 33 concurrent replies took this long on two
cores.
"""
INTERVAL_SMOOTHING = 0.8
"""Weight of earlier measurements in the moving average of the seconds between two ends of
replies.
"""
GUILD_SHARE_FACTOR = (
    3  # a guild holds at most three times as many places as are free, so that some always are
)
MAX_WAIT_SHARE, MIN_MEASURED_ENDS = 0.75, 10
"""Share of the longest wait that a new request may expect, once so many replies have ended."""
MEMBERS_OF_A_FULL_QUEUE, MIN_OF_A_MEMBER = 8, 2
"""A member may have an eighth of the requests that may wait for a guild, but at least two."""


@dataclass(frozen=True)
class SchedulerLimits:
    """Bounds of the batch and of the time a request may take.

    `rows` sequences run at once, and up to `overflow_rows` more for guilds and members that have
    fewer than their share of the rows. A step computes at most `prefill_tokens` prompt tokens,
    `busy_prefill_tokens` while at least half of the rows run, as all of them wait for the step, and
    `solo_prefill_tokens` while no sequence decodes; so many of the first prompt alone in any case.
    A request waits at most `wait_s` seconds; a reply ends after `reply_s` with the text that it
    has.
    """

    rows: int = 32
    overflow_rows: int = 32
    prefill_tokens: int = 256
    solo_prefill_tokens: int = 512
    busy_prefill_tokens: int = 256
    wait_s: float = 120.0
    reply_s: float = 300.0
    candidate_rows: int = (
        8  # replies begin with candidates while at most so many sequences run or wait
    )

    @property
    def max_rows(self) -> int:
        return self.rows + self.overflow_rows


class AdmissionControl:
    """Counts the requests that wait or run. Thread-safe.

    A guild's limit is proportional to the places that are free (dynamic thresholds, Choudhury and
    Hahne, 1998): one flooding guild leaves a quarter of them to others, and the limit falls as more
    guilds come. A member has at most `member_limit`; nobody in particular, member 0, is limited as
    the guild is. Who has requests gets no further one where the guild would wait most of
    `max_wait_s`, after which requests fail, at the measured rate.
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
        self._of_members: Counter[tuple[int, int]] = Counter()
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
        member_limit = max(MIN_OF_A_MEMBER, max_waiting // MEMBERS_OF_A_FULL_QUEUE)
        return cls(
            rows + max_waiting, rows, clock, member_limit=member_limit, max_wait_s=max_wait_s
        )

    def acquire(self, guild_id: int, member_id: int = 0) -> None:
        """Count a new request. Raises `EngineBusyError` when the member or the guild has no place
        left.
        """
        with self._lock:
            requests = self._requests.total()
            of_member = self._of_members[guild_id, member_id]
            if member_id and of_member >= self._member_limit:
                raise member_busy_error(self._member_limit, max(1.0, self._interval_s))
            is_full = self._requests[guild_id] >= GUILD_SHARE_FACTOR * (self._places - requests)
            if is_full or (of_member and self._would_wait_too_long(guild_id)):
                wait_s = max(1.0, self.wait_s())
                waiting = max(0, requests - self._concurrency)
                what = f"{waiting} replies are waiting already, as many as one server may have."
                raise EngineBusyError(what, f"Try again in about {round(wait_s)} s.", wait_s)
            self._requests[guild_id] += 1
            self._of_members[guild_id, member_id] += 1

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
            _decrease(self._of_members, (guild_id, member_id))
            self._last_end = now if self._requests else None

    def _would_wait_too_long(self, guild_id: int) -> bool:
        """Estimate that from the guild's share of the ends: all guilds with requests get the
        same.
        """
        before = min(self._requests.total(), self._requests[guild_id] * len(self._requests))
        return (
            self._measured >= MIN_MEASURED_ENDS and before * self._interval_s > self._longest_wait_s
        )

    def wait_s(self) -> float:
        """Estimate how many seconds a new request would wait."""
        return self._requests.total() * self._interval_s


def member_busy_error(limit: int, wait_s: float) -> EngineBusyError:
    """Return the error of a member who has as many unfinished replies as one may have."""
    what = f"{limit} replies to the same member are unfinished, as many as one may have."
    return EngineBusyError(what, "Ask again when one of them has ended.", wait_s)


def _decrease(counter: Counter[Any], key: object) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


class AdapterState(Enum):
    """Answers whether a sequence with an adapter can start."""

    READY = "it can start now"
    LOADING = "its weights have not been read yet"
    NO_SLOT = (
        "it waits for a slot: all are in use, or an earlier version of its folder is being dropped"
    )
    FAILED = "its weights could not be read; starting it raises the error"


class QueuedSequence(Protocol):
    """A sequence as a `FairScheduler` sees it. `overtaken` counts the sequences that started before
    it.
    """

    prompt: tuple[int, ...]
    queued_at: float
    started_at: float
    overtaken: int

    @property
    def guild_id(self) -> int: ...

    @property
    def member_id(self) -> int: ...

    @property
    def is_cancelled(self) -> bool: ...

    @property
    def is_finished(self) -> bool: ...

    def begin(self) -> bool:
        """Mark the sequence as started. Returns False when it was cancelled before."""

    def finish(self) -> None:
        """Deliver the reply."""

    def fail(self, error: Exception) -> None:
        """Deliver an error."""

    def discard(self) -> None:
        """End a sequence that was cancelled before it started."""


QueuedT = TypeVar("QueuedT", bound=QueuedSequence)
