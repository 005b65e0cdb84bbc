"""Simulation of bot processes over vLLM servers: admission, fair queue and choice of a replica are
the bot's own.

All of them take their time from `SimulatedTime`, so hours pass in seconds. What `VllmEngine` does
with tasks and HTTP is done with events here: loading an adapter that a replica lacks, starting an
attempt, resuming it elsewhere.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from benchmarks.scale.simulated_replica import (
    LoadCounts,
    ReplicaProfile,
    ServedSequence,
    SimulatedReplica,
)
from personas.engine.admission import AdmissionControl
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.remote.replica import Lease, Replica, ReplicaLimits
from personas.engine.remote.replica_health import ReplicaHealth
from personas.engine.remote.replica_scheduler import ReplicaScheduler, scheduler_limits
from personas.engine.remote.replicas import Replicas
from personas.engine.remote.server_errors import ReplicaError
from personas.engine.remote.vllm_client import ServedModels, VllmClient
from personas.engine.remote.vllm_engine import SWEEP_INTERVAL_S
from personas.errors import EngineBusyError

WAIT_S = 120.0
REPLY_S = 300.0


class SimulatedTime:
    """A clock, and the events to come. Calling it returns the time in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float, run: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), run))

    def run(self, until: float = float("inf"), is_over: Callable[[], bool] = lambda: False) -> None:
        """Run the events in order until that time, or until there are none or `is_over`."""
        while self._events and self._events[0][0] <= until and not is_over():
            self.now, _, run = heapq.heappop(self._events)
            run()
        if until < float("inf"):
            self.now = max(self.now, until)


@dataclass(frozen=True)
class Ask:
    """A request of a guild to a persona (its popularity's rank), with the name of its adapter's
    version.
    """

    guild_id: int
    rank: int
    adapter: str
    prompt_tokens: int
    shared_prefix: int
    new_tokens: int
    member_id: int = 0


@dataclass(eq=False)
class SimulatedSequence:
    """A request in the bot's queue and on its replica (`RoutedSequence`)."""

    ask: Ask
    on_end: Callable[["SimulatedSequence"], None]
    prompt: tuple[int, ...] = ()
    submitted_at: float = 0.0
    queued_at: float = 0.0
    started_at: float = 0.0
    first_at: float | None = None
    ended_at: float | None = None
    overtaken: int = 0
    received: int = 0
    error: Exception | None = None
    avoided: frozenset[str] = frozenset()
    is_cancelled: bool = False
    attempt: ServedSequence | None = None
    lease: Lease = field(init=False)
    wants_sight: ClassVar[bool] = False

    @property
    def guild_id(self) -> int:
        return self.ask.guild_id

    @property
    def member_id(self) -> int:
        return self.ask.member_id

    @property
    def adapter_name(self) -> str:
        return self.ask.adapter

    @property
    def routing_key(self) -> str:
        return self.ask.adapter

    @property
    def is_finished(self) -> bool:
        return self.received >= self.ask.new_tokens

    def begin(self) -> bool:
        return True

    def finish(self) -> None:
        self.on_end(self)

    def fail(self, error: Exception) -> None:
        self.error = error
        self.on_end(self)

    def discard(self) -> None:
        self.on_end(self)


@dataclass(eq=False)
class Server:
    """A simulated server that steps as long as it has work."""

    time: SimulatedTime
    replica: SimulatedReplica
    owners: dict[ServedSequence, Callable[[], None]] = field(default_factory=dict)
    _is_stepping: bool = False
    _life: int = 0

    def add(self, seq: ServedSequence, on_lost: Callable[[], None]) -> None:
        """Compute a sequence; `on_lost` is called if the server dies before it ends."""
        if not self.replica.is_alive:
            on_lost()
            return
        self.owners[seq] = on_lost
        self.replica.add(seq)
        self.wake()

    def post_load(self, adapter: str, on_loaded: Callable[[], None]) -> None:
        self.replica.post_load(adapter, on_loaded)
        self.wake()

    def wake(self) -> None:
        if (
            not self._is_stepping
            and self.replica.is_alive
            and (seconds := self.replica.start_step()) is not None
        ):
            self._is_stepping = True
            self.time.after(seconds, partial(self._end_step, self._life))

    def _end_step(self, life: int) -> None:
        if life == self._life:
            self._is_stepping = False
            self.replica.end_step()
            self.wake()

    def kill(self) -> None:
        self._life += 1
        self._is_stepping = False
        lost = self.replica.kill()
        owners = self.owners
        self.owners = {}
        for seq in lost:
            if seq in owners:
                owners[seq]()


