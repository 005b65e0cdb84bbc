"""Replicas of a served model: health, circuit breaker with backoff, choice of one for a reply, and
their adapters.
"""

import asyncio
import hashlib
import json
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from personas.engine.remote.vllm_client import (
    ACCOUNT_KINDS,
    AdapterNotServedError,
    FailureKind,
    ReplicaError,
    ServedModels,
    VllmClient,
    VllmError,
)
from personas.home.atomic_files import write_private_file
from personas.schemas.chat import AdapterRef

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
    until the server was away, because another one may have taken its place; `served` is what the
    check found. `error` says why it gets no replies. `told` is what the operator has been told and
    has not passed since: it is logged once. `refusals` are the failures at which it refused the
    account, and `failures` all others, since it finished a reply.
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
        self._orders: dict[str, list[Replica]] = {}

    @property
    def ready(self) -> list[Replica]:
        return [replica for replica in self.all if replica.is_ready]

    # ------------------------------------------------------------------------------------------
    # choice

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
        bound = math.ceil(
            LOAD_FACTOR * (sum([len(replica.leases) for replica in ready]) + 1) / len(ready)
        )
        below = [replica for replica in ready if len(replica.leases) < bound]
        if not anywhere:
            del below[1 + sum([adapter in replica.active for replica in below]) :]
        found = next((replica for replica in below if self._has_room(replica, adapter)), None)
        if found or not anywhere:
            return found
        return next((replica for replica in ready if self._has_room(replica, adapter)), None)

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
                self.all, key=lambda it: rendezvous_score(key, it.url), reverse=True
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

    # ------------------------------------------------------------------------------------------
    # circuit breaker

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
            return min(
                limits.max_refused_s, limits.misconfigured_s * 2.0 ** min(replica.refusals, 16)
            )
        longest_s = limits.max_busy_backoff_s if kind == "busy" else limits.max_backoff_s
        longest_s = min(longest_s, limits.backoff_s * 2.0 ** min(replica.failures, 16))
        backoff_s = self._jitter.uniform(longest_s / 2 if kind == "busy" else 0, longest_s)
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
            log.log(logging.WARNING if is_passing else logging.ERROR, "%s gets no replies for now: %s",
                    replica.url, error)  # fmt: skip

    def succeed(self, replica: Replica) -> None:
        """Reset the backoff of a replica that finished a reply."""
        replica.failures = replica.refusals = 0
        if replica.told:
            log.warning("%s replies again", replica.url)
            replica.told = ""

    def refusal(self) -> tuple[ReplicaError, float] | None:
        """Return why all servers refuse or limit requests for now, and the seconds until one is
        asked again.

        None while one takes them, will within `patience_s`, or is away for another reason.
        """
        refused = [(it.retry_at, it.error) for it in self.all if isinstance(it.error, ReplicaError)]
        limited = [it for it in refused if it[1].kind in ("busy", *ACCOUNT_KINDS)]
        if self.ready or not limited or len(limited) < len(self.all):
            return None
        busy = [it for it in limited if it[1].kind == "busy"]
        retry_at, error = min(busy or limited, key=lambda it: it[0])
        wait_s = max(0.0, retry_at - self._clock())
        return None if busy and wait_s <= self.limits.patience_s else (error, wait_s)

    # ------------------------------------------------------------------------------------------
    # health

    async def start(self, wait_s: float) -> None:
        """Check all servers and watch them; wait until one is ready.

        Raises `VllmError` if one is not set up for this bot, and `ReplicaError` if none can be
        reached within `wait_s`.
        """
        await asyncio.gather(*(self.probe(replica) for replica in self.all))
        for replica in self.all:
            error = replica.error
            if isinstance(error, VllmError) and not (
                isinstance(error, ReplicaError) and error.kind != "key"
            ):
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
            delay_s = (
                self.limits.health_interval_s
                if replica.is_ready
                else replica.retry_at - self._clock()
            )
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
            if (
                error.kind in ("gone", *ACCOUNT_KINDS)
                or not replica.is_ready
                or replica.missed >= MAX_MISSED_HEALTH_CHECKS
            ):
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
        if isinstance(replica.error, ReplicaError) and replica.error.kind not in (
            "busy",
            *ACCOUNT_KINDS,
        ):
            replica.told = ""  # whether one accepts requests again, the next reply shows
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


