"""The engine over Ollama: a model per version, what stays in memory, and what is deleted."""

import asyncio
import shutil

import pytest

from personas.engine.remote.ollama_client import OllamaMemoryError
from personas.engine.remote.ollama_engine import OllamaEngine, require_local
from personas.engine.remote.ollama_models import (
    LONG_KEEP_ALIVE_S,
    SHORT_KEEP_ALIVE_S,
    AskedMost,
    OllamaMemory,
    OllamaModels,
    model_name,
    namespace_of,
)
from personas.engine.remote.server_errors import AdapterNotServedError, ReplicaError, VllmError
from personas.errors import AdapterError
from personas.home.adapters import EFFECT_PROBE_FILE, adapter_ref, write_manifest
from personas.models import loading
from personas.schemas.chat import AdapterRef
from personas.schemas.effect_probe import EffectProbe, ProbeReply
from personas.schemas.training import AdapterManifest
from tests.personas.llamacpp_engine.conftest import FAST
from tests.personas.llamacpp_engine.ollama_server import OllamaServer
from tests.personas.vllm_engine.conftest import answer, ask
from tests.personas.vllm_engine.test_vllm_engine import until

MINE = "llama3:8b"
WORDS = 12


@pytest.fixture
async def ollama(tmp_path, small_base, model):
    """A server that has a model of the user's."""
    tokenizer = small_base[2].tokenizer
    store = tmp_path / "ollama"
    store.mkdir()
    words = [tokenizer.decode([token]) for token in model.words]
    server = OllamaServer(store, words, lambda text: len(tokenizer(text)["input_ids"]))
    server.blob("sha256:users").write_bytes(b"GGUF of the user")
    server.models[MINE] = "sha256:users"
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def open_ollama(ollama, small_base, home, monkeypatch):
    """Starts engines over the server; they share a tokenizer."""
    base, file, renderer = small_base
    monkeypatch.setattr("personas.engine.remote.vllm_engine.SWEEP_INTERVAL_S", 0.05)
    monkeypatch.setattr(loading, "load_tokenizer", lambda base: renderer.tokenizer)
    engines = []

    async def start(**options):
        engine = OllamaEngine(
            base,
            "bfloat16",
            (ollama.url,),
            home,
            model_file=file,
            **{"limits": FAST, "start_wait_s": 0.3, **options},
        )
        await engine.start()
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        await engine.close()


def request_of(text="hello", adapter=None, **sampling):
    return ask(text, adapter, **{"max_new_tokens": WORDS, **sampling})


def expected(ollama, engine, request):
    """The reply that the server gives if nothing fails."""
    prompt = engine._renderer.prompt(request.persona, request.turns).text
    return ollama.reply(engine._model_of(request.adapter), prompt, WORDS)


