"""Admission: bounds the requests of guilds and members, orders those that wait, and says whether one can start."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, Protocol, Self, TypeVar

from personas.errors import EngineBusyError

INITIAL_REPLY_S = 18.0
"""Assumed seconds per reply before any has ended; 33 concurrent replies took this long on two cores."""
NEW_TOKEN_COST_IN_PROMPT_TOKENS = 2
"""Weight of a generated token in a guild's service; prompt tokens are cheaper because they are computed together."""
INTERVAL_SMOOTHING = 0.8
"""Weight of earlier measurements in the moving average of the seconds between two ends of replies."""
GUILD_SHARE_FACTOR = 3  # a guild holds at most three times as many places as are free, so that some always are
MAX_WAIT_SHARE, MIN_MEASURED_ENDS = 0.75, 10
"""Share of the longest wait that a new request may expect, once so many replies have ended."""
MEMBERS_OF_A_FULL_QUEUE, MIN_OF_A_MEMBER = 8, 2
"""A member may have an eighth of the requests that may wait for a guild, but at least two."""


class AdmissionControl:
    """Counts the requests that wait or run. Thread-safe.

    A guild's limit is proportional to the places that are free (dynamic thresholds, Choudhury and Hahne, 1998): one
    flooding guild leaves a quarter of them to others, and the limit falls as more guilds come. A member has at most
    `member_limit`; nobody in particular, member 0, is limited as the guild is. Who has requests gets no further one
    where the guild would wait most of `max_wait_s`, after which requests fail, at the measured rate.
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
        """Admit `guild_limit` requests of one guild, a third more in total; `concurrency` of them run at a time."""
        self._places, self._clock = guild_limit * (GUILD_SHARE_FACTOR + 1) / GUILD_SHARE_FACTOR, clock
        self._member_limit, self._longest_wait_s = member_limit, MAX_WAIT_SHARE * max_wait_s
        self._requests: Counter[int] = Counter()
        self._of_members: Counter[tuple[int, int]] = Counter()
        self._lock = threading.Lock()
        self._last_end: float | None = None
        self._measured = 0
        self._concurrency, self._interval_s = concurrency, INITIAL_REPLY_S / concurrency

    @classmethod
    def of_engine(
        cls, rows: int, max_waiting: int, max_wait_s: float, clock: Callable[[], float] = time.monotonic
    ) -> Self:
        """Return the limits of an engine that runs `rows` requests, while `max_waiting` more of a guild wait."""
        member_limit = max(MIN_OF_A_MEMBER, max_waiting // MEMBERS_OF_A_FULL_QUEUE)
        return cls(rows + max_waiting, rows, clock, member_limit=member_limit, max_wait_s=max_wait_s)

    def acquire(self, guild_id: int, member_id: int = 0) -> None:
        """Count a new request. Raises `EngineBusyError` when the member or the guild has no place left."""
        with self._lock:
            requests, of_member = self._requests.total(), self._of_members[guild_id, member_id]
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
                self._interval_s = INTERVAL_SMOOTHING * self._interval_s + (1 - INTERVAL_SMOOTHING) * latest_s
                self._measured += 1
            _decrease(self._requests, guild_id)
            _decrease(self._of_members, (guild_id, member_id))
            self._last_end = now if self._requests else None

    def _would_wait_too_long(self, guild_id: int) -> bool:
        """Estimate that from the guild's share of the ends: all guilds with requests get the same."""
        before = min(self._requests.total(), self._requests[guild_id] * len(self._requests))
        return self._measured >= MIN_MEASURED_ENDS and before * self._interval_s > self._longest_wait_s

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
    NO_SLOT = "it waits for a slot: all are in use, or an earlier version of its folder is being dropped"
    FAILED = "its weights could not be read; starting it raises the error"


class QueuedSequence(Protocol):
    """A sequence as a `FairScheduler` sees it. `overtaken` counts the sequences that started before it."""

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


class TokenCounters:
    """The tokens that each key was served, a guild or a member (virtual token counter, OSDI 2024).

    A key without requests that returns counts as served as much as the least served one with requests, or more.
    """

    def __init__(self) -> None:
        self.served: dict[int, float] = {}
        self.requests: Counter[int] = Counter()

    def enter(self, key: int) -> None:
        """Count a new request."""
        if not self.requests[key]:
            least = min((self.served[it] for it in self.requests), default=None)
            self.served = {
                it: tokens
                for it, tokens in self.served.items()
                if it in self.requests or (least is not None and tokens > least)
            }
            self.served[key] = max(self.served.get(key, 0.0), least or 0.0)
        self.requests[key] += 1

    def leave(self, key: int) -> None:
        """Count the end of a request."""
        self.requests[key] -= 1
        if not self.requests[key]:
            del self.requests[key]