class ReplicaAdapters:
    """Loads adapters on replicas and unloads them, and brings those up to date that were away. Used
    on the event loop.

    The servers read adapters from `home`, which they see under `server_home` if that is not empty.
    """

    def __init__(self, verify: Callable[[AdapterRef], None], home: Path, server_home: str) -> None:
        """`verify` checks an adapter's files before a server loads them. Raises `AdapterError`."""
        self._verify = verify
        self._home = home
        self._server_home = server_home
        self._wanted: dict[str, AdapterRef] = {}
        self._dropped: set[str] = set()
        self._loads: dict[tuple[str, str], asyncio.Task[None]] = {}

    def path(self, folder: Path) -> str:
        """Return a folder's path on the servers. Raises `AdapterNotServedError` if they do not see
        it.
        """
        if not self._server_home:
            return str(folder.absolute())
        try:
            return str(PurePosixPath(self._server_home) / folder.relative_to(self._home).as_posix())
        except ValueError:
            why = (
                f"The adapter in {folder} is outside UNDERSTUDY_HOME, so the vLLM servers do not "
                "see it."
            )
            raise AdapterNotServedError(why, "Install it in the home.") from None

    async def load(self, replicas: Sequence[Replica], adapter: AdapterRef) -> None:
        """Load an adapter on replicas, and from now on also on those that return. Raises
        `AdapterError`.
        """
        if not replicas:
            raise ReplicaError("No vLLM server can be reached now.", "Try again once one is back.")
        loads = (self.ensure(replica, adapter) for replica in replicas)
        errors = [error for error in await asyncio.gather(*loads, return_exceptions=True) if error]
        refused = [error for error in errors if not isinstance(error, ReplicaError)]
        if refused or len(errors) == len(replicas):
            raise (refused or errors)[0]
        self._wanted[adapter.name] = adapter

    async def ensure(self, replica: Replica, adapter: AdapterRef) -> None:
        """Load an adapter unless the replica has it. Raises `AdapterError`."""
        path = self.path(adapter.folder)
        key = (replica.url, adapter.name)
        if replica.adapters.get(adapter.name) == path:
            return
        if key not in self._loads:
            task = self._loads[key] = asyncio.create_task(self._load(replica, adapter, path))
            task.add_done_callback(partial(self._end_load, key))
        await asyncio.shield(self._loads[key])  # others wait for it, too

    async def _load(self, replica: Replica, adapter: AdapterRef, path: str) -> None:
        await asyncio.to_thread(self._verify, adapter)
        self._dropped.discard(adapter.name)
        await replica.client.load_adapter(adapter.name, path)
        replica.adapters[adapter.name] = path

    def _end_load(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        del self._loads[key]
        if not task.cancelled() and (error := task.exception()):
            log.info("an adapter was not loaded: %s", error)  # raised where it is needed

    def forget(self, adapter: AdapterRef) -> None:
        """Have replicas that return not load an adapter, and unload it if they have it."""
        self._wanted.pop(adapter.name, None)
        self._dropped.add(adapter.name)

    async def unload(self, replica: Replica, name: str) -> None:
        replica.adapters.pop(name, None)
        await replica.client.unload_adapter(name)

    async def update(
        self, client: VllmClient, found: Mapping[str, str], prefers: Callable[[str, str], bool]
    ) -> dict[str, str]:
        """Unload what was dropped while a server was away, and load what was loaded elsewhere;
        returns its adapters.

        `prefers` says whether an adapter, by name, is to be loaded on a server, by address, before
        it is used.
        """
        adapters = dict(found)
        for name in self._dropped & adapters.keys():
            await client.unload_adapter(name)
            del adapters[name]
        for name, adapter in list(self._wanted.items()):
            if not prefers(name, client.url):
                continue
            try:
                await client.load_adapter(name, self.path(adapter.folder))
                adapters[name] = self.path(adapter.folder)
            except AdapterNotServedError as error:
                log.error("%s", error)
        return adapters


class RestartNotices:
    """Servers to restart: vLLM keeps the weights of unloaded adapters in memory (vllm-project/vllm
    issue 54839).

    The file outlives the bot; a notice is removed once the server has been started again.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> dict[str, dict[str, float]]:
        """Return, by address, the names of the dropped adapters, and when they were dropped
        (seconds since 1970).
        """
        try:
            found = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def add(self, url: str, name: str) -> None:
        log.warning("%s keeps the weights of %s in memory until it is restarted", url, name)
        found = self.read()
        found.setdefault(url, {})[name] = time.time()
        write_private_file(self._file, json.dumps(found).encode())

    def clear(self, url: str, started_at: float) -> None:
        """Remove a server's notices of what was dropped before it started."""
        found = self.read()
        if url in found:
            kept = {name: at for name, at in found.pop(url).items() if at > started_at}
            write_private_file(
                self._file, json.dumps(found | ({url: kept} if kept else {})).encode()
            )


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
