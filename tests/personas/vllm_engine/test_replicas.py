"""Checks of servers at the start and after a restart, and the choice of a replica."""

import asyncio
import json
from collections import Counter

import pytest

from personas.engine.remote import server_checks
from personas.engine.remote.replica import Replica, ReplicaLimits
from personas.engine.remote.replica_health import ReplicaHealth
from personas.engine.remote.replicas import LOAD_FACTOR, PRELOADED_REPLICAS, Replicas
from personas.engine.remote.server_checks import check_cancel
from personas.engine.remote.server_errors import ReplicaError, VllmError
from personas.engine.remote.vllm_client import VllmClient, open_session
from tests.personas.vllm_engine.conftest import answer, ask
from tests.personas.vllm_engine.server import VllmServer
from tests.personas.vllm_engine.test_vllm_engine import until


class TestStart:
    """A server that cannot serve this bot stops the start with the reason and the remedy."""

    @pytest.mark.parametrize(
        ("change", "found", "advice"),
        [
            (
                {"max_model_len": 1024},
                "takes 1024 tokens; a prompt and its reply have 2048",
                "--max-model-len 2048",
            ),
            ({"vocabulary": 40000}, "has another vocabulary", "BASE_MODEL"),
            ({"vocabulary": 60000}, "has another vocabulary", "BASE_MODEL"),
            ({"key": "secret"}, "does not accept ENGINE_KEY", "--api-key"),
            (
                {"allows_updates": False},
                "cannot serve adapters",
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
            ),
            ({"has_lora": False}, "LoRA is not enabled", "--enable-lora"),
            (
                {"max_lora_rank": 8},
                "LoRA rank 16 is greater than max_lora_rank 8",
                "--max-lora-rank",
            ),
        ],
    )
    async def test_a_server_with_other_options_is_refused(
        self, open_engine, tiny_base, renderer, change, found, advice
    ):
        server = VllmServer(tiny_base.source, renderer.tokenizer, **change)
        await server.start()
        with pytest.raises(VllmError, match=found) as raised:
            await open_engine(server.url)
        await server.stop()
        assert server.url in raised.value.message and advice in raised.value.advice
        assert server.key not in str(raised.value) or not server.key

    async def test_a_folder_with_other_files_is_another_model(
        self, open_engine, tiny_base, renderer, tmp_path, servers
    ):
        other = tmp_path / "other"
        other.mkdir()
        config = json.loads((tiny_base.folder / "config.json").read_text())
        (other / "config.json").write_text(json.dumps({**config, "rope_theta": 1.0}))
        servers[0].root = str(other)
        with pytest.raises(VllmError, match="whose files differ"):
            await open_engine()

    async def test_the_same_files_elsewhere_are_our_model(
        self, open_engine, tiny_base, servers, tmp_path
    ):
        linked = tmp_path / "linked"
        linked.symlink_to(tiny_base.folder)
        servers[0].root = str(linked)
        servers[1].root = "/a/path/that/only/the/server/sees"
        engine = await open_engine()
        assert engine.state().device == "2 of 2 vLLM servers"

    async def test_another_tokenizer_is_another_model(self, open_engine, servers):
        servers[0].tokenize = lambda text: [1, 2, 3]
        with pytest.raises(VllmError, match="has another tokenizer"):
            await open_engine()

    async def test_a_larger_rank_of_an_installed_version_is_asked_for(
        self, open_engine, servers, version
    ):
        version(1, rank=48)
        servers[1].max_lora_rank = 32
        with pytest.raises(VllmError, match="LoRA rank 48 is greater"):
            await open_engine()

    async def test_a_home_that_the_servers_do_not_see(self, open_engine):
        with pytest.raises(VllmError, match="No adapter found") as raised:
            await open_engine(server_home="/not/there")
        assert "ENGINE_HOME" in raised.value.advice

    async def test_no_server_at_all(self, open_engine):
        with pytest.raises(ReplicaError, match=r"http://127.0.0.1:9 cannot be reached"):
            await open_engine("http://127.0.0.1:9")

    async def test_another_program_answers(self, open_engine, servers):
        with pytest.raises(VllmError, match=r"refused a request \(404\)"):
            await open_engine(servers[0].url + "/elsewhere")

    async def test_the_start_waits_for_a_server_that_is_still_loading(self, open_engine, servers):
        for server in servers:
            await server.stop()
        starting = asyncio.create_task(open_engine(start_wait_s=5.0))
        await asyncio.sleep(0.2)
        assert not starting.done()
        await servers[1].start()
        assert await answer(await starting, ask())

    async def test_one_with_another_model_that_comes_later_gets_no_replies(
        self, open_engine, servers
    ):
        await servers[1].stop()
        engine = await open_engine()
        servers[1].max_model_len = 512
        await servers[1].start()
        await until(
            lambda: isinstance(engine._replicas.all[1].error, VllmError) and servers[1].port
        )
        await asyncio.gather(*(answer(engine, ask(str(number))) for number in range(8)))
        assert not [body for body in servers[1].requests if body["max_tokens"] == 20]
        servers[1].max_model_len = 4096
        await until(lambda: engine.state().device == "2 of 2 vLLM servers")

    async def test_a_server_whose_engine_is_dead_gets_no_replies(self, open_engine, servers):
        engine = await open_engine()
        servers[0].faults.health_status = 503
        await until(lambda: engine.state().device == "1 of 2 vLLM servers")
        servers[0].faults.health_status = 200
        await until(lambda: engine.state().device == "2 of 2 vLLM servers")

    async def test_a_server_whose_engine_is_stuck_does_not_stop_the_start(
        self, open_engine, servers, monkeypatch
    ):
        monkeypatch.setattr(server_checks, "CHECK_TIMEOUT_S", 0.2)
        servers[0].faults.hang_completions = True
        engine = await open_engine(stall_s=0.3)
        assert engine.state().device == "1 of 2 vLLM servers" and await answer(engine, ask())
        servers[0].faults.hang_completions = False
        await until(lambda: engine.state().device == "2 of 2 vLLM servers")
        for server in servers:
            server.faults.hang_completions = True
        replies = [asyncio.create_task(answer(engine, ask(str(number)))) for number in range(4)]
        await asyncio.sleep(0.1)
        for server in servers:
            server.faults.hang_completions = False
        assert all(await asyncio.gather(*replies))

    async def test_cancelling_is_checked(self, servers):
        async with open_session("") as session:
            client = VllmClient(servers[0].url, session)
            servers[0].faults.token_delay_s = 0.01
            await check_cancel(client, servers[0].base, [1, 2, 3], timeout_s=0.5)
            assert not servers[0].open_replies
            servers[0].ignores_disconnects = True
            with pytest.raises(VllmError, match="connection was closed"):
                await check_cancel(client, servers[0].base, [1, 2, 3], timeout_s=0.5)