@dataclass
class GuildQueue(Generic[QueuedT]):
    """The waiting sequences of one guild by member, and its members' tokens and running sequences."""

    waiting: dict[int, list[QueuedT]] = field(default_factory=dict)
    counters: TokenCounters = field(default_factory=TokenCounters)
    running: Counter[int] = field(default_factory=Counter)


class FairQueue(Generic[QueuedT]):
    """The waiting sequences, ordered by how little their guilds were served, and in each guild their members.

    `is_due(seq, running)` tells whether a sequence has waited so long that it precedes the guild's other members, of
    which `running` sequences of its own member run.
    """

    def __init__(self, is_due: Callable[[QueuedT, int], bool] = lambda seq, running: False) -> None:
        self._is_due = is_due
        self._guilds: dict[int, GuildQueue[QueuedT]] = {}
        self._counters = TokenCounters()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[QueuedT]:
        """Yield the next sequence first: the guild served least, in it the member served least, then by arrival."""
        for guild_id in self._by_service():
            for member_id in self._members(self._guilds[guild_id]):
                yield from self._guilds[guild_id].waiting[member_id]

    @property
    def heads(self) -> list[QueuedT]:
        """The first waiting sequence of each guild."""
        guilds = (guild for guild in self._guilds.values() if guild.waiting)
        return [guild.waiting[self._members(guild)[0]][0] for guild in guilds]

    @property
    def guilds(self) -> int:
        """Number of guilds with waiting or running sequences."""
        return len(self._guilds)

    def members(self, guild_id: int) -> int:
        """Count the guild's members with waiting or running sequences."""
        return len(self._guilds[guild_id].counters.requests)

    def running(self, guild_id: int) -> int:
        return self._guilds[guild_id].running.total()

    def running_of_member(self, seq: QueuedT) -> int:
        """Count the running sequences of a waiting one's member."""
        return self._guilds[seq.guild_id].running[seq.member_id]

    def add(self, seq: QueuedT, *, first: bool = False) -> None:
        """Queue a sequence, behind its member's others unless `first`."""
        self._counters.enter(seq.guild_id)
        guild = self._guilds.setdefault(seq.guild_id, GuildQueue())
        guild.counters.enter(seq.member_id)
        of_member = guild.waiting.setdefault(seq.member_id, [])
        of_member.insert(0 if first else len(of_member), seq)
        self._length += 1

    def remove(self, seq: QueuedT) -> None:
        self._take(seq)
        self._leave(seq)

    def start(self, seq: QueuedT) -> None:
        """Move a sequence from waiting to running; its prompt counts as served."""
        self._take(seq)
        self._guilds[seq.guild_id].running[seq.member_id] += 1
        self._count(seq, len(seq.prompt))

    def count_token(self, seq: QueuedT) -> None:
        self._count(seq, NEW_TOKEN_COST_IN_PROMPT_TOKENS)

    def end(self, seq: QueuedT) -> None:
        running = self._guilds[seq.guild_id].running
        running[seq.member_id] -= 1
        if not running[seq.member_id]:
            del running[seq.member_id]
        self._leave(seq)

    def _by_service(self) -> list[int]:
        waiting = {guild_id: guild.waiting for guild_id, guild in self._guilds.items() if guild.waiting}
        served = self._counters.served
        return sorted(waiting, key=lambda it: (served[it], min(of[0].queued_at for of in waiting[it].values())))

    def _members(self, guild: GuildQueue[QueuedT]) -> list[int]:
        """Order the guild's members with waiting sequences, the next one first."""

        def order(member_id: int) -> tuple[bool, float, float]:
            head = guild.waiting[member_id][0]
            is_due = self._is_due(head, guild.running[member_id])
            return not is_due, 0.0 if is_due else guild.counters.served[member_id], head.queued_at

        return sorted(guild.waiting, key=order)

    def _count(self, seq: QueuedT, tokens: float) -> None:
        self._counters.served[seq.guild_id] += tokens
        self._guilds[seq.guild_id].counters.served[seq.member_id] += tokens

    def _take(self, seq: QueuedT) -> None:
        waiting = self._guilds[seq.guild_id].waiting
        waiting[seq.member_id].remove(seq)
        if not waiting[seq.member_id]:
            del waiting[seq.member_id]
        self._length -= 1

    def _leave(self, seq: QueuedT) -> None:
        guild = self._guilds[seq.guild_id]
        self._counters.leave(seq.guild_id)
        guild.counters.leave(seq.member_id)
        if not guild.counters.requests:
            del self._guilds[seq.guild_id]
