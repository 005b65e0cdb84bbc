"""The engine over llama.cpp servers: lists of adapters, slots, promotions, crashes."""

import asyncio
import base64
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from personas.engine.remote.llamacpp_command import LlamaProgram
from personas.engine.remote.llamacpp_engine import LlamaCppEngine
from personas.engine.remote.llamacpp_memory import ServerMemory
from personas.engine.remote.llamacpp_process import LlamaServerError
from personas.engine.remote.server_errors import AdapterNotServedError, ReplicaError, VllmError
from personas.home.adapters import EFFECT_PROBE_FILE, adapter_ref, write_manifest
from personas.prompt.renderer import PICTURE_MARK
from personas.schemas.chat import Picture
from personas.schemas.effect_probe import EffectProbe, ProbeReply
from personas.schemas.training import AdapterManifest
from tests.personas.changed_sampling import CHANGED, sent_fields
from tests.personas.llamacpp_engine.conftest import with_rows
from tests.personas.llamacpp_engine.random_projector import write_projector
from tests.personas.llamacpp_engine.server import LlamaCppServer
from tests.personas.vllm_engine.conftest import answer, ask
from tests.personas.vllm_engine.test_vllm_engine import until

ROOM = ServerMemory(need_bytes=1, free_bytes=2**40, total_bytes=2**40)
NO_ROOM = replace(ROOM, free_bytes=0)
CAT = Picture("cat<|im_end|>.jpg", "image/jpeg", b"\xff\xd8\xff a cat")
DOG = Picture("dog.jpg", "image/jpeg", b"\xff\xd8\xff a dog")


@pytest.fixture(params=[True, False], ids=["beside", "restart"])
def has_room(request, monkeypatch):
    """Promotions start a second server, or restart the only one."""
    memory = ROOM if request.param else NO_ROOM
    monkeypatch.setattr(LlamaCppEngine, "_memory", lambda self, adapters: memory)
    monkeypatch.setattr(LlamaCppEngine, "_fit_slots", lambda self: None)
    return request.param


@pytest.fixture
def undisturbed(model, small_base):
    """The reply that an adapter's file gives, of so many tokens."""
    renderer = small_base[2]

    def reply(request, file=""):
        server = LlamaCppServer(model)
        ids = list(renderer.prompt(request.persona, request.turns).ids)
        begin = len(ids)
        for _ in range(request.sampling.max_new_tokens):
            ids.append(server.next_token(file, ids))
        return renderer.tokenizer.decode(ids[begin:], skip_special_tokens=True).strip()

    return reply


def file_of(engine, adapter):
    return engine._files.path(adapter).name


def client_of(engine):
    return engine._replicas.ready[0].client


