"""Workloads of the simulation: personas of Zipf popularity in a million channels, saturated
servers, a whole day.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from benchmarks.scale.simulated_replica import LoadCounts, ReplicaProfile
from benchmarks.scale.simulation import Ask, Cluster, SimulatedBot, SimulatedSequence

REPLICAS_PER_PROCESS = 8
"""Servers' worth of rows for each bot process: one of 32 rows each for 256 replies at once."""
PROMPT_TOKENS = 200
SHARED_PREFIX = 128
"""Tokens that requests to one persona share, in whole blocks of vLLM's cache."""
MEAN_NEW_TOKENS = 60
NEW_TOKENS_SIGMA = 0.6
MAX_NEW_TOKENS = 256
WAITING_IF_SATURATED = 32
WARM_UP_SHARE = 0.3
PEAK_LOAD = 0.8
"""Highest load of the day, relative to a single replica's capacity."""
PEAK_EXPONENT = 10
"""Exponent of the sine that shapes the day: the peak is 4.06 times the mean."""
BURST_RANK = 10
REPLIES_PER_PROMOTION = 1000
"""20 million replies a day, and a retrain of each of 100,000 personas in five days."""
PERCENTILES = (50, 95, 99)
Figures = dict[str, Any]


@dataclass(frozen=True)
class Population:
    """Personas in channels: the share of the requests of the persona of rank r is proportional to r
    ** -s.
    """

    exponent: float
    personas: int = 100_000
    channels: int = 1_000_000
    guilds: int = 10_000

    @cached_property
    def _cumulative(self) -> Any:
        weights = np.arange(1, self.personas + 1) ** -self.exponent
        return np.cumsum(weights) / weights.sum()

    @cached_property
    def _channel_counts(self) -> Any:
        shares = np.diff(self._cumulative, prepend=0.0)
        return np.maximum(1, np.round(shares * (self.channels - self.personas))).astype(np.int64)

    @cached_property
    def _first_channels(self) -> Any:
        return np.cumsum(self._channel_counts) - self._channel_counts

    def draw(self, rng: Any, count: int) -> tuple[Any, Any]:
        """Return ranks (from 0) and guilds of so many requests."""
        ranks = np.searchsorted(self._cumulative, rng.random(count), side="right")
        channels = self._first_channels[ranks] + (
            rng.random(count) * self._channel_counts[ranks]
        ).astype(np.int64)
        return ranks, channels % self.guilds

    def asks(self, seed: int, chunk: int = 4096) -> Iterator[Ask]:
        """Yield requests without end."""
        rng = np.random.default_rng(seed)
        location = np.log(MEAN_NEW_TOKENS) - NEW_TOKENS_SIGMA**2 / 2
        while True:
            ranks, guilds = self.draw(rng, chunk)
            drawn = rng.lognormal(location, NEW_TOKENS_SIGMA, chunk)
            lengths = np.clip(drawn, 4, MAX_NEW_TOKENS).astype(int)
            rows = zip(ranks.tolist(), guilds.tolist(), lengths.tolist(), strict=True)
            for rank, guild, length in rows:
                yield Ask(
                    guild,
                    rank,
                    adapter_name(rank),
                    prompt_tokens=PROMPT_TOKENS,
                    shared_prefix=SHARED_PREFIX,
                    new_tokens=length,
                )


def adapter_name(rank: int, version: int = 1) -> str:
    return f"persona{rank}-v{version}"


