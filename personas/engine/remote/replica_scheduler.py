"""Starts sequences in fair order on replicas that have room for them and for their adapters."""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from personas.engine.fair_queue import QueuedSequence
from personas.engine.fair_scheduler import (
    MAX_OVERTAKEN,
    AdapterState,
    FairScheduler,
    SchedulerLimits,
)
from personas.engine.remote.replica import Lease, Replica, ReplicaLimits
from personas.engine.remote.replicas import Replicas

PATIENCE_SHARE = 0.25
"""Share of the longest wait after which a reply goes to any replica, not only to those that its
adapter prefers.
"""
OVERFLOW_SHARE = 3  # a third of the rows is left to guilds that have less than their share


class RoutedSequence(QueuedSequence, Protocol):
    """A sequence as a `ReplicaScheduler` sees it."""

    lease: Lease
    avoided: frozenset[str]

    @property
    def adapter_name(self) -> str: ...

    @property
    def routing_key(self) -> str: ...

    @property
    def wants_sight(self) -> bool:
        """It has pictures."""


RoutedT = TypeVar("RoutedT", bound=RoutedSequence)


class ReplicaScheduler(FairScheduler[RoutedT]):
    """Starts sequences on replicas that have room for them and for their adapters."""

    def __init__(
        self,
        limits: SchedulerLimits,
        replicas: Replicas,
        run: Callable[[RoutedT], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`run` starts an attempt on the replica of the sequence's lease, and returns at once."""
        super().__init__(limits, clock)
        self._replicas = replicas
        self._run = run

    @property
    def max_overtaken(self) -> int:
        """As many as on one replica, for each of them: with more of them, more replies start in the
        same time.
        """
        return MAX_OVERTAKEN * max(1, len(self._replicas.ready))

    def _choose(self, seq: RoutedT) -> Replica | None:
        waited_s = self.clock() - seq.queued_at
        has_waited_long = waited_s > PATIENCE_SHARE * self.limits.wait_s
        return self._replicas.choose(
            seq.routing_key,
            seq.adapter_name,
            seq.avoided,
            anywhere=has_waited_long or seq.overtaken >= self.max_overtaken,
            wants_sight=seq.wants_sight,
        )

    def _state(self, seq: RoutedT) -> AdapterState:
        return AdapterState.READY if self._choose(seq) else AdapterState.NO_SLOT

    def _acquire(self, seq: RoutedT) -> None:
        replica = self._choose(seq)
        assert replica is not None  # its state was READY
        seq.lease = self._replicas.lease(replica, seq.adapter_name)
        seq.started_at = self.clock()
        self._run(seq)

    def _release(self, seq: RoutedT) -> None:
        self._replicas.release(seq.lease)


def scheduler_limits(
    replicas: int, limits: ReplicaLimits, wait_s: float, reply_s: float
) -> SchedulerLimits:
    """Return the bounds of the replies on so many replicas together."""
    rows = limits.rows * replicas
    overflow = rows // OVERFLOW_SHARE
    return SchedulerLimits(
        rows=rows - overflow, overflow_rows=overflow, wait_s=wait_s, reply_s=reply_s
    )
