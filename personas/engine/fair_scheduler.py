"""Starts and ends sequences in fair order, for the local engine and for servers. Imports no model
library.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import chain
from typing import Generic

from personas.engine.fair_queue import FairQueue, QueuedT
from personas.errors import EngineBusyError

log = logging.getLogger(__name__)
# Sequences that may overtake one that waits for a LoRA slot; after that, none starts before it.
MAX_OVERTAKEN = 8


@dataclass(frozen=True)
class SchedulerLimits:
    """Bounds of the batch and of the time a request may take.

    `rows` sequences run at once, and up to `overflow_rows` more for guilds and members that have
    fewer than their share of the rows. A step computes at most `prefill_tokens` prompt tokens,
    `busy_prefill_tokens` while at least half of the rows run, as all of them wait for the step, and
    `solo_prefill_tokens` while no sequence decodes; so many of the first prompt alone in any case.
    A request waits at most `wait_s` seconds; a reply ends after `reply_s` with the text that it
    has. Keys and values of all running sequences take at most `kv_bytes`, None for no limit; one
    sequence alone may take more.
    """

    rows: int = 32
    overflow_rows: int = 32
    prefill_tokens: int = 256
    solo_prefill_tokens: int = 512
    busy_prefill_tokens: int = 256
    wait_s: float = 120.0
    reply_s: float = 300.0
    # Replies begin with candidates while at most so many sequences run or wait.
    candidate_rows: int = 8
    kv_bytes: int | None = None

    @property
    def max_rows(self) -> int:
        return self.rows + self.overflow_rows


class AdapterState(Enum):
    """Answers whether a sequence with an adapter can start."""

    READY = "it can start now"
    LOADING = "its weights have not been read yet"
    NO_SLOT = (
        "it waits for a slot: all are in use, or an earlier version of its folder is being dropped; "
        "or for memory for its keys and values"
    )
    FAILED = "its weights could not be read; starting it raises the error"


class FairScheduler(ABC, Generic[QueuedT]):
    """Owns the waiting and running sequences: starts them in fair order and ends them. Used by one
    thread.

    Subclasses know what a sequence needs to run.
    """

    def __init__(
        self, limits: SchedulerLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.queue: FairQueue[QueuedT] = FairQueue(self._is_due)
        self.running: list[QueuedT] = []

    @property
    def max_overtaken(self) -> int:
        """Number of sequences that may overtake one that waits for a LoRA slot; after that, none
        starts before it.
        """
        return MAX_OVERTAKEN

    @abstractmethod
    def _state(self, seq: QueuedT) -> AdapterState:
        """Answer whether a sequence can start. Changes nothing."""

    @abstractmethod
    def _acquire(self, seq: QueuedT) -> None:
        """Give a sequence all that it needs to run, and start it; or raise, and give it nothing."""

    @abstractmethod
    def _release(self, seq: QueuedT) -> None:
        """Take back everything that `_acquire` gave a sequence."""

    def add(self, seq: QueuedT) -> None:
        seq.queued_at = self.clock()
        self.queue.add(seq)

    def requeue(self, seq: QueuedT, queued_at: float) -> None:
        """Return a running sequence to the queue, before the other sequences of its guild: its
        server failed.
        """
        self._leave(seq)
        seq.queued_at = queued_at
        self.queue.add(seq, first=True)

    def admit(self) -> None:
        """Start waiting sequences as long as there are rows and LoRA slots for them."""
        while self.queue and len(self.running) < self.limits.max_rows:
            seq, overtaken = self._select_next()
            if seq is None:
                return
            self._start(seq, overtaken)

    def _select_next(self) -> tuple[QueuedT | None, list[QueuedT]]:
        """Find the next sequence to start, or to fail with its adapter, and those before it that
        wait for a slot.
        """
        overtaken: list[QueuedT] = []
        share = max(1, self.limits.rows // max(1, self.queue.guilds))
        crowded = self._crowded_guilds()
        due = self._due()
        others = [seq for seq in self.queue if seq not in due] if due else self.queue
        for seq in chain(due, others):
            if seq.guild_id in crowded:
                continue
            if seq not in due and not self._has_row(seq, share):
                continue
            state = self._state(seq)
            if state in (AdapterState.READY, AdapterState.FAILED):
                return seq, overtaken
            if state is AdapterState.NO_SLOT:
                # Others pass it so many times only, or no slot might ever become free for it.
                if seq.overtaken >= self.max_overtaken:
                    break
                overtaken.append(seq)
        return None, []

    def _crowded_guilds(self) -> Collection[int]:
        """List the guilds whose next sequences stay in the queue, where they can still be overtaken
        by others.
        """
        return ()

    def _due(self) -> list[QueuedT]:
        """List the guilds' first sequences that precede all others, the next one first, and may use
        overflow rows.
        """
        due = []
        for seq in self.queue.heads:
            if self._is_due(seq, self.queue.running(seq.guild_id)):
                due.append(seq)
        return sorted(due, key=lambda seq: seq.queued_at)

    def _is_due(self, seq: QueuedT, running: int) -> bool:
        """Return whether a sequence has waited too long; `running` are those of its guild, or of
        its member.

        Fairness alone would let a member who was served wait for all members who come for the first
        time. So a sequence is due once it has waited half as long as it may if none of them is
        running, and after three quarters if one is.
        """
        return running <= 4 * (self.clock() - seq.queued_at) / self.limits.wait_s - 2

    def _has_row(self, seq: QueuedT, share: int) -> bool:
        """Return whether a sequence may start; `share` is each guild's share of the rows.

        Once all rows are taken, a guild below its share may use overflow rows; its n-th sequence
        needs n free ones, so the last is left to guilds that have none. Beyond its share, a guild
        may use half of them, at most a quarter of the rows, for members with fewer sequences than
        its members run on average; as many are left to guilds below theirs. Sequences that start
        together end together: without overflow rows a new guild or member might wait for a whole
        reply.
        """
        if len(self.running) < self.limits.rows:
            return True
        free = self.limits.max_rows - len(self.running)
        guild_rows = self.queue.running(seq.guild_id)
        member_rows = self.queue.running_of_member(seq)
        if guild_rows < share:
            return guild_rows < free
        reserve = min(self.limits.overflow_rows // 2, max(1, self.limits.rows // 4))
        is_below_average = member_rows * self.queue.members(seq.guild_id) < guild_rows
        return is_below_average and guild_rows < share + reserve and member_rows < free - reserve

    def _start(self, seq: QueuedT, overtaken: list[QueuedT]) -> None:
        try:
            if not seq.begin():
                self._discard(seq)
                return
            self._acquire(seq)
        except Exception as error:  # its adapter, or no memory for its keys and values
            self.fail_waiting(seq, error)
            return
        for other in overtaken:
            other.overtaken += 1
        self.queue.start(seq)
        self.running.append(seq)

    def expire(self) -> None:
        """End sequences that were cancelled or ran too long, and fail those that waited too
        long.
        """
        now = self.clock()
        for seq in list(self.running):
            if seq.is_finished or now - seq.started_at > self.limits.reply_s:
                self.finish(seq)
        for seq in list(self.queue):
            if seq.is_cancelled:
                self._discard(seq)
            elif now - seq.queued_at > self.limits.wait_s:
                message = f"The request waited {self.limits.wait_s:.0f} s without being started."
                self.fail_waiting(seq, EngineBusyError(message, "Ask again later."))

    def finish(self, seq: QueuedT) -> None:
        run_or_log(partial(self._leave, seq))
        run_or_log(seq.finish)

    def fail(self, seq: QueuedT, error: Exception) -> None:
        run_or_log(partial(self._leave, seq))
        run_or_log(partial(seq.fail, error))

    def fail_all(self, error: Exception) -> None:
        for seq in list(self.running):
            self.fail(seq, error)
        for seq in list(self.queue):
            self.fail_waiting(seq, error)

    def fail_waiting(self, seq: QueuedT, error: Exception) -> None:
        """Fail a sequence of the queue."""
        self.queue.remove(seq)
        run_or_log(partial(seq.fail, error))

    def _discard(self, seq: QueuedT) -> None:
        self.queue.remove(seq)
        run_or_log(seq.discard)

    def _leave(self, seq: QueuedT) -> None:
        self.running.remove(seq)
        self.queue.end(seq)
        self._release(seq)


def run_or_log(action: Callable[[], None]) -> None:
    """Run an action of one request. Its error is logged, because it must not end other requests."""
    try:
        action()
    except Exception:
        log.exception("a step of one request failed; the others go on")