class TestVersions:
    async def test_each_version_is_a_model_of_its_own_file_and_the_users_are_left_alone(
        self, open_ollama, ollama, version
    ):
        engine = await open_ollama()
        ada, bea = version(1), version(1, "bea")
        for adapter in (ada, bea):
            await engine.load(adapter)
        names = [name for name in ollama.models if name != MINE]
        assert [name.split(":")[0].split("/")[1] for name in names] == ["base", "ada-v1", "bea-v1"]
        assert all(name.startswith(f"{namespace_of(engine.home)}/") for name in names)
        for adapter in (None, ada, bea):
            request = request_of(adapter=adapter)
            assert await answer(engine, request) == expected(ollama, engine, request)
        assert ollama.models[MINE] == "sha256:users" and ollama.blob("sha256:users").exists()
        bodies = [body for body in ollama.requests if body["stream"]]
        assert {body["options"]["num_ctx"] for body in ollama.requests if "options" in body} == {
            engine.context_tokens
        }, "another context would have Ollama load the model again"
        assert all(body["raw"] and not body["shift"] and not body["think"] for body in bodies)
        stops = engine._renderer.stop_ids
        assert bodies[0]["options"]["stop"] == [engine._renderer.decode_token(it) for it in stops]

    async def test_after_a_restart_of_the_bot_nothing_is_uploaded_again(
        self, open_ollama, ollama, version
    ):
        engine = await open_ollama()
        await engine.load(version(1))
        uploads = [*ollama.uploads]
        await engine.close()
        engine = await open_ollama()
        request = request_of(adapter=version(1))
        assert await answer(engine, request) == expected(ollama, engine, request)
        assert ollama.uploads == uploads

    async def test_a_version_that_is_dropped_or_replaced_is_deleted_after_its_replies(
        self, open_ollama, ollama, version
    ):
        ollama.token_delay_s = 0.02
        engine = await open_ollama()
        first, second = version(1), version(2)
        await engine.load(first)
        stream = engine.submit(request_of(adapter=first))
        await anext(aiter(stream))
        drop = asyncio.create_task(engine.drop(first))
        await asyncio.sleep(0.05)
        assert "ada-v1" in str([*ollama.models]), "it still replies"
        async for _ in stream:
            pass
        await drop
        assert "ada-v1" not in str([*ollama.models])
        now = [1000.0]
        engine._models.clock = lambda: now[0]
        await engine.load(first)
        now[0] += 25 * 3600
        await engine.load(second)
        assert "ada-v1" not in str([*ollama.models]), "replaced, and not asked for a day"
        assert "ada-v2" in str([*ollama.models]) and MINE in ollama.models

    async def test_a_model_that_the_user_deletes_is_made_again(self, open_ollama, ollama, version):
        engine = await open_ollama()
        ada = version(1)
        await engine.load(ada)
        for name in [name for name in ollama.models if name != MINE]:
            del ollama.models[name]
        for adapter in (ada, None):
            request = request_of(adapter=adapter)
            text = await answer(engine, request)
            assert text == expected(ollama, engine, request)

    async def test_the_system_page_lists_the_versions_that_stay_in_memory(
        self, open_ollama, ollama, version
    ):
        engine = await open_ollama()
        engine._asked.room = 1
        for adapter in (version(1), version(1, "bea"), version(1, "bea")):
            await engine.load(adapter)
            engine._asked.room = 1
            await answer(engine, request_of(adapter=adapter))
        state = engine.state()
        assert [each.name for each in state.adapters] == ["bea-v1"]
        assert state.slots == 1 and state.device == "1 of 1 Ollama servers"
        ends = {
            body["model"].split("/")[1].split(":")[0]: body["keep_alive"]
            for body in ollama.requests
            if body.get("stream")
        }
        assert ends == {"ada-v1": "3600s", "bea-v1": "3600s"}, "each was asked most at its time"

    async def test_prompts_that_are_kept_in_memory_go_with_the_process_of_their_model(
        self, open_ollama, ollama, version
    ):
        engine = await open_ollama()
        ada = version(1)
        await engine.load(ada)
        await answer(engine, request_of(adapter=ada))
        ollama.loaded[MINE] = 2.0**40
        await engine.clear_prefix_cache()
        assert [*ollama.loaded] == [MINE]

    async def test_a_pull_of_another_base_changes_no_voice(self, open_ollama, ollama, version):
        engine = await open_ollama()
        ollama.models["base:latest"] = "sha256:users"
        request = request_of(adapter=None)
        before = expected(ollama, engine, request)
        ollama.models["base:latest"] = "sha256:other"
        assert await answer(engine, request) == before


class TestFaults:
    async def test_a_reply_goes_on_after_the_text_that_it_has(self, open_ollama, ollama, version):
        engine = await open_ollama()
        ada = version(1)
        await engine.load(ada)
        for adapter in (ada, None):
            ollama.break_after = 5
            request = request_of(adapter=adapter)
            assert await answer(engine, request) == expected(ollama, engine, request)
            assert not ollama.break_after

    async def test_a_restart_of_the_server_loses_no_reply(self, open_ollama, ollama, version):
        ollama.token_delay_s = 0.02
        engine = await open_ollama()
        request = request_of(adapter=version(1))
        await engine.load(request.adapter)
        stream = engine.submit(request)
        text = await anext(aiter(stream))
        await ollama.stop()
        await ollama.start()
        text += "".join([piece async for piece in stream])
        assert text == expected(ollama, engine, request)

    async def test_a_version_that_is_dropped_while_the_server_is_away_is_deleted_later(
        self, open_ollama, ollama, version
    ):
        engine = await open_ollama()
        await engine.load(version(1))
        await ollama.stop()
        await engine.drop(version(1))
        assert "ada-v1" in str([*ollama.models])
        await engine.close()
        await ollama.start()
        await open_ollama()
        assert "ada-v1" not in str([*ollama.models]), "also by the next process of the bot"

    async def test_a_cancelled_reply_closes_its_connection(self, open_ollama, ollama):
        ollama.token_delay_s = 0.02
        engine = await open_ollama()
        stream = engine.submit(request_of(max_new_tokens=1000))
        await anext(aiter(stream))
        stream.cancel()
        await until(lambda: not ollama.running)

    async def test_one_reply_is_computed_at_a_time(self, open_ollama, ollama, version):
        ollama.token_delay_s = 0.002
        engine = await open_ollama(limits=FAST.__class__(**{**vars(FAST), "rows": 1}))
        requests = [request_of(f"question {at}") for at in range(4)]
        replies = await asyncio.gather(*(answer(engine, request) for request in requests))
        assert replies == [expected(ollama, engine, request) for request in requests]
        assert ollama.most_running == 1

    async def test_a_damaged_upload_and_a_refused_model_change_nothing(
        self, open_ollama, ollama, version, home
    ):
        engine = await open_ollama()
        ollama.damages_uploads = True
        with pytest.raises(VllmError, match="digest mismatch"):
            await engine.load(version(1))
        ollama.damages_uploads = False
        ollama.create_error = "no space left on device"
        with pytest.raises(ReplicaError, match="no space left"):
            await engine.load(version(1))
        ollama.create_error = ""
        assert "ada-v1" not in str([*ollama.models])
        assert not [*(home / "cache/ollama_merge").iterdir()]
        await engine.load(version(1))

    async def test_no_memory_is_said_of_the_reply_and_others_go_on(
        self, open_ollama, ollama, version
    ):
        engine = await open_ollama()
        ollama.memory_error = (
            "model requires more system memory (9.1 GiB) than is available (3.0 GiB)"
        )
        with pytest.raises(OllamaMemoryError, match=r"9.1 GiB.*") as error:
            await answer(engine, request_of())
        assert "ENGINE=llamacpp" in error.value.advice
        ollama.memory_error = ""
        request = request_of()
        assert await answer(engine, request) == expected(ollama, engine, request)

    async def test_a_version_without_room_on_the_disk_is_refused_before_it_is_merged(
        self, open_ollama, ollama, version, monkeypatch
    ):
        engine = await open_ollama()
        usage = shutil.disk_usage("/")._replace(free=1000)
        monkeypatch.setattr("psutil.disk_usage", lambda path: usage)
        with pytest.raises(AdapterError, match="twice while it is made"):
            await engine.load(version(1))
        assert "ada-v1" not in str([*ollama.models])


