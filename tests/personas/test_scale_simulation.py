"""The simulation of many servers: nobody starves, affinity fills caches, and no real time leaks
into it.
"""

import itertools
from dataclasses import replace

import pytest

from benchmarks.scale.__main__ import largest_errors, missed_bars
from benchmarks.scale.experiments import (
    DayPlan,
    DayRun,
    Population,
    WorkloadResult,
    build_cluster,
    compare_results,
    saturate,
)
from benchmarks.scale.simulated_replica import (
    ReplicaProfile,
    ServedSequence,
    SimulatedReplica,
    fit_steps,
)
from benchmarks.scale.simulation import Ask, Cluster
from personas.engine.remote import replicas

PROFILE = ReplicaProfile(
    "test", step_s=0.02, row_s=0.001, adapter_s=0.001, prompt_token_s=0.0001, activate_s=0.002, read_s=0.05,
    fetch_s=0.1, verify_s=0.01, request_s=0.01, rows=8, slots=4, ram=60, prefixes=50, start_s=3.0,
)  # fmt: skip
POPULATION = Population(1.0, personas=400, channels=2000, guilds=50)


def step(replica: SimulatedReplica) -> float:
    seconds = replica.start_step()
    assert seconds is not None
    replica.end_step()
    return seconds


class TestReplica:
    """A server computes, skips and loads as vLLM does."""

    def served(self, adapter: str, tokens: int = 2) -> ServedSequence:
        return ServedSequence(adapter, 10, 0, tokens, lambda: None)

    def test_a_sequence_whose_adapter_exceeds_the_slots_is_skipped_and_others_are_not(self):
        replica = SimulatedReplica("http://a", PROFILE)
        for adapter in ("a", "b", "c", "d", "e", "a"):
            replica.add(self.served(adapter, tokens=1 if adapter == "b" else 3))
        step(replica)
        assert [seq.adapter for seq in replica.running] == ["a", "c", "d", "a"]
        assert [seq.adapter for seq in replica.waiting] == ["e"]
        step(replica)
        assert [seq.adapter for seq in replica.running] == ["a", "c", "d", "a", "e"]

    def test_a_step_takes_the_time_of_its_loads_rows_adapters_and_prompts(self):
        replica = SimulatedReplica("http://a", PROFILE, stored=frozenset("a"))
        replica.add(self.served("a"))
        assert step(replica) == pytest.approx(0.05 + 0.002 + 0.02 + 0.001 + 0.001 + 10 * 0.0001)
        assert step(replica) == pytest.approx(0.022)
        replica.add(self.served("b"))
        assert step(replica) == pytest.approx(0.05 + 0.1 + 0.002 + 0.022 + 10 * 0.0001)
        assert (replica.counts.read, replica.counts.activated, replica.counts.fetched) == (2, 2, 1)

    def test_the_least_recently_used_adapter_leaves_memory_and_its_slot(self):
        replica = SimulatedReplica("http://a", PROFILE)
        for number in (*range(PROFILE.ram), 0, PROFILE.ram):
            replica.add(self.served(f"a{number}", tokens=1))
            step(replica)
        assert "a0" in replica.ram and "a1" not in replica.ram and len(replica.ram) == PROFILE.ram
        assert set(replica.slots) <= set(replica.ram)