def build_cluster(
    profile: ReplicaProfile,
    replicas: int,
    population: Population,
    seed: int,
    is_patient: bool = True,
) -> Cluster:
    """Build servers and bot processes, with what the servers would hold after long use."""
    urls = [f"http://replica-{number}:8000" for number in range(replicas)]
    cluster = Cluster.build(
        profile, urls, max(1, replicas // REPLICAS_PER_PROCESS), seed=seed, is_patient=is_patient
    )
    held = min(population.personas, 2 * profile.ram * replicas)
    ranks, guilds = population.draw(np.random.default_rng(seed + 1), 4 * held)
    last = dict(zip(reversed(ranks.tolist()), reversed(guilds.tolist()), strict=True))
    for rank, guild in reversed([*last.items()][:held]):  # the latest one last
        cluster.hold(adapter_name(rank), cluster.bot_of(guild))
    stored = frozenset(map(adapter_name, range(population.personas)))
    for server in cluster.servers:
        server.replica.stored = stored
    return cluster


# ---------------------------------------------------------------------------------------- saturated


def saturate(
    profile: ReplicaProfile,
    replicas: int,
    population: Population,
    replies: int,
    seed: int = 0,
    is_patient: bool = True,
) -> Figures:
    """Keep all rows busy and some requests waiting until each replica has made `replies`; returns
    its speed.
    """
    cluster = build_cluster(profile, replicas, population, seed, is_patient=is_patient)
    asks = population.asks(seed)
    target = replies * replicas
    backlog: dict[SimulatedBot, list[Ask]] = {bot: [] for bot in cluster.bots}
    marks = list[tuple[float, int, LoadCounts]]()
    done = tokens = 0

    def submit_next(bot: SimulatedBot) -> None:
        while not backlog[bot]:
            ask = next(asks)
            backlog[cluster.bot_of(ask.guild_id)].append(ask)
        while not bot.submit(backlog[bot].pop(0), on_end):
            submit_next(bot)

    def on_end(seq: SimulatedSequence) -> None:
        nonlocal done, tokens
        done = done + 1
        tokens = tokens + seq.received
        if done in (int(WARM_UP_SHARE * target), target):
            marks.append((cluster.time.now, tokens, cluster.counts()))
        cluster.time.after(0.0, partial(submit_next, cluster.bot_of(seq.guild_id)))

    rows = max(1, profile.rows // len(cluster.bots)) * replicas
    for bot in cluster.bots:
        for _ in range(rows + WAITING_IF_SATURATED):
            submit_next(bot)
    cluster.time.run(is_over=lambda: len(marks) == 2)
    (begun_at, tokens_before, before), (ended_at, tokens_after, after) = marks
    seconds = ended_at - begun_at
    return {
        "tokens_per_s": (tokens_after - tokens_before) / seconds / replicas,
        "replies_per_s": (1 - WARM_UP_SHARE) * target / seconds / replicas,
        "ram_hits": 1 - (after.read - before.read) / (after.sequences - before.sequences),
        "reads_per_s": (after.read - before.read) / seconds,
        "starved": sum(seq.error is not None for seq in cluster.ended),
    }


# -------------------------------------------------------------------------------------------- a day


@dataclass(frozen=True)
class DayPlan:
    """Events of a simulated day, as shares of its length.

    The rate follows a sine to the tenth power. During each burst a guild of its own asks one
    persona, half as often as all others do at the peak. One server is lost, and returns with empty
    memory. During the rollout `promotions` personas, popular ones more often, get a new version.
    """

    peak_rate: float
    seconds: float
    bursts: tuple[float, ...] = (0.35, 0.55)
    burst_share: float = 0.03
    lost_at: float = 0.45
    rollout: tuple[float, float] = (0.5, 0.65)
    promotions: int = 1


@dataclass
class DayRun:
    """A day on a cluster."""

    cluster: Cluster
    population: Population
    plan: DayPlan
    seed: int
    submitted: int = 0
    refused_in_bursts: int = 0
    versions: dict[int, int] = field(default_factory=dict)

    def run(self) -> Figures:
        rng = np.random.default_rng(self.seed + 7)
        self._schedule_arrivals(rng)
        self._schedule_events(rng)
        time = self.cluster.time
        plan = self.plan
        time.run(until=plan.seconds)
        time.run(
            is_over=lambda: all(
                not bot.scheduler.running and not bot.scheduler.queue for bot in self.cluster.bots
            )
        )
        return self._summary()

    def _schedule_arrivals(self, rng: Any) -> None:
        """Schedule a Poisson process by thinning one of the peak's rate."""
        plan = self.plan
        count = rng.poisson(plan.peak_rate * plan.seconds)
        times = np.sort(rng.random(count)) * plan.seconds
        kept = times[rng.random(count) < np.sin(np.pi * times / plan.seconds) ** PEAK_EXPONENT]
        self._arrive_at(iter(kept.tolist()), self.population.asks(self.seed))

    def _arrive_at(self, times: Iterator[float], asks: Iterator[Ask]) -> None:
        """Schedule the next arrival, which schedules the one after it."""
        at = next(times, None)
        if at is not None:

            def arrive() -> None:
                self._submit(next(asks))
                self._arrive_at(times, asks)

            self.cluster.time.after(at - self.cluster.time.now, arrive)

    def _submit(self, ask: Ask) -> None:
        if version := self.versions.get(ask.rank):
            ask = replace(ask, adapter=adapter_name(ask.rank, version))
        self.submitted += 1
        is_taken = self.cluster.bot_of(ask.guild_id).submit(ask)
        self.refused_in_bursts += not is_taken and ask.guild_id >= self.population.guilds

    def _schedule_events(self, rng: Any) -> None:
        plan = self.plan
        time = self.cluster.time
        burst_s = plan.burst_share * plan.seconds
        for number, start in enumerate(plan.bursts, start=BURST_RANK):
            guild = self.population.guilds + number
            ask = Ask(
                guild,
                number,
                adapter_name(number),
                prompt_tokens=PROMPT_TOKENS,
                shared_prefix=SHARED_PREFIX,
                new_tokens=MEAN_NEW_TOKENS,
            )
            for at in rng.random(rng.poisson(plan.peak_rate / 2 * burst_s)) * burst_s:
                time.after(start * plan.seconds + at, partial(self._submit, ask))
        if len(self.cluster.servers) > 1:
            down_s = min(self.cluster.profile.start_s, plan.seconds / 10)
            time.after(
                plan.lost_at * plan.seconds,
                partial(self.cluster.kill, self.cluster.servers[0], down_s),
            )
        ranks, _ = self.population.draw(rng, plan.promotions)
        begin, end = plan.rollout
        for at, rank in zip(rng.uniform(begin, end, plan.promotions), ranks.tolist(), strict=True):
            time.after(at * plan.seconds, partial(self._promote, rank))

    def _promote(self, rank: int) -> None:
        version = self.versions.get(rank, 1) + 1
        self.cluster.bots[0].promote(adapter_name(rank, version))
        self.versions[rank] = version

    def _summary(self) -> Figures:
        counts = self.cluster.counts()
        ended = self.cluster.ended
        refused = sum(bot.refused for bot in self.cluster.bots)
        answered = [seq for seq in ended if seq.error is None and seq.first_at is not None]
        waits = np.array([(seq.first_at or 0.0) - seq.submitted_at for seq in answered])
        deciles = np.array([10 * seq.ask.rank // self.population.personas for seq in answered])
        is_burst = np.array([seq.guild_id >= self.population.guilds for seq in answered])
        replica_s = self.plan.seconds * len(self.cluster.servers)
        return {
            "submitted": self.submitted,
            "answered": len(answered),
            "refused": refused,
            "refused_of_others": refused - self.refused_in_bursts,
            "starved": sum(seq.error is not None for seq in ended),
            "lost": self.submitted - refused - len(ended),
            "first_token_s": percentiles(waits[~is_burst]),
            "first_token_in_bursts_s": percentiles(waits[is_burst]),
            "deciles": [
                percentiles(waits[~is_burst & (deciles == decile)]) for decile in range(10)
            ],
            "ram_hits": 1 - counts.read / max(1, counts.sequences),
            "reads_per_s": counts.read / self.plan.seconds,
            "activations_per_s": counts.activated / self.plan.seconds,
            "replies_per_replica_h": 3600 * len(answered) / replica_s,
        }


def run_day(
    profile: ReplicaProfile,
    replicas: int,
    population: Population,
    capacity: float,
    replies: int,
    seed: int = 0,
) -> Figures:
    """Simulate a day in which each replica makes about `replies`; `capacity` is a replica's in
    replies per second.
    """
    rate = PEAK_LOAD * capacity
    seconds = replies / (rate * 0.246)  # the mean of the sine to the tenth power
    cluster = build_cluster(profile, replicas, population, seed)
    plan = DayPlan(
        rate * replicas, seconds, promotions=max(1, replies * replicas // REPLIES_PER_PROMOTION)
    )
    return DayRun(cluster, population, plan, seed).run()


def percentiles(values: Any) -> dict[str, float | int]:
    """Return the percentiles and the count of values."""
    found = (
        np.percentile(values, PERCENTILES).tolist()
        if len(values)
        else [float("nan")] * len(PERCENTILES)
    )
    return {
        **{f"p{share}": value for share, value in zip(PERCENTILES, found, strict=True)},
        "count": len(values),
    }


# --------------------------------------------------------------------------------------- prediction


@dataclass(frozen=True)
class WorkloadResult:
    """A closed loop of chats, measured or predicted.

    Hit rates are shares of the sequences whose adapter was in memory, or in a slot. `cached_tokens`
    are those of a prompt that the prefix cache had.
    """

    hit_rate: float
    slot_hit_rate: float
    tokens_per_s: float
    cached_tokens: float
    first_token: dict[str, float | int]


def predict_workload(
    profile: ReplicaProfile,
    urls: Sequence[str],
    asks: Sequence[Ask],
    chats: int,
    known: Sequence[str],
) -> WorkloadResult:
    """Simulate chats that each send the next request once they are answered.

    Each server has used all `known` adapters in this order before.
    """
    cluster = Cluster.build(profile, urls)
    bot = cluster.bots[0]
    for server, replica in zip(cluster.servers, bot.replicas.all, strict=True):
        for adapter in known:
            server.replica.registered.add(adapter)
            server.replica.disk.add(adapter)
            server.replica.ram.use(adapter)
            server.replica.slots.use(adapter)
            replica.adapters[adapter] = ""
    left = iter(asks)

    def submit_next() -> None:
        if (ask := next(left, None)) is not None:
            bot.submit(ask, lambda seq: cluster.time.after(0.0, submit_next))

    for _ in range(chats):
        submit_next()
    cluster.time.run(is_over=lambda: len(bot.ended) == len(asks))
    counts = cluster.counts()
    shared = sum(ask.shared_prefix for ask in asks) / len(asks)
    return WorkloadResult(
        hit_rate=1 - counts.read / len(asks),
        slot_hit_rate=1 - counts.activated / len(asks),
        tokens_per_s=sum(seq.received for seq in bot.ended) / cluster.time.now,
        cached_tokens=shared * counts.prefix_hits / counts.sequences,
        first_token=percentiles([(seq.first_at or 0.0) - seq.submitted_at for seq in bot.ended]),
    )


def compare_results(predicted: WorkloadResult, measured: WorkloadResult) -> Figures:
    """Return the errors: differences of the hit rates, and relative errors of throughput and first
    token.
    """
    return {
        "hit_rate_error": predicted.hit_rate - measured.hit_rate,
        "slot_hit_rate_error": predicted.slot_hit_rate - measured.slot_hit_rate,
        "throughput_error": predicted.tokens_per_s / measured.tokens_per_s - 1,
        "ttft_p95_error": predicted.first_token["p95"] / measured.first_token["p95"] - 1,
    }