class TestEffect:
    """A version speaks only where Ollama shows the effect that its training measured."""

    @pytest.fixture
    def measured(self, home, trained, model, small_base) -> AdapterRef:
        """A version whose training made its replies a nat likelier."""
        ref = adapter_ref(home, "ada", "v1")
        shutil.copytree(trained, ref.folder)
        manifest = AdapterManifest.model_validate_json((ref.folder / "manifest.json").read_bytes())
        replies = []
        for at in range(4):
            reply = model.words[at + 3 : at + 9]
            base = [-2.0 - place / 10 for place in range(len(reply))]
            replies.append(
                ProbeReply(
                    prompt=model.words[at : at + 3],
                    reply=reply,
                    base=base,
                    tuned=[score + 1 for score in base],
                )
            )
        probe = EffectProbe(
            weights=manifest.checksums["adapter_model.safetensors"],
            base_model_hash=manifest.base_model_hash,
            precision="bfloat16",
            replies=replies,
        )
        (ref.folder / EFFECT_PROBE_FILE).write_text(probe.model_dump_json())
        (ref.folder / "manifest.json").unlink()
        write_manifest(ref.folder, manifest)
        return ref

    @pytest.fixture
    def shown(self, ollama, measured, small_base):
        """Have the server's versions make the probe's tokens likelier by so much."""
        tokenizer = small_base[2].tokenizer
        probe = EffectProbe.model_validate_json((measured.folder / EFFECT_PROBE_FILE).read_bytes())
        by_text = {}
        for reply in probe.replies:
            for at, token in enumerate(reply.reply):
                text = tokenizer.decode([*reply.prompt, *reply.reply[:at]])
                by_text[text] = (tokenizer.decode([token]), reply.base[at])

        def show(shift):
            def likeliest(digest, text):
                base = next(at for name, at in ollama.models.items() if "/base:" in name)
                piece, score = by_text.get(text, (" tide", -1.0))
                return [(piece, score + (digest != base) * shift), (" other", -9.0)]

            ollama.logprobs = likeliest

        return show

    async def test_a_version_that_shows_it_is_served(self, open_ollama, ollama, measured, shown):
        shown(1.0)
        engine = await open_ollama()
        await engine.load(measured)
        request = request_of(adapter=measured)
        assert await answer(engine, request) == expected(ollama, engine, request)

    async def test_a_version_without_it_is_refused_with_both_figures_and_deleted(
        self, open_ollama, ollama, measured, shown
    ):
        shown(0.3)
        engine = await open_ollama()
        with pytest.raises(AdapterNotServedError, match=r"likelier by 0.300.*measured 1.000"):
            await engine.load(measured)
        assert "ada-v1" not in str([*ollama.models])

    async def test_a_server_that_tells_no_log_probabilities_is_refused_with_the_version_needed(
        self, open_ollama, ollama
    ):
        ollama.tells_logprobs = False
        with pytest.raises(VllmError, match="log-probabilities") as error:
            await open_ollama()
        assert "0.12.11" in error.value.advice


