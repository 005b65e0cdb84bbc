"""A vLLM server of the bot's own: from its start to a reply, after a crash, and on a card that a
training shares.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from personas.engine.remote import card_sharing_engine, server_process, vllm_engine
from personas.engine.remote.card_sharing_engine import CardSharingEngine
from personas.engine.remote.local_vllm_engine import LocalVllmEngine
from personas.engine.remote.server_process import ServerStartError
from personas.engine.remote.vllm_command import (
    ENVIRONMENT_FOLDER,
    READY_FILE,
    NoVllmError,
    environment_python,
    find_vllm,
    rank_option,
)
from personas.engine.remote.vllm_memory import SPARE_BYTES, VllmMemory, place_on_card
from personas.errors import NoMemoryError
from personas.models import loading
from personas.models.graphics_cards import Gpu
from tests.fakes import until
from tests.personas.vllm_engine.conftest import FAST, answer, ask, undisturbed
from tests.personas.vllm_engine.own_vllm import OwnVllm
from tests.personas.vllm_engine.server import VllmServer

GIB = 2**30


@pytest.fixture
def own(tmp_path, monkeypatch) -> OwnVllm:
    return OwnVllm.in_folder(tmp_path, monkeypatch)


@pytest.fixture
async def open_own(
    tiny_base, renderer, own, home, monkeypatch
) -> AsyncIterator[Callable[..., Any]]:
    """Starts engines with a server of their own."""
    monkeypatch.setattr(vllm_engine, "SWEEP_INTERVAL_S", 0.05)
    monkeypatch.setattr(server_process, "POLL_INTERVAL_S", 0.05)
    monkeypatch.setattr(server_process, "FIRST_BACKOFF_S", 0.05)
    monkeypatch.setattr(loading, "load_tokenizer", lambda base: renderer.tokenizer)
    engines: list[LocalVllmEngine] = []

    async def start(**options: Any) -> LocalVllmEngine:
        engine = LocalVllmEngine(
            tiny_base,
            "bfloat16",
            (),
            home,
            program=own.program,
            **{"cards": own.cards, "limits": FAST, "start_wait_s": 5.0, **options},
        )
        await engine.start()
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        await engine.close()


@pytest.fixture
def reference(tiny_base, renderer) -> VllmServer:
    """Tells what the server replies; it is not started."""
    return VllmServer(tiny_base.source, renderer.tokenizer)


async def test_from_its_start_to_a_reply_of_a_version(open_own, own, version, reference, renderer):
    engine = await open_own()
    assert await answer(engine, ask()) == undisturbed(reference, renderer, ask())
    ref = version(1)
    await engine.load(ref)
    request = ask(adapter=ref)
    assert await answer(engine, request) == undisturbed(reference, renderer, request)
    options = own.options()[-1]
    assert options["module"] == "vllm.entrypoints.openai.api_server"
    assert (options["max_num_seqs"], options["max_loras"]) == (FAST.rows, FAST.adapters)
    assert options["enable_lora"] and not options["enable_sleep_mode"]
    assert engine.device == "cpu"
    guard = psutil.Process(engine._server.pid)
    server = guard.children()[0]
    await engine.close()
    assert not guard.is_running() and not server.is_running()


async def test_a_server_that_does_not_start_says_why(open_own, own):
    own.set(refuses="RuntimeError: no kernel image for this card")
    with pytest.raises(ServerStartError, match="no kernel image for this card") as error:
        await open_own()
    assert "logs/vllm.log" in error.value.advice and "VLLM_PYTHON" in error.value.advice


async def test_the_doctor_says_how_it_would_be_started(tiny_base, own, home):
    own.set_card(24 * GIB)
    engine = LocalVllmEngine(tiny_base, "bfloat16", (), home, program=own.program, cards=own.cards)
    model, adapters = await engine.inspect()
    assert model.state == adapters.state == "ok" and not own.starts.exists()
    assert "on the card" in model.found and "weights in 16 bits" in model.found
    own.set_card(24 * GIB, other=23 * GIB)
    engine = LocalVllmEngine(tiny_base, "bfloat16", (), home, program=own.program, cards=own.cards)
    (problem,) = await engine.inspect()
    assert problem.state == "fail" and "1.0 GiB are free" in problem.found


def test_the_program_is_the_settings_or_the_installed_one(tmp_path):
    with pytest.raises(NoVllmError, match="has installed no vLLM") as error:
        find_vllm("", tmp_path)
    for way in ("bot vllm install", "VLLM_PYTHON", "ENGINE_URLS"):
        assert way in error.value.advice
    with pytest.raises(NoVllmError, match="VLLM_PYTHON is /nowhere/python"):
        find_vllm("/nowhere/python", tmp_path)
    python = environment_python(tmp_path)
    python.parent.mkdir(parents=True)
    python.touch()
    with pytest.raises(NoVllmError):  # the installation was broken off
        find_vllm("", tmp_path)
    (tmp_path / ENVIRONMENT_FOLDER / READY_FILE).touch()
    assert find_vllm("", tmp_path).python == python
    assert find_vllm(sys.executable, tmp_path).python == Path(sys.executable)
    assert [rank_option(rank) for rank in (0, 64, 65, 1000)] == [64, 64, 128, 512]


def test_a_place_on_the_card_is_in_16_bits_else_in_nf4_else_there_is_none():
    card = Gpu("a card", "1", 8.0, memory_bytes=24 * GIB, free_bytes=24 * GIB)
    memory = VllmMemory(
        weight_bytes=6 * GIB,
        packed_bytes=2 * GIB,
        lora_bytes=GIB,
        kv_bytes=4 * GIB,
        least_kv_bytes=GIB,
    )

    def place(free_gib: float, packs: bool = False) -> Any:
        return place_on_card(card, memory, free_bytes=round(free_gib * GIB), packs=packs)

    whole = place(24)
    assert not whole.packs and whole.share == pytest.approx(13 / 24)
    close = place(10.5)
    assert not close.packs and close.share == pytest.approx((10.5 * GIB - SPARE_BYTES) / (24 * GIB))
    assert place(10.4).packs and place(24, packs=True).share == pytest.approx(9 / 24)
    assert place(6.4) is None


async def test_on_a_card_the_server_sleeps_while_a_training_needs_it(
    open_own, own, reference, renderer
):
    own.set_card(24 * GIB)
    own.set(token_delay_s=0.01)
    server = await open_own()
    held = own.held_bytes
    assert server.device == "cuda" and 0 < held < 0.9 * 24 * GIB
    spare = await open_own(cards=list)
    engine = CardSharingEngine(server, lambda: Started(spare))
    running = engine.submit(ask(max_new_tokens=60))
    moving = asyncio.create_task(engine.move("cpu"))
    await until(lambda: engine.device == "cpu")
    meanwhile = engine.submit(ask("and you?"))
    for stream, request in (
        (running, ask(max_new_tokens=60)),
        (meanwhile, ask("and you?")),
    ):
        text = "".join([piece async for piece in stream])
        assert text == undisturbed(reference, renderer, request)
    await moving
    assert own.held_bytes == 0
    await answer(engine, ask("still there?"))
    last = engine.submit(ask("a last one"))
    assert engine.state().waiting == 1, "also before its prompt is rendered"
    back = asyncio.create_task(engine.move("cuda"))
    assert "".join([piece async for piece in last])
    await back
    assert engine.device == "cuda" and own.held_bytes == held
    await answer(engine, ask())


async def test_a_server_that_is_killed_asleep_takes_no_memory_until_the_card_is_free(
    open_own, own, reference, renderer
):
    own.set_card(24 * GIB)
    server = await open_own(wait_s=30.0)
    held = own.held_bytes
    engine = CardSharingEngine(server, IdleEngine)
    await engine.move("cpu")
    starts = len(own.options())
    own.kill()
    await until(lambda: server._server.crashes)
    await asyncio.sleep(0.3)  # more than the pause before a start
    assert len(own.options()) == starts and own.held_bytes == 0
    await until(lambda: not server._replicas.ready)
    server._replicas.all[0].retry_at = math.inf  # its backoff has grown long meanwhile
    await engine.move("cuda")
    assert engine.device == "cuda" and own.held_bytes == held
    assert server._replicas.ready, "a promotion in this moment would find no server"
    assert await answer(engine, ask()) == undisturbed(reference, renderer, ask())


async def test_a_server_that_cannot_sleep_is_ended_and_one_that_cannot_wake_is_started_again(
    open_own, own, reference, renderer, monkeypatch
):
    own.set_card(24 * GIB)
    own.set(cannot_sleep=True)
    monkeypatch.setattr(card_sharing_engine, "RETURN_INTERVAL_S", 0.2)
    server = await open_own(wait_s=30.0)
    held = own.held_bytes
    engine = CardSharingEngine(server, IdleEngine)
    await engine.move("cpu")
    assert engine.device == "cpu" and own.held_bytes == 0
    own.fill_card(GIB)  # by a training that has not ended yet
    with pytest.raises(NoMemoryError, match=r"even in NF4; 1\.0 GiB are free"):
        await engine.move("cuda")
    assert engine.device == "cpu"
    own.fill_card(24 * GIB)
    await until(lambda: engine.device == "cuda", 20)
    assert own.held_bytes == held
    assert await answer(engine, ask()) == undisturbed(reference, renderer, ask())


class IdleEngine:
    """An engine on the processor that nobody asks."""

    running = waiting = 0

    async def start(self) -> None:
        return

    def state(self) -> IdleEngine:
        return self

    async def close(self) -> None:
        return


class Started:
    """An engine that has been started."""

    def __init__(self, engine: LocalVllmEngine) -> None:
        self._engine = engine

    async def start(self) -> None:
        return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


async def test_on_a_smaller_place_the_weights_are_packed_and_no_reply_is_lost(
    open_own, own, reference, renderer
):
    own.set_card(24 * GIB)
    own.set(token_delay_s=0.02)
    engine = await open_own(wait_s=30.0)
    before = engine._held_bytes()
    stream = engine.submit(ask(max_new_tokens=40))
    pieces = aiter(stream)
    text = await anext(pieces)
    await engine.repack(packs=True, reserved_bytes=16 * GIB)
    text += "".join([piece async for piece in pieces])
    assert text == undisturbed(reference, renderer, ask(max_new_tokens=40))
    options = own.options()[-1]
    assert options["quantization"] == "bitsandbytes"
    assert engine._held_bytes() <= before and engine.packing_frees() == 0
    with pytest.raises(NoMemoryError, match=r"even in NF4; 1\.0 GiB are free"):
        await engine.repack(packs=True, reserved_bytes=23 * GIB)
    await engine.repack(packs=False)
    assert own.options()[-1]["quantization"] is None and engine._held_bytes() == before