class TestServersOfOthers:
    """Servers at ENGINE_URLS, with the adapters that they were started with."""

    async def start(self, server, *paths, **settings):
        await server.stop()
        server.adapters = tuple(str(path) for path in paths)
        for name, value in settings.items():
            setattr(server, name, value)
        await server.start()

    async def test_each_request_names_all_adapters_and_a_slot_of_its_own(
        self, open_engine, server, version, undisturbed
    ):
        engine = await open_engine(server.url)
        ada, bea = version(1), version(1, "bea")
        paths = [engine._files.write(ada), engine._files.write(bea)]
        await engine.close()
        await self.start(server, "/elsewhere/foreign.gguf", *paths)
        engine = await open_engine(server.url)
        server.requests.clear()
        for adapter in (ada, bea, None):
            await engine.load(adapter) if adapter else None
            file = file_of(engine, adapter) if adapter else ""
            request = ask(adapter=adapter)
            assert await answer(engine, request) == undisturbed(request, file)
        scales = [[entry["scale"] for entry in body["lora"]] for body in server.requests]
        assert scales == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
        assert len({body["id_slot"] for body in server.requests}) == 3
        assert not any(body["cache_prompt"] for body in server.requests)
        await answer(engine, ask(adapter=bea))
        assert server.requests[-1]["id_slot"] == server.requests[1]["id_slot"]
        assert server.requests[-1]["cache_prompt"]

    async def test_the_engine_states_the_sampling_that_its_servers_are_sent(
        self, open_engine, server
    ):
        engine = await open_engine(server.url)
        await answer(engine, ask(**CHANGED))
        assert engine.sampling_fields == sent_fields(server.requests[-1])

    async def test_one_adapter_computes_at_a_time_and_slots_that_change_hands_are_not_read(
        self, open_engine, server, version, undisturbed
    ):
        engine = await open_engine(server.url)
        adapters = [version(1, persona) for persona in ("ada", "bea", "cee")]
        paths = [engine._files.write(adapter) for adapter in adapters]
        await engine.close()
        await self.start(server, *paths, slot_count=2, slots=server.slots[:2], token_delay_s=0.002)
        engine = await open_engine(server.url)
        for adapter in adapters:
            await engine.load(adapter)
        server.most_adapters = 0
        requests = [ask(f"question {at % 2}", adapters[at % 3], guild_id=at) for at in range(12)]
        replies = await asyncio.gather(*(answer(engine, request) for request in requests))
        assert server.most_adapters == 1
        for request, text in zip(requests, replies, strict=True):
            assert text == undisturbed(request, file_of(engine, request.adapter))

    async def test_a_cache_that_is_shared_between_adapters_is_not_read(
        self, open_engine, server, version, undisturbed
    ):
        engine = await open_engine(server.url)
        ada, bea = version(1), version(1, "bea")
        paths = [engine._files.write(ada), engine._files.write(bea)]
        await engine.close()
        await self.start(server, *paths, cache_ram=True)
        engine = await open_engine(server.url)
        for adapter in (ada, bea, ada, None, ada):
            if adapter:
                await engine.load(adapter)
            request = ask(adapter=adapter)
            file = file_of(engine, adapter) if adapter else ""
            assert await answer(engine, request) == undisturbed(request, file)
        client = engine._replicas.all[0].client
        [check] = [it for it in await engine._inspect(client) if it.state == "warn"]
        assert "shared between adapters" in check.found and "--cache-ram 0" in check.remedy

    async def test_a_version_that_no_server_has_is_named_with_the_command_that_starts_one(
        self, open_engine, server, version, undisturbed, small_base
    ):
        engine = await open_engine(server.url)
        with pytest.raises(AdapterNotServedError, match="No server has ada v1") as error:
            await engine.load(version(1))
        command = error.value.advice
        path = engine._files.path(version(1))
        assert path.exists() and f"--lora {path}" in command
        assert f"llama-server --model {small_base[1]}" in command
        stream = engine.submit(ask(adapter=version(1)))
        text = "".join([piece async for piece in stream])
        assert text == undisturbed(ask()) and stream.reply.version is None
        # Where replies are compared, none is another version's.
        with pytest.raises(AdapterNotServedError, match="No server has ada v1"):
            await answer(engine, replace(ask(adapter=version(1)), needs_adapter=True))

    @pytest.mark.parametrize("is_known", [True, False], ids=["served before", "new"])
    async def test_a_version_asked_while_its_server_is_away_waits_for_it_and_speaks(
        self, open_engine, server, version, undisturbed, is_known
    ):
        engine = await open_engine(server.url)
        path = engine._files.write(version(1))
        await engine.close()
        await self.start(server, path)
        engine = await open_engine(server.url)
        if is_known:
            await engine.load(version(1))
        await server.stop()
        await until(lambda: not engine._replicas.ready, 5.0)
        request = ask(adapter=version(1))
        reply = asyncio.create_task(answer(engine, request))
        if is_known:
            with pytest.raises(ReplicaError, match="that may have ada v1 is away"):
                await engine.load(version(1))
        await asyncio.sleep(0.2)  # some sweeps
        await server.start()
        voice = undisturbed(request, file_of(engine, version(1)))
        assert await reply == voice
        assert await answer(engine, request) == voice

    async def test_a_version_that_no_ready_server_has_waits_for_none_that_is_away(
        self, open_engine, server, version, undisturbed
    ):
        engine = await open_engine(server.url, "http://127.0.0.1:9")
        async with asyncio.timeout(5):
            assert await answer(engine, ask(adapter=version(1))) == undisturbed(ask())

    async def test_a_version_that_the_server_lost_while_it_was_away_is_answered_without(
        self, open_engine, server, version, undisturbed
    ):
        engine = await open_engine(server.url)
        path = engine._files.write(version(1))
        await engine.close()
        await self.start(server, path)
        engine = await open_engine(server.url)
        await engine.load(version(1))
        await server.stop()
        await until(lambda: not engine._replicas.ready, 5.0)
        reply = asyncio.create_task(answer(engine, ask(adapter=version(1))))
        await self.start(server)
        assert await reply == undisturbed(ask())
        await server.stop()
        await until(lambda: not engine._replicas.ready, 5.0)
        await self.start(server, path)  # with the option that the refusal names
        await until(lambda: engine._having("ada-v1"), 5.0)
        request = ask(adapter=version(1))
        assert await answer(engine, request) == undisturbed(request, path.name)

    async def test_another_model_and_a_short_context_are_refused(self, open_engine, server, model):
        server.model = replace(model, probe_ids=[1, 2])
        with pytest.raises(VllmError, match="it has another tokenizer"):
            await open_engine(server.url)
        server.model = replace(model, vocabulary=7)
        with pytest.raises(VllmError, match=r"its vocabulary has 7 tokens, not \d+"):
            await open_engine(server.url)
        server.model = model
        server.context = 4096
        with pytest.raises(VllmError, match="takes 1024 tokens in a slot") as error:
            await open_engine(server.url)
        assert "-c 8192" in error.value.advice

    async def test_characters_of_several_tokens_and_log_probabilities_arrive(
        self, open_engine, server, model, undisturbed
    ):
        engine = await open_engine(server.url)
        request = ask(alternatives=3)
        stream = engine.submit(request)
        [piece async for piece in stream]
        assert len(stream.reply.tokens) == 20 and len(stream.reply.tokens[0].alternatives) == 3
        whole = undisturbed(ask())
        server.model = replace(model, parts=model.words[:4])
        assert await answer(engine, ask()) == whole


