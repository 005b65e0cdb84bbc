"""Replicas of a served model: choice of one for a reply, circuit breaker with backoff, health."""

import asyncio
import hashlib
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from personas.engine.remote.server_errors import (
    ACCOUNT_KINDS,
    FailureKind,
    ReplicaError,
    VllmError,
)
from personas.engine.remote.vllm_client import ServedModels, VllmClient

log = logging.getLogger(__name__)

MAX_MISSED_HEALTH_CHECKS = 3
LOAD_FACTOR = 1.25
"""Most replies of a replica, relative to the average (consistent hashing with bounded loads, arXiv
1608.01350).
"""
PRELOADED_REPLICAS = 4
"""Replicas on which a promotion loads a version: loading stops all replies of a replica."""
MAX_CACHED_ORDERS = 16384
CANCEL_INTERVAL_S = 0.5


@dataclass(frozen=True)
class ReplicaLimits:
    """Limits of each replica, and the times of its health checks.

    A replica runs `rows` replies with at most `adapters` different adapters at once. It is asked
    for its health every `health_interval_s` and has to answer within `health_timeout_s`. After a
    failure it gets no replies for a random time up to `backoff_s`, doubled with each further
    failure up to `max_backoff_s` (full jitter), and until it is healthy. One that limits requests
    gets none for at least half of a time that doubles up to `max_busy_backoff_s`, and not before
    the time that it names. One that is not set up for this bot is checked again after
    `misconfigured_s`, doubled up to `max_refused_s` with each further refusal of the account.
    Requests wait for servers that limit them for `patience_s`; if it takes longer, they are
    answered at once.
    """

    rows: int = 32
    adapters: int = 16
    health_interval_s: float = 1.0
    health_timeout_s: float = 3.0
    backoff_s: float = 0.25
    max_backoff_s: float = 4.0
    max_busy_backoff_s: float = 30.0
    misconfigured_s: float = 30.0
    max_refused_s: float = 600.0
    patience_s: float = 15.0


@dataclass(eq=False)
class Lease:
    """A reply's place on a replica. `adapter` is empty for the base model.

    `deadline` ends the reply's attempt when it expires; each part of the reply that arrives
    postpones it.
    """

    replica: "Replica"
    adapter: str
    deadline: asyncio.Timeout | None = None
    heard_at: float = 0.0


@dataclass(eq=False)
class Replica:
    """One server: the adapters it has, by name with their paths, and the replies on it.

    `active` is the number of replies by adapter, without those of the base model. `is_checked`
    until the server was away, because another one may have taken its place; `served` is the check's
    result. `error` is the reason why it gets no replies. `told` is the error that was logged and
    has not passed since: each is logged once. `refusals` counts the failures at which it refused
    the account, and `failures` all others, since it finished a reply.
    """

    client: VllmClient
    served: ServedModels | None = None
    adapters: dict[str, str] = field(default_factory=dict)
    leases: set[Lease] = field(default_factory=set)
    active: Counter[str] = field(default_factory=Counter)
    is_ready: bool = False
    is_checked: bool = False
    error: Exception | None = None
    told: str = ""
    failures: int = 0
    refusals: int = 0
    missed: int = 0
    retry_at: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return self.client.url


@dataclass(frozen=True)
class Refusal:
    """The reason why no server takes requests, and the seconds until one is asked again."""

    error: ReplicaError
    wait_s: float