class SimulatedClient(VllmClient):
    """A client whose server is simulated; only the calls of the health check are answered."""

    def __init__(self, server: Server) -> None:
        self.url = server.replica.url
        self.server = server

    async def check_health(self, timeout_s: float = 0.0) -> None:
        if not self.server.replica.is_alive:
            raise ReplicaError(f"{self.url} cannot be reached.", kind="gone")

    async def models(self) -> ServedModels:
        return ServedModels("base", "base", 2048, dict.fromkeys(self.server.replica.registered, ""))


class ImpatientScheduler(ReplicaScheduler[SimulatedSequence]):
    """For comparison: replies take any replica with room instead of waiting for the one that has
    their adapter.
    """

    def _choose(self, seq: SimulatedSequence) -> Replica | None:
        return self._replicas.choose(seq.routing_key, seq.adapter_name, seq.avoided)


class SimulatedBot:
    """One bot process: the part of `VllmEngine` between a request and its replica, over simulated
    servers.
    """

    scheduler: ReplicaScheduler[SimulatedSequence]

    def __init__(
        self,
        time: SimulatedTime,
        servers: Sequence[Server],
        limits: ReplicaLimits,
        max_waiting: int,
        seed: int,
        is_patient: bool = True,
    ) -> None:
        self.time = time
        self.limits = limits
        self.refused = 0
        self.ended: list[SimulatedSequence] = []
        clients = [SimulatedClient(server) for server in servers]
        self.replicas = Replicas(clients, limits, time)
        self.health = ReplicaHealth(
            self.replicas, self._check, self._on_change, clock=time, jitter=random.Random(seed)
        )
        scheduler = ReplicaScheduler[SimulatedSequence] if is_patient else ImpatientScheduler
        self.scheduler = scheduler(self._limits(), self.replicas, self._start, time)
        rows = limits.rows * len(servers)
        self.admission = AdmissionControl.of_engine(rows, max_waiting, WAIT_S, time)
        self._servers = {server.replica.url: server for server in servers}
        self._loads: dict[tuple[str, str], list[Callable[[], None]]] = {}
        for replica in self.replicas.all:
            _run_coroutine(self.health.probe(replica))
        self.time.after(SWEEP_INTERVAL_S, self._sweep_forever)

    def submit(
        self, ask: Ask, on_end: Callable[[SimulatedSequence], None] = lambda seq: None
    ) -> bool:
        """Take a request; returns False if the guild has too many."""
        try:
            self.admission.acquire(ask.guild_id, ask.member_id)
        except EngineBusyError:
            self.refused += 1
            return False

        def end(seq: SimulatedSequence) -> None:
            seq.ended_at = self.time.now
            if seq.attempt:
                seq.attempt.is_cancelled = True
            self.admission.release(ask.guild_id, ask.member_id)
            self.ended.append(seq)
            on_end(seq)

        seq = SimulatedSequence(ask, end, (0,) * ask.prompt_tokens, self.time.now)
        self.scheduler.add(seq)
        self._sweep()
        return True

    def promote(self, adapter: str) -> None:
        """Load a version as a promotion does."""
        for replica in self.replicas.preferred(adapter):
            self._ensure(replica, adapter, lambda: None)

    # ------------------------------------------------------------------------------------ one reply

    def _start(self, seq: SimulatedSequence) -> None:
        replica = seq.lease.replica
        if seq.adapter_name and seq.adapter_name not in replica.adapters:
            self._ensure(replica, seq.adapter_name, partial(self._send, seq, seq.lease))
        else:
            self._send(seq, seq.lease)

    def _ensure(self, replica: Replica, adapter: str, on_loaded: Callable[[], None]) -> None:
        """Have a replica load an adapter; others that need it wait for the same load."""
        key = (replica.url, adapter)
        if key in self._loads:
            self._loads[key].append(on_loaded)
            return
        self._loads[key] = [on_loaded]
        server = self._servers[replica.url]

        def post() -> None:
            if server.replica.is_alive:
                server.post_load(adapter, loaded)
            else:
                loaded()  # what waits for it finds out by itself

        def loaded() -> None:
            if server.replica.is_alive:
                replica.adapters[adapter] = ""
            for callback in self._loads.pop(key, ()):
                callback()

        self.time.after(server.replica.profile.verify_s, post)

    def _send(self, seq: SimulatedSequence, lease: Lease) -> None:
        """Send a request to the lease's replica, unless it has ended meanwhile."""
        server = self._servers[lease.replica.url]

        def arrive() -> None:
            if seq.ended_at is not None:
                return
            prompt = seq.ask.prompt_tokens + seq.received
            left = seq.ask.new_tokens - seq.received
            seq.attempt = ServedSequence(
                seq.adapter_name,
                prompt_left=prompt,
                shared_prefix=seq.ask.shared_prefix,
                tokens_left=left,
                on_token=receive,
            )
            server.add(seq.attempt, lambda: self._lose(seq))

        def receive() -> None:
            seq.received += 1
            if seq.first_at is None:
                seq.first_at = self.time.now
            self.scheduler.queue.count_token(seq)
            if seq.is_finished:
                assert seq.attempt
                server.owners.pop(seq.attempt, None)
                self.health.succeed(lease.replica)
                self.scheduler.finish(seq)
                self._sweep()

        self.time.after(server.replica.profile.request_s, arrive)

    def _lose(self, seq: SimulatedSequence) -> None:
        """Queue a sequence again whose replica died, with the tokens that it has."""
        replica = seq.lease.replica
        error = ReplicaError(f"{seq.lease.replica.url} broke off a reply.", kind="gone")
        if replica.is_ready:
            self._fail(replica, error)
        self.scheduler.requeue(seq, self.time.now if seq.received else seq.queued_at)
        self._sweep()

    # ------------------------------------------------------------------------------------- replicas

    async def _check(self, replica: Replica) -> ServedModels:
        return await replica.client.models()

    def _fail(self, replica: Replica, error: ReplicaError) -> None:
        self.health.fail(replica, error)
        self._probe_later(replica)

    def check_health(self, replica: Replica) -> None:
        """Notice a server that died while no reply ran on it."""
        if replica.is_ready:
            self._probe(replica)

    def _probe_later(self, replica: Replica) -> None:
        self.time.after(max(0.0, replica.retry_at - self.time.now), partial(self._probe, replica))

    def _probe(self, replica: Replica) -> None:
        _run_coroutine(self.health.probe(replica))
        if not replica.is_ready:
            self._probe_later(replica)

    def _on_change(self) -> None:
        self.scheduler.limits = self._limits()
        self._sweep()

    def _limits(self) -> SchedulerLimits:
        return scheduler_limits(len(self.replicas.ready), self.limits, WAIT_S, REPLY_S)

    def _sweep(self) -> None:
        self.scheduler.expire()
        self.scheduler.admit()

    def _sweep_forever(self) -> None:
        self._sweep()
        self.time.after(SWEEP_INTERVAL_S, self._sweep_forever)