class TestEffect:
    """A version speaks only where the server shows the effect that its training measured."""

    @pytest.fixture
    async def measured(self, open_engine, server, model, home, trained):
        """A version with a probe on a server that has its file; and the engine over both."""
        ref = adapter_ref(home, "ada", "v1")
        shutil.copytree(trained, ref.folder)
        manifest = AdapterManifest.model_validate_json((ref.folder / "manifest.json").read_bytes())
        replies = []
        for at in range(4):
            prompt, reply = model.words[at : at + 3], model.words[at + 3 : at + 9]
            ids = [[*prompt, *reply[:place]] for place in range(len(reply))]
            base = [server.logprob("", text, token) for text, token in zip(ids, reply, strict=True)]
            tuned = [score + 1 for score in base]
            replies.append(ProbeReply(prompt=prompt, reply=reply, base=base, tuned=tuned))
        probe = EffectProbe(
            weights=manifest.checksums["adapter_model.safetensors"],
            base_model_hash=manifest.base_model_hash,
            precision="bfloat16",
            replies=replies,
        )
        (ref.folder / EFFECT_PROBE_FILE).write_text(probe.model_dump_json())
        (ref.folder / "manifest.json").unlink()
        write_manifest(ref.folder, manifest)
        engine = await open_engine(server.url)
        path = engine._files.write(ref)
        await engine.close()
        await server.stop()
        server.adapters = (str(path),)

        async def start(**settings):
            for name, value in settings.items():
                setattr(server, name, value)
            await server.start()
            return await open_engine(server.url), ref

        return start

    async def test_a_server_that_applies_it_is_asked_for_its_tokens_and_then_used(
        self, measured, server, undisturbed
    ):
        engine, version = await measured()
        await engine.load(version)
        grammars = [body["grammar"] for body in server.requests if "grammar" in body]
        assert len(grammars) == 8 and all(text.startswith("root ::= <[") for text in grammars)
        # On each slot, the first reply of base model and adapter clears what the other computed.
        for slot in (0, 1):
            lane = [
                (body["lora"][0]["scale"], body["cache_prompt"])
                for body in server.requests
                if "grammar" in body and body["id_slot"] == slot
            ]
            assert lane == [(0, False), (0, True), (1, False), (1, True)]
        request = ask(adapter=version)
        assert await answer(engine, request) == undisturbed(request, file_of(engine, version))

    async def test_a_server_that_ignores_it_is_refused_and_the_base_model_answers(
        self, measured, undisturbed
    ):
        engine, version = await measured(ignores_adapters=True)
        with pytest.raises(AdapterNotServedError):
            await engine.load(version)
        stream = engine.submit(ask(adapter=version))
        text = "".join([piece async for piece in stream])
        assert text == undisturbed(ask()) and stream.reply.version is None