class TestCluster:
    """The bot's own scheduler and choice of a replica, over simulated servers."""

    def test_affinity_fills_the_caches_and_nobody_starves(self, monkeypatch):
        kept = saturate(PROFILE, 4, POPULATION, 60)
        assert kept == saturate(
            PROFILE, 4, POPULATION, 60
        )  # nothing depends on real time or chance
        assert (
            kept["ram_hits"]
            > saturate(PROFILE, 4, POPULATION, 60, is_patient=False)["ram_hits"] + 0.1
        )
        monkeypatch.setattr(replicas, "rendezvous_score", lambda key, url: 0)
        lost = saturate(PROFILE, 4, POPULATION, 60)
        assert kept["starved"] == lost["starved"] == 0
        assert kept["ram_hits"] > lost["ram_hits"] + 0.1
        assert kept["tokens_per_s"] > 1.05 * lost["tokens_per_s"]

    def test_a_day_with_bursts_a_lost_server_and_promotions_loses_no_reply(self):
        cluster = build_cluster(PROFILE, 3, POPULATION, seed=0)
        run = DayRun(
            cluster, POPULATION, DayPlan(peak_rate=6.0, seconds=120.0, promotions=3), seed=0
        )
        day = run.run()
        assert day["answered"] > 150
        assert day["starved"] == day["lost"] == day["refused_of_others"] == 0
        assert len(run.versions) == 3 and cluster.counts().fetched >= 3
        assert all(replica.is_ready for replica in cluster.bots[0].replicas.all)
        for seq in cluster.ended:
            assert 0 <= seq.submitted_at <= seq.first_at <= seq.ended_at <= cluster.time.now
            assert 0 <= seq.queued_at <= seq.started_at == seq.lease.heard_at <= seq.ended_at

    def test_a_reply_goes_on_elsewhere_when_its_server_dies(self):
        cluster = Cluster.build(PROFILE, ["http://a", "http://b"])
        cluster.bots[0].submit(Ask(1, 0, "ada-v1", 50, 0, 100))
        cluster.time.run(until=1.0)
        (seq,) = cluster.bots[0].scheduler.running
        first = seq.lease.replica
        received = seq.received
        assert 0 < received < 100
        cluster.kill(
            next(each for each in cluster.servers if each.replica.url == first.url), down_s=2.0
        )
        cluster.time.run(until=10.0)
        assert seq.received == 100 and seq.error is None and seq.lease.replica is not first
        assert first.is_ready and first.adapters == {}

    def test_newcomers_do_not_keep_a_guild_waiting_that_was_served_before(self):
        cluster = Cluster.build(replace(PROFILE, rows=1), ["http://a"])
        bot = cluster.bots[0]
        time = cluster.time
        newcomers = itertools.count(100)

        def arrive() -> None:
            bot.submit(Ask(next(newcomers), 0, "ada-v1", 50, 0, 100))
            time.after(2.0, arrive)  # sooner than one is answered

        bot.submit(Ask(1, 0, "ada-v1", 50, 0, 100))
        time.run(until=1.0)
        arrive()
        arrive()
        bot.submit(Ask(1, 0, "ada-v1", 50, 0, 100))
        time.run(until=119.0)
        second = [seq for seq in bot.ended if seq.guild_id == 1][-1]
        assert 30 < second.started_at < 65 and second.error is None and second.submitted_at == 1.0


class TestValidation:
    """Errors are differences of rates in points, and relative to what was measured."""

    def test_errors_of_a_prediction(self):
        predicted = WorkloadResult(0.70, 0.5, 110.0, 90.0, {"p95": 3.0, "count": 9})
        measured = WorkloadResult(0.75, 0.6, 100.0, 90.0, {"p95": 4.0, "count": 9})
        found = compare_results(predicted, measured)
        assert found["hit_rate_error"] == pytest.approx(-0.05)
        assert found["throughput_error"] == pytest.approx(0.1)
        assert found["ttft_p95_error"] == pytest.approx(-0.25)
        better = {**found, "hit_rate_error": 0.01, "throughput_error": 0.04, "ttft_p95_error": 0.14}
        errors = largest_errors({"0.8": better, "1": found})
        assert errors == {name: found[name] for name in errors}
        assert missed_bars(errors) == [
            "hit_rate_error",
            "throughput_error",
            "ttft_p95_error",
        ] and not missed_bars(better)

    def test_step_times_are_fitted_and_never_negative(self):
        grid = ((1, 1), (2, 1), (4, 4), (8, 1), (16, 4))
        assert fit_steps([(r, a, 0.04 + 0.003 * r + 0.002 * a) for r, a in grid]) == pytest.approx(
            (0.04, 0.003, 0.002)
        )
        step_s, row_s, adapter_s = fit_steps(
            [(r, a, 0.04 + 0.003 * r - 0.002 * a) for r, a in grid]
        )
        assert adapter_s == 0 and step_s > 0 and row_s > 0