class Replicas:
    """Watches the servers, and spreads replies over those that are ready. Used on the event
    loop.
    """

    def __init__(
        self,
        clients: Sequence[VllmClient],
        limits: ReplicaLimits,
        check: Callable[[Replica], Awaitable[ServedModels]],
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        jitter: random.Random | None = None,
    ) -> None:
        """`check` verifies a server before it gets replies; `on_change` is called when one has
        become ready or not.

        `jitter` draws the backoff.
        """
        self.all = [Replica(client) for client in clients]
        self.limits = limits
        self._check = check
        self._on_change = on_change
        self._clock = clock
        self._monitors: list[asyncio.Task[None]] = []
        self._jitter = jitter or random.Random()  # nosec B311  # spreads retries
        self._released = asyncio.Event()
        self._orders: dict[str, list[Replica]] = {}  # `_order` by key

    @property
    def ready(self) -> list[Replica]:
        return [replica for replica in self.all if replica.is_ready]

    # --------------------------------------------------------------------------------------- choice

    def choose(
        self,
        key: str,
        adapter: str,
        avoided: frozenset[str] = frozenset(),
        *,
        anywhere: bool = True,
    ) -> Replica | None:
        """Choose a replica with room for a reply; None if there is none.

        The same key prefers the same replica, which then has its adapter and its prompts' prefixes
        in memory; above `LOAD_FACTOR` times the average load the next one in the key's order is
        taken. A reply waits for one that is full below that, unless it may go `anywhere`: reading
        its adapter elsewhere would stop all replies there. An adapter has one such replica more
        than it replies on now. `avoided` are addresses.
        """
        ready = [replica for replica in self._order(key) if replica.is_ready]
        if avoided:
            ready = [replica for replica in ready if replica.url not in avoided]
        if not ready:
            return None
        replies = sum([len(replica.leases) for replica in ready])
        bound = math.ceil(LOAD_FACTOR * (replies + 1) / len(ready))
        below = [replica for replica in ready if len(replica.leases) < bound]
        if not anywhere:
            # Reading an adapter stops all replies of a server, so the reply rather waits.
            with_adapter = sum([adapter in replica.active for replica in below])
            return self._first_with_room(below[: with_adapter + 1], adapter)
        return self._first_with_room(below, adapter) or self._first_with_room(ready, adapter)

    def _first_with_room(self, replicas: Sequence[Replica], adapter: str) -> Replica | None:
        for replica in replicas:
            if self._has_room(replica, adapter):
                return replica
        return None

    def preferred(self, key: str) -> list[Replica]:
        """Return the ready replicas on which a new version is loaded at once; others load it when
        it is first used.
        """
        return [replica for replica in self._order(key) if replica.is_ready][:PRELOADED_REPLICAS]

    def prefers(self, key: str, url: str) -> bool:
        """Return whether the replica of this address is among the first of a key."""
        return any(replica.url == url for replica in self._order(key)[:PRELOADED_REPLICAS])

    def _order(self, key: str) -> list[Replica]:
        """Return all replicas, those that a key prefers first."""
        if key not in self._orders:
            if len(self._orders) >= MAX_CACHED_ORDERS:
                self._orders.clear()
            self._orders[key] = sorted(
                self.all, key=lambda replica: rendezvous_score(key, replica.url), reverse=True
            )
        return self._orders[key]

    def _has_room(self, replica: Replica, adapter: str) -> bool:
        if len(replica.leases) >= self.limits.rows:
            return False
        return (
            not adapter or adapter in replica.active or len(replica.active) < self.limits.adapters
        )

    def lease(self, replica: Replica, adapter: str) -> Lease:
        """Take a place on a replica."""
        lease = Lease(replica, adapter, heard_at=self._clock())
        replica.leases.add(lease)
        if adapter:
            replica.active[adapter] += 1
        return lease

    def release(self, lease: Lease) -> None:
        active = lease.replica.active
        lease.replica.leases.remove(lease)
        if lease.adapter:
            active[lease.adapter] -= 1
            if not active[lease.adapter]:
                del active[lease.adapter]
        self._released.set()

    async def wait_for_release(self) -> None:
        """Wait until a reply has left its replica."""
        self._released.clear()
        await self._released.wait()

    # ------------------------------------------------------------------------------ circuit breaker

    def fail(self, replica: Replica, error: Exception) -> None:
        """Give a replica no further replies until its backoff is over and it is healthy."""
        self._tell(replica, error)
        was_ready = replica.is_ready
        replica.is_ready = False
        if not isinstance(error, ReplicaError) or error.kind in ("gone", "broken"):
            replica.is_checked = False
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
        limits = self.limits
        kind = _failure_kind(error)
        if kind in ACCOUNT_KINDS:
            doubled_s = limits.misconfigured_s * 2.0 ** min(replica.refusals, 16)
            return min(limits.max_refused_s, doubled_s)
        is_busy = kind == "busy"
        longest_s = limits.max_busy_backoff_s if is_busy else limits.max_backoff_s
        longest_s = min(longest_s, limits.backoff_s * 2.0 ** min(replica.failures, 16))
        backoff_s = self._jitter.uniform(longest_s / 2 if is_busy else 0, longest_s)
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
        if self.ready:
            return None
        limiting = []
        refusing = []
        for replica in self.all:
            kind = replica.error.kind if isinstance(replica.error, ReplicaError) else "broken"
            if kind == "busy":
                limiting.append(replica)
            elif kind in ACCOUNT_KINDS:
                refusing.append(replica)
            else:
                return None
        next_replica = min(limiting or refusing, key=lambda replica: replica.retry_at)
        wait_s = max(0.0, next_replica.retry_at - self._clock())
        if limiting and wait_s <= self.limits.patience_s:
            return None
        assert isinstance(next_replica.error, ReplicaError)
        return Refusal(next_replica.error, wait_s)

    # --------------------------------------------------------------------------------------- health

    async def start(self, wait_s: float) -> None:
        """Check all servers and watch them; wait until one is ready.

        Raises `VllmError` if one is not set up for this bot, and `ReplicaError` if none can be
        reached within `wait_s`.
        """
        await asyncio.gather(*(self.probe(replica) for replica in self.all))
        for replica in self.all:
            error = replica.error
            may_pass = isinstance(error, ReplicaError) and error.kind != "key"
            if isinstance(error, VllmError) and not may_pass:
                raise error
        self._monitors = [
            asyncio.create_task(self._monitor(replica), name=replica.url) for replica in self.all
        ]
        if self.ready or self.refusal():  # without quota, the bot runs, and says so
            return
        log.warning("no server can be reached; waiting %.0f s: %s", wait_s, self.all[0].error)
        deadline = self._clock() + wait_s
        while not (self.ready or self.refusal()):
            if self._clock() > deadline:
                raise self.all[0].error or ReplicaError("No server is ready.")
            await asyncio.sleep(self.limits.health_interval_s)

    async def close(self) -> None:
        await cancel_tasks(self._monitors)

    async def _monitor(self, replica: Replica) -> None:
        while True:
            delay_s = replica.retry_at - self._clock()
            if replica.is_ready:
                delay_s = self.limits.health_interval_s
            replica.wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, delay_s)):
                    await replica.wake.wait()
            if replica.is_ready or self._clock() >= replica.retry_at:
                await self.probe(replica)

    async def probe(self, replica: Replica) -> None:
        """Check a replica's health, and everything else if it was away."""
        try:
            await replica.client.check_health(self.limits.health_timeout_s)
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
            replica.retry_at = self._clock() + self.limits.misconfigured_s

    async def _make_ready(self, replica: Replica) -> None:
        if not replica.is_checked:
            replica.served = await self._check(replica)
            replica.adapters = dict(replica.served.adapters)
            replica.is_checked = True
            log.info(
                "%s serves %s, %d adapters loaded",
                replica.url,
                replica.served.root,
                len(replica.adapters),
            )
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
        silent_since = self._clock() - self.limits.health_timeout_s
        for lease in replica.leases:
            if lease.deadline and not lease.deadline.expired() and lease.heard_at < silent_since:
                lease.deadline.reschedule(0)


def _failure_kind(error: Exception) -> FailureKind:
    return error.kind if isinstance(error, ReplicaError) else "broken"


async def cancel_tasks(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: a timeout that expires at the same moment can swallow a
    cancellation.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_INTERVAL_S)


def rendezvous_score(key: str, url: str) -> int:
    """Return the weight of a replica for a key (highest random weight hashing, Thaler and
    Ravishankar, 1998).
    """
    return int.from_bytes(hashlib.blake2b(f"{key}\0{url}".encode(), digest_size=8).digest(), "big")