class TestOwnServer:
    """A server that the bot runs, in a process of its own."""

    async def test_a_promotion_gives_the_version_a_voice_and_loses_no_reply(
        self, open_engine, program, version, undisturbed, has_room
    ):
        engine = await open_engine(program=program(token_delay_s=0.005))
        first, second = version(1), version(2)
        await engine.load(first)
        requests = [ask(f"question {at}", first, guild_id=at % 3) for at in range(8)]
        replies = [asyncio.create_task(answer(engine, request)) for request in requests]
        await asyncio.sleep(0.1)
        await engine.load(second)
        new = ask(adapter=second)
        assert await answer(engine, new) == undisturbed(new, file_of(engine, second))
        for request, reply in zip(requests, replies, strict=True):
            assert await reply == undisturbed(request, file_of(engine, first))
        await until(lambda: len(engine._replicas.all) == 1, 5.0)
        assert {status.name for status in engine.state().adapters} == {"ada-v1", "ada-v2"}
        assert engine.state().precision.endswith(".gguf"), "not the precision of adapters"

    async def test_a_version_that_is_asked_first_is_served_at_the_next_start_at_once(
        self, open_engine, program, version, undisturbed
    ):
        engine = await open_engine(program=program())
        request = ask(adapter=version(1))
        assert await answer(engine, request) == undisturbed(request, file_of(engine, version(1)))
        await engine.close()
        engine = await open_engine(program=program())
        assert engine._servers.files == (engine._files.path(version(1)),)
        await engine.drop(version(1))
        assert not engine._servers.files and not engine._files.path(version(1)).exists()

    async def test_a_server_that_dies_is_started_again_and_its_replies_go_on(
        self, open_engine, program, version, undisturbed, tmp_path
    ):
        died = tmp_path / "died"
        engine = await open_engine(program=program(die_after=45, die_file=str(died)))
        await engine.load(version(1))
        requests = [ask(f"question {at}", version(1)) for at in range(4)]
        replies = await asyncio.gather(*(answer(engine, request) for request in requests))
        assert died.exists() and engine._servers._current.crashes == 1
        for request, text in zip(requests, replies, strict=True):
            assert text == undisturbed(request, file_of(engine, version(1)))

    async def test_a_version_asked_while_a_dead_server_starts_again_speaks(
        self, open_engine, program, version, undisturbed, caplog
    ):
        engine = await open_engine(program=program())
        await engine.load(version(1))
        [server] = psutil.Process(engine._servers._current.pid).children()
        server.kill()
        await until(lambda: not engine._replicas.ready, 5.0)
        request = ask("hello", version(2))
        text = await answer(engine, request)
        assert text == undisturbed(request, file_of(engine, version(2)))
        assert "ended (SIGKILL)" in caplog.text

    async def test_it_ends_with_the_bot_and_with_its_guard(self, open_engine, program):
        engine = await open_engine(program=program())
        guard = psutil.Process(engine._server.pid)
        [server] = guard.children()
        os.kill(guard.pid, signal.SIGKILL)
        await until(lambda: not server.is_running(), 5.0)
        await until(lambda: engine._replicas.ready, 10.0)
        guard = psutil.Process(engine._server.pid)
        [server] = guard.children()
        await engine.close()
        assert not server.is_running() and not guard.is_running()

    async def test_an_end_that_was_cancelled_leaves_no_process(self, open_engine, program):
        engine = await open_engine(program=program())
        guard = psutil.Process(engine._server.pid)
        end = asyncio.create_task(engine._server.stop())
        await asyncio.sleep(0)
        assert guard.is_running()
        end.cancel()
        await asyncio.gather(end, return_exceptions=True)
        await engine.close()
        assert not guard.is_running()

    async def test_what_does_not_start_is_told_with_the_servers_words(self, open_engine, program):
        with pytest.raises(LlamaServerError, match="failed to load model") as error:
            await open_engine(program=program(refuses="yes"))
        assert "llama-server.log" in error.value.advice

    async def test_a_promotion_that_fails_leaves_the_earlier_versions(
        self, open_engine, program, version, undisturbed, has_room, model, monkeypatch
    ):
        engine = await open_engine(program=program())
        await engine.load(version(1))
        launch = engine._launch
        fails = [True, True]

        def refuse(adapters):
            settings = {"refuses": "yes"} if len(adapters) > 1 and fails.pop() else {}
            program(**settings)
            return launch(adapters)

        monkeypatch.setattr(engine._servers, "_launch", refuse)
        if has_room:
            fails.clear()
            fails += [False, True]
            monkeypatch.setattr(engine._servers, "_memory", lambda adapters: ROOM)
            await engine.load(version(2))
            assert len(engine._servers.files) == 2
        else:
            with pytest.raises(LlamaServerError):
                await engine.load(version(2))
            request = ask(adapter=version(1))
            text = await answer(engine, request)
            assert text == undisturbed(request, file_of(engine, version(1)))

    async def test_a_damaged_version_is_refused_and_the_base_model_answers(
        self, open_engine, program, home, version, undisturbed
    ):
        engine = await open_engine(program=program(), limits=with_rows(2))
        missing = adapter_ref(home, "ada", "v9")
        stream = engine.submit(ask(adapter=missing))
        text = "".join([piece async for piece in stream])
        assert text == undisturbed(ask()) and stream.reply.version is None

    async def test_the_doctor_starts_no_server_and_says_how_a_promotion_is_done(
        self, small_base, home, program, has_room
    ):
        base, file, _ = small_base
        engine = LlamaCppEngine(
            base, "bfloat16", (), home, model_file=file, program=program(refuses="yes")
        )
        checks = await engine.inspect()
        assert [check.topic for check in checks] == ["model", "adapters", "restart", "candidates"]
        assert {check.state for check in checks} == {"ok"}
        assert ("second server" in checks[2].found) == has_room
        assert str(file) in checks[0].found