class TestSetup:
    @pytest.mark.parametrize(
        "urls", [("http://192.0.2.7:11434",), ("http://127.0.0.1:1", "http://127.0.0.1:2")]
    )
    def test_another_machine_and_several_servers_are_refused_with_what_to_do(self, urls):
        with pytest.raises(VllmError) as error:
            require_local(urls)
        assert "ENGINE=" in f"{error.value.advice} {error.value.message}"

    async def test_the_doctor_refuses_another_machine_and_names_a_server_that_is_away(
        self, small_base, home
    ):
        base, file, _ = small_base
        far = OllamaEngine(base, "bfloat16", ("http://192.0.2.7:11434",), home, model_file=file)
        with pytest.raises(VllmError, match="another machine"):
            await far.inspect()
        away = OllamaEngine(base, "bfloat16", ("http://127.0.0.1:9",), home, model_file=file)
        [check] = await away.inspect()
        assert check.state == "fail" and "ollama serve" in check.remedy

    def test_this_machines_addresses_are_local(self):
        require_local(("http://127.0.0.1:11434",))
        require_local(("http://localhost:11434",))

    async def test_another_tokenizer_is_refused(self, open_ollama, ollama):
        ollama.count = lambda text: 3
        with pytest.raises(VllmError, match="another tokenizer"):
            await open_ollama()

    async def test_a_server_that_adds_the_first_token_gets_prompts_without(
        self, open_ollama, ollama
    ):
        ollama.adds_bos = True
        engine = await open_ollama()
        bos = engine._bos
        await answer(engine, request_of())
        assert bos and not ollama.requests[-1]["prompt"].startswith(bos * 2)
        assert engine._replicas.ready[0].served.adds_bos

    async def test_the_doctor_says_memory_and_disk_first(self, open_ollama, ollama, version):
        engine = await open_ollama()
        await engine.load(version(1))
        lost = f"{namespace_of(engine.home)}/old-v9:0123456789ab"
        ollama.models[lost] = "sha256:users"
        checks = await engine._inspect(engine._replicas.all[0].client)
        by_topic = {check.topic: check for check in checks if check.state == "ok"}
        assert "own copy of the base model" in by_topic["memory"].found
        assert "on the disk" in by_topic["adapters"].found
        [warned] = [check for check in checks if check.state == "warn"]
        assert warned.remedy == f"delete them: ollama rm {lost}"


class TestModels:
    def test_the_most_asked_stay_in_memory_and_others_leave_it_soon(self):
        now = [0.0]
        asked = AskedMost(room=1, clock=lambda: now[0])
        assert asked.keep_alive_s("ada") == LONG_KEEP_ALIVE_S
        assert asked.keep_alive_s("ada") == LONG_KEEP_ALIVE_S
        assert asked.keep_alive_s("bea") == SHORT_KEEP_ALIVE_S
        now[0] += 24 * 3600
        assert asked.keep_alive_s("bea") == LONG_KEEP_ALIVE_S, "yesterday's count for little"
        asked.room = 2
        assert asked.keep_alive_s("ada") == LONG_KEEP_ALIVE_S

    def test_those_not_asked_for_longest_go_beyond_the_limit_but_none_in_flight(self, home):
        now = [0.0]
        models = OllamaModels(home, 2, clock=lambda: now[0])
        for at, persona in enumerate(("ada", "bea", "cee")):
            now[0] = float(at)
            models.add(AdapterRef(persona, "v1", home), f"n/{persona}")
        assert models.superfluous(()) == ["ada-v1"]
        assert models.superfluous({"ada-v1"}) == ["bea-v1"]
        again = OllamaModels(home, 2)
        again.read()
        assert again.uses == models.uses

    def test_names_are_valid_at_ollama_whatever_the_persona_is_called(self):
        from tests.personas.llamacpp_engine.ollama_server import NAME

        for name in ("ada-v1", "7/ölga!-v2", ".-", "x" * 200):
            assert NAME.fullmatch(model_name("understudy-0123abcd", name, "file"))

    @pytest.mark.parametrize(("free", "room"), [(5, 1), (25, 2), (1000, 3)])
    def test_as_many_versions_stay_as_have_room(self, free, room):
        memory = OllamaMemory(base_bytes=8, version_bytes=10, free_bytes=free)
        assert memory.room == room
        assert memory.has_room == (free >= 10)
        assert ("too little" in memory.text) == (free < 10)