def make_replicas(count: int, **limits: int) -> Replicas:
    """Build replicas that are ready, without servers."""
    clients = [VllmClient(f"http://10.0.0.{number}:8000", None) for number in range(count)]  # type: ignore[arg-type]
    replicas = Replicas(clients, ReplicaLimits(**limits))
    for replica in replicas.all:
        replica.is_ready = True
    return replicas


def health_of(replicas: Replicas, now: list[float]) -> ReplicaHealth:
    """Build the health of replicas at the time in `now`."""
    return ReplicaHealth(replicas, check=None, clock=lambda: now[0])  # type: ignore[arg-type]


def place(replicas: Replicas, name: str) -> Replica | None:
    replica = replicas.choose(name, name)
    if replica:
        replicas.lease(replica, name)
    return replica


class TestChoice:
    """Rendezvous hashing with bounded load."""

    def test_an_adapter_prefers_one_replica_and_few_move_when_one_leaves(self):
        replicas = make_replicas(8)
        names = [f"persona-v{number}" for number in range(1000)]
        before = {name: replicas.choose(name, name) for name in names}
        assert {name: replicas.choose(name, name) for name in names} == before
        counts = Counter(replica.url for replica in before.values())
        assert len(counts) == 8 and max(counts.values()) < 1.3 * 125
        gone = replicas.all[3]
        gone.is_ready = False
        after = {name: replicas.choose(name, name) for name in names}
        assert {name for name in names if after[name] is not before[name]} == {
            name for name in names if before[name] is gone
        }

    def test_a_popular_adapter_spreads_in_the_same_order_and_none_is_overloaded(self):
        replicas = make_replicas(4, rows=100)
        order = list(dict.fromkeys(place(replicas, "popular-v1").url for _ in range(40)))
        loads = [len(replica.leases) for replica in replicas.all]
        assert max(loads) <= LOAD_FACTOR * 41 / 4 + 1 and sum(loads) == 40
        again = make_replicas(4, rows=100)
        assert list(dict.fromkeys(place(again, "popular-v1").url for _ in range(40))) == order

    def test_rows_and_adapters_of_a_replica_are_never_exceeded(self):
        replicas = make_replicas(3, rows=4, adapters=2)
        placed = [place(replicas, f"persona-v{number % 9}") for number in range(50)]
        assert sum(replica is not None for replica in placed) == sum(
            len(replica.leases) for replica in replicas.all
        )
        for replica in replicas.all:
            assert len(replica.leases) <= 4 and len(replica.active) <= 2
        assert replicas.choose("persona-v99", "persona-v99") is None

    def test_a_reply_waits_for_its_replica_while_all_are_as_busy(self):
        replicas = make_replicas(4, rows=4)
        home = replicas.choose("ada-v1", "ada-v1", anywhere=False)
        others = [
            replicas.lease(replica, f"other{number}")
            for replica in replicas.all
            for number in range(4)
        ]
        left = next(lease for lease in others if lease.replica is not home)
        replicas.release(left)
        assert replicas.choose("ada-v1", "ada-v1", anywhere=False) is None
        assert replicas.choose("ada-v1", "ada-v1") is left.replica
        for lease in others:
            if lease.replica is not home and lease is not left:
                replicas.release(lease)
        assert (
            replicas.choose("ada-v1", "ada-v1", anywhere=False) is not home
        )  # which is overloaded now

    def test_an_adapter_may_go_to_one_replica_more_than_it_replies_on(self):
        replicas = make_replicas(4, rows=8)
        leases = [replicas.lease(replica, "other-v1") for replica in replicas.all for _ in range(7)]
        seen = []
        while replica := replicas.choose("ada-v1", "ada-v1", anywhere=False):
            seen.append(replicas.lease(replica, "ada-v1").replica.url)
        assert len(set(seen)) == len(seen) == 4 and len(leases) == 28
        assert all(replica.active["ada-v1"] == 1 for replica in replicas.all)

    def test_a_new_version_is_loaded_on_the_replicas_that_it_prefers(self):
        replicas = make_replicas(8)
        first = replicas.choose("ada-v2", "ada-v2")
        preferred = replicas.preferred("ada-v2")
        assert preferred[0] is first and len(preferred) == PRELOADED_REPLICAS
        assert {each.url for each in replicas.all if replicas.prefers("ada-v2", each.url)} == {
            each.url for each in preferred
        }
        first.is_ready = False
        assert first not in replicas.preferred("ada-v2") and replicas.prefers("ada-v2", first.url)

    def test_the_base_model_takes_no_adapter_slot(self):
        replicas = make_replicas(1, rows=4, adapters=1)
        place(replicas, "a-v1")
        assert (
            replicas.choose("b-v1", "b-v1") is None and replicas.choose("b", "") is replicas.all[0]
        )

    def test_backoff_is_random_and_doubles_up_to_its_limit(self):
        now = [0.0]
        replicas = make_replicas(1)
        health = health_of(replicas, now)
        [replica] = replicas.all
        waits = []
        for _ in range(300):
            replica.failures = 3
            replica.is_ready = True
            health.fail(replica, ReplicaError("it fails"))
            waits.append(replica.retry_at)
        limits = replicas.limits
        assert (
            0 <= min(waits) < 0.2
            and 0.9 * 8 * limits.backoff_s < max(waits) <= 8 * limits.backoff_s
        )
        replica.failures = 60
        replica.is_ready = True
        health.fail(replica, ReplicaError("it fails"))
        assert replica.retry_at <= limits.max_backoff_s
        health.succeed(replica)
        assert replica.failures == 0