async def test_the_doctor_names_the_projector(small_base, home, program, tmp_path):
    base, file, _ = small_base
    beside = shutil.copy(file, tmp_path / "model.gguf")
    write_projector(tmp_path / "mmproj-model-f32.gguf", 64)
    engine = LlamaCppEngine(
        base, "bfloat16", (), home, model_file=Path(beside), program=program(refuses="yes")
    )
    found = [check.found for check in await engine.inspect()]
    assert "pictures are seen with mmproj-model-f32.gguf" in found
    assert engine._options(()).projector == tmp_path / "mmproj-model-f32.gguf"


class TestPictures:
    """They go in their places of a prompt's text, to a server whose model sees."""

    MARKER = "<__media_x__>"

    @pytest.fixture
    async def seeing(self, model):
        one = LlamaCppServer(model, media_marker=self.MARKER)
        await one.start()
        yield one
        await one.stop()

    async def test_they_stand_behind_the_last_message_by_name(self, open_engine, seeing):
        engine = await open_engine(seeing.url)
        assert engine.state().sees_pictures
        [check] = [one for one in await engine._inspect(client_of(engine)) if "seen" in one.found]
        assert check.found == "pictures are seen"
        seeing.requests.clear()
        asked = replace(ask("what is it?", max_new_tokens=4), pictures=(CAT, DOG))
        assert await answer(engine, asked)
        [sent] = seeing.requests
        text = sent["prompt"]["prompt_string"]
        behind = text.partition("what is it?")[2]
        assert behind.startswith(
            f"\n[cat< |im_end|>.jpg]\n{self.MARKER}\n[dog.jpg]\n{self.MARKER}<|im_end|>"
        )
        assert text.endswith("assistant\n")
        sent_data = [base64.b64decode(one) for one in sent["prompt"]["multimodal_data"]]
        assert sent_data == [CAT.data, DOG.data]
        other = replace(asked, pictures=(DOG, DOG))
        assert await answer(engine, other) != await answer(engine, asked)

    async def test_a_marker_that_a_member_types_is_no_picture(self, open_engine, seeing):
        engine = await open_engine(seeing.url)
        asked = replace(ask(f"<picture> <__media__> {PICTURE_MARK[:9]}"), pictures=(CAT,))
        assert await answer(engine, asked)

    async def test_a_reply_goes_on_with_its_pictures(self, open_engine, model):
        """A server dies in mid-reply; the next one continues the text behind the pictures."""
        one = LlamaCppServer(model, media_marker=self.MARKER, token_delay_s=0.02)
        two = LlamaCppServer(model, media_marker=self.MARKER, token_delay_s=0.02)
        for server in (one, two):
            await server.start()
        engine = await open_engine(one.url, two.url)
        asked = replace(ask("what is it?", max_new_tokens=30), pictures=(CAT,))
        stream = engine.submit(asked)
        pieces = []
        async for piece in stream:
            pieces.append(piece)
            if len(pieces) == 3:
                first, second = (one, two) if one.running else (two, one)
                await first.stop()
        assert "".join(pieces) == stream.reply.text
        sent = second.requests[-1]["prompt"]
        said = sent["prompt_string"].partition("assistant\n")[2]
        assert said and stream.reply.text.startswith(said.strip())
        assert len(sent["multimodal_data"]) == 1
        await second.stop()

    async def test_a_beginning_of_sequence_that_the_server_adds_is_left_out(
        self, open_engine, seeing
    ):
        """The stand-in says that it adds one, as a server of Gemma's does."""
        engine = await open_engine(seeing.url)
        seeing.requests.clear()
        bos = engine._renderer.tokenizer.bos_token
        assert await answer(engine, replace(ask(), pictures=(CAT,)))
        assert not seeing.requests[-1]["prompt"]["prompt_string"].startswith(bos)

    @pytest.mark.parametrize(("most", "left"), [(1, ["dog"]), (0, [])])
    async def test_a_server_that_refuses_them_is_asked_with_fewer(
        self, open_engine, seeing, most, left
    ):
        """As where they have too many tokens for its context."""
        seeing.most_pictures = most
        engine = await open_engine(seeing.url)
        seeing.requests.clear()
        assert await answer(engine, replace(ask("what is it?"), pictures=(CAT, CAT, DOG)))
        prompts = [one["prompt"] for one in seeing.requests]
        assert len(prompts) == (2 if left else 3)
        assert prompts[0]["prompt_string"].count(self.MARKER) == 3
        if left:
            assert "[dog.jpg]" in prompts[-1]["prompt_string"]
        else:
            assert isinstance(prompts[-1], list)
        assert engine.state().device.startswith("1 of 1")

    async def test_a_server_that_sees_is_preferred(self, open_engine, server, seeing):
        engine = await open_engine(server.url, seeing.url)
        for number in range(4):
            asked = replace(ask(f"what is {number}?"), pictures=(CAT,))
            assert await answer(engine, asked)
        assert not any(isinstance(one["prompt"], dict) for one in server.requests)
        assert sum(isinstance(one["prompt"], dict) for one in seeing.requests) == 4

    async def test_a_server_that_does_not_start_with_the_projector_is_started_without(
        self, open_engine, program, small_base, tmp_path, caplog
    ):
        beside = shutil.copy(small_base[1], tmp_path / "model.gguf")
        write_projector(tmp_path / "mmproj-model-f32.gguf", 64)
        engine = await open_engine(
            program=program(refuses_projectors=True), model_file=Path(beside)
        )
        assert await answer(engine, ask()) and not engine.state().sees_pictures
        assert "without mmproj-model-f32.gguf, no pictures are seen" in caplog.text

    async def test_without_sight_or_with_it_turned_off_the_words_alone_are_sent(
        self, open_engine, server, seeing
    ):
        for one, vision in ((server, "on"), (seeing, "off")):
            engine = await open_engine(one.url, vision=vision)
            assert not engine.state().sees_pictures
            assert await answer(engine, replace(ask(), pictures=(CAT,)))
            assert isinstance(one.requests[-1]["prompt"], list)


async def test_the_doctor_refuses_another_program(small_base, home):
    base, file, _ = small_base
    program = LlamaProgram((sys.executable, "-c", ""), "a program")
    engine = LlamaCppEngine(base, "bfloat16", (), home, model_file=file, program=program)
    [check] = await engine.inspect()
    assert check.state == "fail" and "--cache-ram" in check.found
