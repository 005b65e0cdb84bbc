"""Moves to another device and back: no reply is lost or changed, and the old model is freed."""

import asyncio
import gc
import weakref

import pytest

from personas.engine import llm_engine
from personas.engine.llm_engine import LLMEngine
from personas.errors import BaseModelError
from personas.models import serving_model
from personas.schemas.chat import ChatRequest, Persona, SamplingParams, Turn
from tests.fakes import until
from tests.tiny_models import make_adapter

ADA = Persona("ada", "Ada", description="You are Ada.")
LONG = SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=80, stop_loops=False)


@pytest.fixture
async def engine(tiny_base, monkeypatch):
    """Start an engine whose GPU is the CPU by another name."""
    monkeypatch.setattr(
        llm_engine,
        "load_serving_model",
        lambda base, precision, device: serving_model.load_serving_model(base, precision, "cpu"),
    )
    engine = LLMEngine(tiny_base, "float32", rows=2)
    await engine.start()
    yield engine
    await engine.close()


def ask(text, adapter=None):
    return ChatRequest(ADA, (Turn("Bo", text),), (), adapter, LONG)


async def said(stream):
    return "".join([piece async for piece in stream])


async def test_what_runs_ends_what_waits_begins_and_nothing_changes(engine, tiny_base, tmp_path):
    refs = [
        None,
        make_adapter(tmp_path, tiny_base, "ada", "v1", seed=1),
        make_adapter(tmp_path, tiny_base, "ada", "v2", 2),
    ]
    asked = [ask("hello", ref) for ref in refs]
    expected = [await said(engine.submit(one)) for one in asked]
    for device in ("cuda", "cpu"):
        streams = [engine.submit(one) for one in asked]  # two run, one waits
        moved = asyncio.ensure_future(engine.move(device))
        assert [await said(stream) for stream in streams] == expected
        await moved
        assert engine.device == device and engine._draining is None
        assert await said(engine.submit(asked[1])) == expected[1]
    parts = engine._parts
    await engine.move("cpu")
    assert engine._parts is parts, "it is there already"
    await engine.drop(refs[1])
    await engine.clear_prefix_cache()


async def test_the_old_place_is_let_go_of_when_its_last_reply_has_ended(engine):
    model = weakref.ref(engine._parts.peft.model)
    running = engine.submit(ask("hello"))
    pieces = aiter(running)
    await anext(pieces)
    moved = asyncio.ensure_future(engine.move("cuda"))
    _ = [piece async for piece in running]
    await moved
    assert running.reply.new_tokens > 1
    try:  # collecting does nothing while another thread collects
        await until(lambda: gc.collect() >= 0 and model() is None)
    except TimeoutError:
        pytest.fail(f"held by {[repr(holder)[:300] for holder in gc.get_referrers(model())]}")


async def test_a_place_that_cannot_be_used_changes_nothing(engine, monkeypatch):
    def fail(*_):
        raise BaseModelError("There is no room.", "Free some.")

    before = await said(engine.submit(ask("hello")))
    with monkeypatch.context() as patch:
        patch.setattr(llm_engine, "load_serving_model", fail)
        with pytest.raises(BaseModelError, match="no room"):
            await engine.move("cuda")
    assert engine.device == "cpu" and await said(engine.submit(ask("hello"))) == before


async def test_closing_amid_a_move_ends_what_ran(engine):
    running = engine.submit(ask("hello"))
    await anext(aiter(running))
    moved = asyncio.ensure_future(engine.move("cuda"))
    await asyncio.sleep(0)
    await engine.close()
    _ = [piece async for piece in running]
    assert running.reply.finish in ("cancelled", "length")
    await moved