@dataclass
class Cluster:
    """Servers and the bot processes that share them; each process has its share of every server's
    rows.
    """

    profile: ReplicaProfile
    servers: list[Server]
    bots: list[SimulatedBot]
    time: SimulatedTime

    @classmethod
    def build(
        cls,
        profile: ReplicaProfile,
        urls: Sequence[str],
        processes: int = 1,
        max_waiting: int = 64,
        seed: int = 0,
        is_patient: bool = True,
    ) -> "Cluster":
        time = SimulatedTime()
        servers = [Server(time, SimulatedReplica(url, profile)) for url in urls]
        limits = ReplicaLimits(rows=max(1, profile.rows // processes), adapters=profile.slots)
        bots = []
        for number in range(processes):
            bot = SimulatedBot(
                time, servers, limits, max_waiting, seed=seed + number, is_patient=is_patient
            )
            bots.append(bot)
        return cls(profile, servers, bots, time)

    def bot_of(self, guild_id: int) -> SimulatedBot:
        return self.bots[guild_id % len(self.bots)]

    @property
    def ended(self) -> list[SimulatedSequence]:
        return [seq for bot in self.bots for seq in bot.ended]

    def kill(self, server: Server, down_s: float) -> None:
        """End a server, and start it again after `down_s`; each process notices within its health
        interval.
        """
        server.kill()
        self.time.after(down_s, server.replica.restart)
        for bot in self.bots:
            replica = bot.replicas.all[self.servers.index(server)]
            self.time.after(bot.limits.health_interval_s, partial(bot.check_health, replica))

    def counts(self) -> LoadCounts:
        """Return the counts of all servers."""
        total = LoadCounts()
        for server in self.servers:
            for name, value in vars(server.replica.counts).items():
                setattr(total, name, getattr(total, name) + value)
        return total

    def hold(self, adapter: str, bot: SimulatedBot) -> None:
        """Put an adapter where an idle cluster serves it, as if it had been used before."""
        replica = bot.replicas.choose(adapter, adapter)
        if replica is None:
            return
        server = next(server for server in self.servers if server.replica.url == replica.url)
        server.replica.registered.add(adapter)
        server.replica.ram.use(adapter)
        for each in self.bots:
            each.replicas.all[self.servers.index(server)].adapters[adapter] = ""


def _run_coroutine(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("the coroutine waits for real time")
