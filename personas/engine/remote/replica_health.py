"""Health of the replicas: a circuit breaker with backoff, and checks of those that were away."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from personas.engine.remote.replica import Replica
from personas.engine.remote.replicas import Replicas
from personas.engine.remote.server_errors import (
    ACCOUNT_KINDS,
    FailureKind,
    ReplicaError,
    VllmError,
)
from personas.engine.remote.vllm_client import ServedModels

log = logging.getLogger(__name__)
MAX_MISSED_HEALTH_CHECKS = 3
CANCEL_INTERVAL_S = 0.5


@dataclass(frozen=True)
class Refusal:
    """The reason why no server takes requests, and the seconds until one is asked again."""

    error: ReplicaError
    wait_s: float


class ReplicaHealth:
    """Watches replicas: which get replies, and when those that failed are asked again. Used on the
    event loop.
    """

    def __init__(
        self,
        replicas: Replicas,
        check: Callable[[Replica], Awaitable[ServedModels]],
        on_change: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: random.Random | None = None,
    ) -> None:
        """`check` verifies a server before it gets replies; `on_change` is called when one has
        become ready or not.

        `jitter` draws the backoff.
        """
        self._replicas = replicas
        self._limits = replicas.limits
        self._check = check
        self._on_change = on_change
        self._clock = clock
        self._monitors: list[asyncio.Task[None]] = []
        self._jitter = jitter or random.Random()  # nosec B311  # spreads retries

    async def start(self, wait_s: float) -> None:
        """Check all servers and watch them; wait until one is ready.

        Raises `VllmError` if one is not set up for this bot, and `ReplicaError` if none can be
        reached within `wait_s`.
        """
        replicas = self._replicas.all
        slow = await self._probe_first(replicas, wait_s)
        for replica in replicas:
            error = replica.error
            may_pass = isinstance(error, ReplicaError) and error.kind != "key"
            if isinstance(error, VllmError) and not may_pass:
                raise error
        for replica in replicas:
            self._start_monitor(replica, slow.get(replica.url))
        if self._replicas.ready or self.refusal():  # without quota, the bot runs, and says so
            return
        log.warning("no server can be reached; waiting %.0f s: %s", wait_s, replicas[0].error)
        deadline = self._clock() + wait_s
        while not (self._replicas.ready or self.refusal()):
            if self._clock() > deadline:
                raise replicas[0].error or ReplicaError("No server is ready.")
            await asyncio.sleep(self._limits.health_interval_s)

    async def _probe_first(
        self, replicas: Sequence[Replica], wait_s: float
    ) -> dict[str, asyncio.Task[None]]:
        """Check servers, all within `wait_s` and as long as none is ready. Returns the checks that
        still run, by address: one may be loading its model.
        """
        probes = [asyncio.create_task(self.probe(each), name=each.url) for each in replicas]
        try:
            done, slow = await asyncio.wait(probes, timeout=wait_s)
            while slow and not self._replicas.ready:
                log.info("waiting for %s", ", ".join(sorted(probe.get_name() for probe in slow)))
                more, slow = await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
                done |= more
        except asyncio.CancelledError:
            await cancel_tasks(probes)
            raise
        for probe in done:
            probe.result()
        return {probe.get_name(): probe for probe in slow}

    async def watch(self, replica: Replica) -> None:
        """Check a server that was added after the start, and watch it from now on."""
        await self.probe(replica)
        self._start_monitor(replica)

    async def unwatch(self, replica: Replica) -> None:
        """Watch a server no longer."""
        ended = [task for task in self._monitors if task.get_name() == replica.url]
        self._monitors = [task for task in self._monitors if task not in ended]
        await cancel_tasks(ended)

    async def close(self) -> None:
        await cancel_tasks(self._monitors)

    def _start_monitor(self, replica: Replica, probe: asyncio.Task[None] | None = None) -> None:
        task = asyncio.create_task(self._monitor(replica, probe), name=replica.url)
        self._monitors.append(task)

    async def _monitor(self, replica: Replica, probe: asyncio.Task[None] | None) -> None:
        """Check a server again and again, after a `probe` that still runs."""
        if probe:
            await probe
        while True:
            delay_s = replica.retry_at - self._clock()
            if replica.is_ready:
                delay_s = self._limits.health_interval_s
            replica.wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, delay_s)):
                    await replica.wake.wait()
            if replica.is_ready or self._clock() >= replica.retry_at:
                await self.probe(replica)

    async def probe(self, replica: Replica) -> None:
        """Check a replica's health, and everything else if it was away."""
        try:
            await replica.client.check_health(self._limits.health_timeout_s)
            if not replica.is_ready:
                await self._make_ready(replica)
            replica.missed = 0
        except ReplicaError as error:
            replica.missed += 1
            is_certain = error.kind in ("gone", *ACCOUNT_KINDS)
            has_missed_all = replica.missed >= MAX_MISSED_HEALTH_CHECKS
            if is_certain or has_missed_all or not replica.is_ready:
                self.fail(replica, error)
                self._abandon_silent(replica)
        except Exception as error:  # not set up for this bot, or its adapters cannot be loaded
            self.fail(replica, error)
            replica.retry_at = self._clock() + self._limits.misconfigured_s

    async def _make_ready(self, replica: Replica) -> None:
        if not replica.is_checked:
            replica.served = await self._check(replica)
            replica.adapters = dict(replica.served.adapters)
            replica.is_checked = True
            count = len(replica.adapters)
            log.info("%s serves %s, %d adapters loaded", replica.url, replica.served.root, count)
        error = replica.error
        if isinstance(error, ReplicaError) and error.kind not in ("busy", *ACCOUNT_KINDS):
            # Whether a server accepts requests again shows only with the next reply.
            replica.told = ""
        replica.is_ready = True
        replica.error = None
        self._on_change()

    def _abandon_silent(self, replica: Replica) -> None:
        """End the attempts on a replica that sent them nothing while it missed its health
        checks.
        """
        silent_since = self._clock() - self._limits.health_timeout_s
        for lease in replica.leases:
            if lease.deadline and not lease.deadline.expired() and lease.heard_at < silent_since:
                lease.deadline.reschedule(0)

    def fail(self, replica: Replica, error: Exception) -> None:
        """Give a replica no further replies until its backoff is over and it is healthy."""
        self._tell(replica, error)
        was_ready = replica.is_ready
        replica.is_ready = False
        if not isinstance(error, ReplicaError) or error.kind in ("gone", "broken"):
            replica.is_checked = False
            replica.client.sees_pictures = None
        replica.error = error
        now = self._clock()
        retry_at = now + self._backoff_s(replica, error)
        if was_ready or now >= replica.retry_at:
            if _failure_kind(error) in ACCOUNT_KINDS:
                replica.refusals += 1
            else:
                replica.failures += 1
            replica.retry_at = retry_at
        else:  # a reply that had begun before another one failed
            replica.retry_at = max(replica.retry_at, retry_at)
        replica.wake.set()
        if was_ready:
            self._on_change()

    def _backoff_s(self, replica: Replica, error: Exception) -> float:
        limits = self._limits
        kind = _failure_kind(error)
        # More than 16 doublings change nothing, and some thousand overflow.
        if kind in ACCOUNT_KINDS:
            doubled_s = limits.misconfigured_s * 2.0 ** min(replica.refusals, 16)
            return min(limits.max_refused_s, doubled_s)
        longest_s = limits.backoff_s * 2.0 ** min(replica.failures, 16)
        if kind == "busy":
            longest_s = min(limits.max_busy_backoff_s, longest_s)
            backoff_s = self._jitter.uniform(longest_s / 2, longest_s)
        else:
            longest_s = min(limits.max_backoff_s, longest_s)
            backoff_s = self._jitter.uniform(0, longest_s)
        if isinstance(error, ReplicaError) and error.retry_after_s is not None:
            # "At once" is not believed: some servers say it and go on to refuse.
            return max(backoff_s, error.retry_after_s + self._jitter.uniform(0, limits.backoff_s))
        return backoff_s

    def _tell(self, replica: Replica, error: Exception) -> None:
        """Log why a replica gets no replies, once until it has replied, or is back after it was
        away.
        """
        if str(error) != replica.told:
            replica.told = str(error)
            is_passing = isinstance(error, ReplicaError) and error.kind not in ACCOUNT_KINDS
            level = logging.WARNING if is_passing else logging.ERROR
            log.log(level, "%s gets no replies for now: %s", replica.url, error)

    def succeed(self, replica: Replica) -> None:
        """Reset the backoff of a replica that finished a reply."""
        replica.failures = replica.refusals = 0
        if replica.told:
            log.warning("%s replies again", replica.url)
            replica.told = ""

    def refusal(self) -> Refusal | None:
        """Return the refusal of a request while all servers refuse or limit requests.

        None while a server takes them, will within `patience_s`, or is away for another reason.
        """
        if self._replicas.ready:
            return None
        limiting = []
        refusing = []
        for replica in self._replicas.all:
            kind = _failure_kind(replica.error)
            if kind == "busy":
                limiting.append(replica)
            elif kind in ACCOUNT_KINDS:
                refusing.append(replica)
            else:
                return None
        next_replica = min(limiting or refusing, key=lambda replica: replica.retry_at)
        wait_s = max(0.0, next_replica.retry_at - self._clock())
        if limiting and wait_s <= self._limits.patience_s:
            return None
        assert isinstance(next_replica.error, ReplicaError)
        return Refusal(next_replica.error, wait_s)


def _failure_kind(error: Exception | None) -> FailureKind:
    return error.kind if isinstance(error, ReplicaError) else "broken"


async def cancel_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended: a timeout that expires at the same moment can swallow a
    cancellation.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_INTERVAL_S)
