"""The engine over servers that answer as vLLM does: prompts, streams, adapters, cancellation and
faults.
"""

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from personas.engine.remote.server_errors import AdapterNotServedError, ReplicaError, VllmError
from personas.engine.remote.vllm_engine import VllmEngine
from personas.errors import AdapterError, EngineBusyError
from personas.home.adapters import write_manifest
from personas.schemas.chat import ChatRequest, Persona, Turn
from tests.personas.changed_sampling import CHANGED, sent_fields
from tests.personas.vllm_engine.conftest import ADA, FAST, answer, ask, undisturbed
from tests.personas.vllm_engine.server import Faults, VllmServer


async def until(condition, timeout_s: float = 3.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def others(servers: list[VllmServer], one: VllmServer) -> VllmServer:
    return next(server for server in servers if server is not one)


def busy(servers: list[VllmServer]) -> VllmServer:
    return next(server for server in servers if server.open_replies)


class TestReplies:
    """Prompt, sampling, text and end of a reply."""

    async def test_a_reply_is_what_the_server_generates_for_our_prompt(
        self, open_engine, servers, renderer
    ):
        engine = await open_engine()
        request = ask(**CHANGED, seed=42)
        assert await answer(engine, request) == undisturbed(servers[0], renderer, request)
        [sent] = [body for server in servers for body in server.requests if body["max_tokens"] == 9]
        assert tuple(sent["prompt"]) == renderer.prompt(ADA, request.turns).ids
        asked = {
            name: sent[name]
            for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
        }
        assert asked == {
            "temperature": 0.3, "top_p": 0.2, "top_k": 5, "min_p": 0.7, "repetition_penalty": 1.9, "seed": 42,
        }  # fmt: skip
        assert engine.sampling_fields == sent_fields(sent)
        assert (
            sent["stop_token_ids"] == list(renderer.stop_ids)
            and sent["stream"]
            and sent["ignore_eos"]
        )

    async def test_the_reply_reports_tokens_seed_and_end(self, open_engine, servers):
        servers[0].reply_tokens = 5
        engine = await open_engine(servers[0].url)
        stream = engine.submit(ask(seed=3))
        [piece async for piece in stream]
        reply = stream.reply
        assert (reply.finish, reply.new_tokens, reply.seed, reply.version) == ("stop", 6, 3, None)
        assert reply.prompt.endswith("<|im_start|>assistant\n")

    async def test_stop_strings_end_a_reply_here_and_close_the_connection(
        self, open_engine, servers, renderer
    ):
        engine = await open_engine()
        whole = undisturbed(servers[0], renderer, ask())
        words = whole.split()
        stream = engine.submit(ask(stop=(f" {words[9]}",)))
        text = "".join([piece async for piece in stream])
        assert (
            text == stream.reply.text == whole[: whole.index(f" {words[9]}")]
            and stream.reply.finish == "stop"
        )
        await until(lambda: not any(server.open_replies for server in servers))

    async def test_a_looping_reply_is_ended_without_its_repetition(self, open_engine, servers):
        loop = servers[0].words[:4]
        servers[0].next_token = lambda model, ids: loop[len(ids) % 4]
        engine = await open_engine(servers[0].url)
        stream = engine.submit(ask(max_new_tokens=100, stop_loops=True))
        [piece async for piece in stream]
        assert stream.reply.repeated and stream.reply.new_tokens < 20

    async def test_log_probabilities_and_alternatives_are_those_of_the_server(
        self, open_engine, servers
    ):
        engine = await open_engine()
        stream = engine.submit(ask(alternatives=3, max_new_tokens=4))
        [piece async for piece in stream]
        reply = stream.reply
        assert (
            reply.logprobs == (-0.5,) * 4
            and "".join(token.text for token in reply.tokens).strip() == reply.text
        )
        assert [logprob for _, logprob in reply.tokens[0].alternatives] == [-0.5, -1.5, -2.5]
        assert reply.tokens[0].alternatives[0][0] == reply.tokens[0].text
        plain = engine.submit(ask(logprobs=True, max_new_tokens=4))
        [piece async for piece in plain]
        assert plain.reply.logprobs == (-0.5,) * 4 and not plain.reply.tokens

    async def test_a_card_that_is_too_long_fails_alone(self, open_engine):
        engine = await open_engine()
        stream = engine.submit(
            ChatRequest(Persona("b", "B", description="word " * 3000), (Turn("Bo", "hi"),))
        )
        with pytest.raises(ValueError, match="does not fit"):
            await anext(aiter(stream))
        assert await answer(engine, ask())

    async def test_metrics_and_state(self, open_engine, servers, version):
        ended = []
        engine = await open_engine(on_reply=ended.append)
        servers[0].faults.token_delay_s = servers[1].faults.token_delay_s = 0.02
        stream = engine.submit(ask(adapter=version(1)))
        await anext(aiter(stream))
        state = engine.state()
        assert (state.running, state.rows, state.slots) == (
            1,
            16,
            8,
        ) and state.device == "2 of 2 vLLM servers"
        assert [(one.name, one.replies) for one in state.adapters] == [("ada-v1", 1)]
        [piece async for piece in stream]
        assert (
            ended[0].finish == "length"
            and ended[0].new_tokens == 20
            and 0 < ended[0].first_s < ended[0].whole_s
        )
        assert engine.state().running == 0


class TestCancel:
    """Cancellation closes the connection."""

    async def test_a_running_reply_ends_with_its_text(self, open_engine, servers):
        engine = await open_engine()
        servers[0].faults.token_delay_s = servers[1].faults.token_delay_s = 0.02
        stream = engine.submit(ask(max_new_tokens=1000))
        pieces = aiter(stream)
        begun = await anext(pieces)
        stream.cancel()
        rest = [piece async for piece in pieces]
        assert stream.reply.finish == "cancelled" and stream.reply.text == "".join([begun, *rest])
        await until(lambda: not any(server.open_replies for server in servers), 1.0)
        stream.cancel()

    async def test_a_waiting_request_ends_empty_and_leaves_its_place(self, open_engine, servers):
        servers[0].faults.token_delay_s = 0.02
        engine = await open_engine(servers[0].url, limits=replace(FAST, rows=1), max_waiting=2)
        running = engine.submit(ask(max_new_tokens=1000))
        await anext(aiter(running))
        waiting = engine.submit(ask())
        await until(lambda: engine.state().waiting == 1)
        waiting.cancel()
        assert [piece async for piece in waiting] == [] and waiting.reply.finish == "cancelled"
        await until(lambda: engine.state().waiting == 0)
        running.cancel()

    async def test_closing_the_engine_ends_all_replies(self, open_engine, servers):
        engine = await open_engine()
        servers[0].faults.token_delay_s = servers[1].faults.token_delay_s = 0.05
        streams = [engine.submit(ask(str(number), max_new_tokens=1000)) for number in range(4)]
        await until(lambda: sum(server.open_replies for server in servers) == 4)
        await engine.close()
        for stream in streams:
            [piece async for piece in stream]
        assert [stream.reply.finish for stream in streams] == ["cancelled"] * 4
        await until(lambda: not any(server.open_replies for server in servers))


class TestAdapters:
    """Loading, names, paths, and adapters that are missing."""

    async def test_each_version_has_its_own_name_and_is_loaded_once_where_it_is_needed(
        self, open_engine, servers, renderer, version
    ):
        engine = await open_engine()
        refs = [version(1), version(2)]
        requests = [ask(str(number), adapter=refs[number % 2]) for number in range(8)]
        texts = await asyncio.gather(*(answer(engine, request) for request in requests))
        assert texts == [undisturbed(servers[0], renderer, request) for request in requests]
        loads = [load for server in servers for load in server.loads]
        assert {name for name, _ in loads} == {"ada-v1", "ada-v2"} and {
            path for _, path in loads
        } == {str(ref.folder) for ref in refs}
        assert all(len(set(server.loads)) == len(server.loads) for server in servers)

    async def test_load_reaches_all_servers_and_late_ones_too(self, open_engine, servers, version):
        await servers[1].stop()
        engine = await open_engine()
        await engine.load(version(1))
        assert "ada-v1" in servers[0].adapters
        await servers[1].start()
        await until(lambda: "ada-v1" in servers[1].adapters)

    async def test_a_home_mounted_elsewhere_gives_other_paths(
        self, open_engine, servers, home, version, tmp_path
    ):
        mounted = tmp_path / "mounted"
        mounted.symlink_to(home)
        engine = await open_engine(server_home=str(mounted))
        await engine.load(version(1))
        assert servers[0].adapters["ada-v1"] == str(mounted / "models/persona_adapters/ada/v1")
        with pytest.raises(AdapterError, match="outside UNDERSTUDY_HOME"):
            await engine.load(version(2, home=tmp_path / "elsewhere"))

    async def test_a_name_loaded_from_another_path_is_refused(
        self, open_engine, servers, version, tmp_path
    ):
        servers[0].adapters["ada-v1"] = "/somewhere/else"
        engine = await open_engine(servers[0].url)
        with pytest.raises(AdapterError, match="name from /somewhere/else"):
            await engine.load(version(1))
        servers[0].adapters["ada-v1"] = str(version(2).folder.parent / "v1")
        await engine.load(version(1, persona_id="bo"))
        assert "bo-v1" in servers[0].adapters

    async def test_a_name_loaded_from_our_path_counts_as_loaded(
        self, open_engine, servers, version
    ):
        engine = await open_engine(servers[0].url)
        ref = version(1)
        servers[0].adapters[ref.name] = str(ref.folder)  # by another bot, since the engine looked
        await engine.load(ref)
        assert servers[0].loads == []

    async def test_a_damaged_folder_is_never_sent_to_a_server(self, open_engine, servers, version):
        engine = await open_engine()
        ref = version(1)
        (ref.folder / "adapter_model.safetensors").write_bytes(b"other weights")
        with pytest.raises(AdapterError, match="does not match its checksum"):
            await engine.load(ref)
        with pytest.raises(AdapterError, match="does not match its checksum"):
            await answer(engine, ask(adapter=ref))
        assert not servers[0].loads and not servers[1].loads

    async def test_an_adapter_of_other_shapes_is_never_sent_to_a_server(
        self, open_engine, servers, version, tiny_base
    ):
        """vLLM finds them while it computes, and stops."""
        from tests.tiny_models import manifest_over  # imports torch and peft

        engine = await open_engine()
        ref = version(1)
        file = ref.folder / "adapter_model.safetensors"
        tensors = load_file(file)
        save_file(
            {
                name: np.ones([size + 8 for size in it.shape], it.dtype)
                for name, it in tensors.items()
            },
            file,
        )
        write_manifest(ref.folder, manifest_over(tiny_base, "ada", "v1"))
        with pytest.raises(AdapterError, match=r"ada v1's .*does not fit: .*64 inputs"):
            await engine.load(ref)
        with pytest.raises(AdapterError, match="does not fit"):
            await answer(engine, ask(adapter=ref))
        assert not servers[0].loads and not servers[1].loads and await answer(engine, ask())

    async def test_an_adapter_that_the_server_lost_is_loaded_once_more(
        self, open_engine, servers, renderer, version
    ):
        engine = await open_engine(servers[0].url)
        request = ask(adapter=version(1))
        await engine.load(request.adapter)
        servers[0].adapters.clear()
        stream = engine.submit(request)
        assert "".join([piece async for piece in stream]) == undisturbed(
            servers[0], renderer, request
        )
        assert stream.reply.version == "v1" and len(servers[0].loads) == 2

    async def test_the_base_model_answers_where_no_server_can_load_it(
        self, open_engine, servers, renderer, version
    ):
        engine = await open_engine()
        for server in servers:
            server.faults.load_message = "out of memory"
        stream = engine.submit(ask(adapter=version(1)))
        assert "".join([piece async for piece in stream]) == undisturbed(
            servers[0], renderer, ask()
        )
        assert stream.reply.version is None
        with pytest.raises(AdapterNotServedError, match="out of memory"):
            await engine.load(version(1))
        # Where replies are compared, none is another version's.
        for server in servers:
            server.faults.load_message = "a tensor is missing"
        needy = replace(ask(adapter=version(1)), needs_adapter=True)
        with pytest.raises(AdapterNotServedError, match="a tensor is missing"):
            await answer(engine, needy)

    async def test_another_server_answers_where_one_cannot_load_it(
        self, open_engine, servers, version
    ):
        engine = await open_engine()
        ref = version(1)
        await answer(engine, ask(adapter=ref))
        first = next(server for server in servers if server.adapters)
        first.adapters.clear()
        first.faults.load_message = "out of memory"
        stream = engine.submit(ask(adapter=ref))
        [piece async for piece in stream]
        assert stream.reply.version == "v1" and "ada-v1" in others(servers, first).adapters

    async def test_a_server_that_resolves_names_needs_no_load(
        self, open_engine, servers, version, home
    ):
        engine = await open_engine(servers[0].url)
        ref = version(1)
        await engine.load(ref)
        servers[0].adapters.clear()
        servers[0].resolves = home
        stream = engine.submit(ask(adapter=ref))
        [piece async for piece in stream]
        assert stream.reply.version == "v1" and len(servers[0].loads) == 1

    async def test_drop_waits_for_replies_and_unloads_everywhere(
        self, open_engine, servers, version
    ):
        engine = await open_engine()
        ref = version(1)
        await engine.load(ref)
        for server in servers:
            server.faults.token_delay_s = 0.02
        stream = engine.submit(ask(adapter=ref))
        await anext(aiter(stream))
        drop = asyncio.create_task(engine.drop(ref))
        await asyncio.sleep(0.05)
        assert not drop.done()
        assert len([piece async for piece in stream]) > 10
        await drop
        assert not servers[0].adapters and not servers[1].adapters
        assert stream.reply.version == "v1" and stream.reply.finish == "length"

    async def test_a_server_that_was_away_unloads_what_was_dropped(
        self, open_engine, servers, version
    ):
        engine = await open_engine()
        ref = version(1)
        await engine.load(ref)
        servers[1].faults.hang = True
        await until(lambda: engine.state().device.startswith("1 of 2"))
        await engine.drop(ref)
        assert "ada-v1" in servers[1].adapters
        servers[1].faults.hang = False
        await until(lambda: engine.state().device.startswith("2 of 2"))
        assert not servers[1].adapters

    async def test_a_server_with_dropped_weights_is_named_until_it_was_restarted(
        self, open_engine, servers, version, tiny_base, home
    ):
        async def notices():
            """Ask as the doctor does, in a process of its own."""
            checks = await VllmEngine(
                tiny_base, "bfloat16", [server.url for server in servers], home
            ).inspect()
            return [check for check in checks if check.topic == "restart"]

        engine = await open_engine()
        ref = version(1)
        await answer(engine, ask(adapter=ref))
        holder = next(server for server in servers if server.adapters)
        await engine.drop(ref)
        await engine.close()
        [notice] = await notices()
        assert (notice.url, notice.state) == (holder.url, "warn") and "ada-v1" in notice.found
        await holder.restart()
        assert await notices() == []

    async def test_no_server_gets_more_adapters_at_once_than_it_has_slots(
        self, open_engine, servers, version
    ):
        engine = await open_engine(limits=replace(FAST, adapters=2))
        for server in servers:
            server.faults.token_delay_s = 0.002
        refs = [version(number) for number in range(1, 10)]
        requests = [ask(str(number), adapter=refs[number % 9]) for number in range(27)]
        versions = []
        for stream in [engine.submit(request) for request in requests]:
            [piece async for piece in stream]
            versions.append(stream.reply.version)
        assert versions == [request.adapter.version for request in requests]
        assert max(server.most_adapters for server in servers) == 2


class TestFairness:
    """The order of guilds is the local engine's."""

    async def test_a_member_passes_one_who_floods_their_guild(self, open_engine, servers):
        servers[0].faults.token_delay_s = 0.005
        engine = await open_engine(servers[0].url, limits=replace(FAST, rows=3), max_waiting=60)
        flood = [
            engine.submit(replace(ask(str(number), guild_id=1), member_id=7)) for number in range(7)
        ]
        with pytest.raises(EngineBusyError, match="7 replies to the same member"):
            engine.submit(replace(ask(guild_id=1), member_id=7))
        await until(lambda: engine.state().running == 2)
        light = engine.submit(replace(ask("light", guild_id=1), member_id=8))
        async with asyncio.timeout(3):
            [piece async for piece in light]
        assert sum(stream._reply is not None for stream in flood) <= 3
        for stream in flood:
            stream.cancel()


class TestPrefixes:
    """Cache salt and prefixes computed in advance."""

    async def test_forgetting_changes_the_salt_for_good(self, open_engine, servers, home):
        engine = await open_engine()
        await answer(engine, ask())
        await engine.clear_prefix_cache()
        await answer(engine, ask())
        again = await open_engine()
        await answer(again, ask())
        salts = [
            body["cache_salt"]
            for server in servers
            for body in server.requests
            if body["max_tokens"] == 20
        ]
        assert len(salts) == 3 and len(set(salts)) == 2 and salts.count(again._salt.value) == 2
        assert all(len(salt) >= 20 for salt in salts)

    async def test_a_common_prefix_is_computed_where_the_replies_will_be(
        self, open_engine, servers, renderer, version
    ):
        engine = await open_engine()
        engine.prepare(ADA, version(1))
        prefix = list(renderer.common_prefix(ADA, 2048))
        await until(
            lambda: any(body["prompt"] == prefix for server in servers for body in server.requests)
        )
        warm = next(server for server in servers if server.adapters)
        await until(lambda: not warm.open_replies)
        await answer(engine, ask(adapter=version(1)))
        assert warm.requests[-1]["prompt"][: len(prefix)] == prefix
        salts = {body["cache_salt"] for body in warm.requests if body["model"] == "ada-v1"}
        assert len(salts) == 1


class TestFaults:
    """Servers that die, hang or fail in mid-reply: nothing is lost and nothing comes twice."""

    @pytest.mark.parametrize(
        "fault",
        [
            Faults(kill_after=7, token_delay_s=0.005),
            Faults(error_after=5),
            Faults(abort_after=5),
            Faults(completion_status=503),
            Faults(completion_status=500),
        ],
        ids=["killed", "error event", "aborted", "busy", "failing"],
    )
    async def test_a_reply_goes_on_at_another_server(
        self, open_engine, servers, renderer, version, fault
    ):
        engine = await open_engine()
        request = ask(adapter=version(1), max_new_tokens=40, alternatives=1)
        await answer(engine, request)
        first = next(server for server in servers if server.adapters)
        first.faults = fault
        first.sent_tokens = 0
        stream = engine.submit(request)
        text = "".join([piece async for piece in stream])
        assert text == stream.reply.text == undisturbed(first, renderer, request)
        assert (
            stream.reply.version == "v1"
            and stream.reply.new_tokens == len(stream.reply.tokens) == 40
        )
        rest = others(servers, first).requests[-1]
        received = len(rest["prompt"]) - stream.reply.prompt_tokens
        assert rest["max_tokens"] == 40 - received

    async def test_a_server_that_hangs_in_mid_reply_is_given_up(
        self, open_engine, servers, renderer
    ):
        engine = await open_engine()
        for server in servers:
            server.faults.token_delay_s = 0.01
        stream = engine.submit(ask(max_new_tokens=40))
        pieces = aiter(stream)
        text = await anext(pieces)
        busy(servers).faults.hang = True
        since = time.monotonic()
        text += "".join([piece async for piece in pieces])
        assert (
            text == undisturbed(servers[0], renderer, ask(max_new_tokens=40))
            and time.monotonic() - since < 3
        )
        assert engine.state().device == "1 of 2 vLLM servers"

    async def test_a_resumed_reply_draws_other_numbers(self, open_engine, servers):
        engine = await open_engine()
        request = ask(temperature=1.0, seed=5, max_new_tokens=30)
        for server in servers:
            server.faults = Faults(error_after=5)
        first = engine.submit(request)
        [piece async for piece in first]
        sent = [body for server in servers for body in server.requests if body["max_tokens"] > 1]
        resumed = [body for body in sent if body["max_tokens"] < 30]
        assert (
            len(resumed) == len({body["seed"] for body in resumed} - {5}) == 5
            and first.reply.seed == 5
        )

    async def test_many_replies_survive_many_kills(self, open_engine, servers, renderer, version):
        engine = await open_engine(limits=replace(FAST, rows=40), max_waiting=200)
        refs = [version(1), version(2)]
        requests = [
            ask(f"{number}?", adapter=refs[number % 2], max_new_tokens=30) for number in range(40)
        ]
        for server in servers:
            server.faults.token_delay_s = 0.004
        texts = [asyncio.create_task(answer(engine, request)) for request in requests]
        for number in range(6):
            await asyncio.sleep(0.08)
            await servers[number % 2].restart()
            await until(lambda: engine.state().device.startswith("2 of 2"))
        assert await asyncio.gather(*texts) == [
            undisturbed(servers[0], renderer, request) for request in requests
        ]

    async def test_replies_wait_for_a_restart_when_no_server_is_left(
        self, open_engine, servers, renderer
    ):
        engine = await open_engine()
        for server in servers:
            server.faults.token_delay_s = 0.01
        running = engine.submit(ask("running", max_new_tokens=40))
        pieces = aiter(running)
        text = await anext(pieces)
        for server in servers:
            await server.stop()
        await until(lambda: engine.state().device.startswith("0 of 2"))
        waiting = asyncio.create_task(answer(engine, ask("waiting")))
        await asyncio.sleep(0.1)
        await servers[1].restart()
        text += "".join([piece async for piece in pieces])
        assert text == undisturbed(servers[0], renderer, ask("running", max_new_tokens=40))
        assert await waiting == undisturbed(servers[0], renderer, ask("waiting"))

    async def test_a_reply_that_waits_too_long_fails_as_busy(self, open_engine, servers, version):
        engine = await open_engine(wait_s=0.2)
        for server in servers:
            server.faults.token_delay_s = 0.01
        running = engine.submit(ask(max_new_tokens=100))
        cancelled = engine.submit(ask("2", max_new_tokens=100))
        pieces = aiter(running)
        await anext(pieces)
        await anext(aiter(cancelled))
        for server in servers:
            await server.stop()
        await until(lambda: engine.state().waiting == 2)
        cancelled.cancel()
        [piece async for piece in cancelled]
        assert cancelled.reply.finish == "cancelled" and cancelled.reply.text
        with pytest.raises(EngineBusyError, match="waited 0 s"):
            [piece async for piece in pieces]
        with pytest.raises(EngineBusyError):
            await answer(engine, ask())
        with pytest.raises(ReplicaError, match="No vLLM server"):
            await engine.load(version(1))
        assert engine.state().waiting == 0

    async def test_a_request_that_fails_everywhere_ends(self, open_engine, servers):
        engine = await open_engine()
        for server in servers:
            server.faults.completion_status = 500
        with pytest.raises(ReplicaError, match=r"failed \(500\)"):
            await answer(engine, ask())
        for server in servers:
            server.faults.completion_status = 200
        assert await answer(engine, ask())

    async def test_a_busy_server_is_asked_again(self, open_engine, servers):
        engine = await open_engine(servers[0].url)
        servers[0].faults.completion_status = 503
        reply = asyncio.create_task(answer(engine, ask()))
        await asyncio.sleep(0.6)  # more often than a failing request is tried
        assert not reply.done()
        servers[0].faults.completion_status = 200
        assert await reply

    async def test_a_server_without_token_ids_is_named(self, open_engine, servers):
        engine = await open_engine()
        for server in servers:
            server.faults.omit_token_ids = True
        with pytest.raises(VllmError, match="returns no token ids"):
            await answer(engine, ask())
