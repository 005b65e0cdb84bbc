"""The engine's state, and the metrics of each request however it ends."""

import shutil

import pytest

from personas.engine.llm_engine import LLMEngine
from personas.errors import AdapterError
from personas.schemas.chat import ChatRequest, Persona, SamplingParams, Turn
from tests.fakes import until
from tests.tiny_models import make_adapter

ADA = Persona("ada", "Ada", description="You are Ada.")
SHORT = SamplingParams(temperature=0.0, max_new_tokens=6, stop_loops=False)


def ask(adapter=None, sampling=SHORT) -> ChatRequest:
    return ChatRequest(ADA, (Turn("Bo", "hello there"),), (), adapter, sampling)


@pytest.fixture
async def metrics():
    """Metrics of the requests that ended."""
    return []


@pytest.fixture
async def engine(tiny_base, metrics):
    engine = LLMEngine(tiny_base, "float32", rows=2, slots=3, on_reply=metrics.append)
    await engine.start()
    yield engine
    await engine.close()


async def test_it_says_what_it_serves_and_what_it_holds(engine, metrics, tiny_base, tmp_path):
    before = engine.state()
    assert (before.model, before.device, before.precision) == (tiny_base.name, "cpu", "float32")
    assert (before.running, before.waiting, before.rows, before.slots) == (0, 0, 2, 3)
    assert before.adapters == () and before.kept_bytes == 0 < before.kept_most_bytes
    adapter = make_adapter(tmp_path, tiny_base, "ada", "v1", seed=1)
    long = SamplingParams(temperature=0.0, max_new_tokens=400, stop_loops=False)
    streams = [engine.submit(ask(adapter, long)) for _ in range(3)]
    async for _ in streams[0]:
        now = engine.state()
        if now.waiting:
            break
    assert (now.running, now.waiting) == (2, 1)
    assert [(held.name, held.replies, held.in_slot) for held in now.adapters] == [
        ("ada-v1", 2, True)
    ]
    for stream in streams:
        stream.cancel()
    await until(lambda: len(metrics) == 3)
    after = engine.state()
    assert (
        (after.running, after.waiting) == (0, 0)
        and after.adapters[0].replies == 0
        and after.kept_bytes > 0
    )


async def test_each_request_is_reported_of_once_however_it_ends(
    engine, metrics, tiny_base, tmp_path
):
    stream = engine.submit(ask())
    pieces = [piece async for piece in stream]
    await until(lambda: metrics)
    (one,) = metrics
    assert one.finish == stream.reply.finish and one.new_tokens == stream.reply.new_tokens == 6
    assert one.prompt_tokens == stream.reply.prompt_tokens > 0
    assert bool(pieces) == (one.first_s is not None)
    assert 0 < (one.first_s or 0.001) <= one.whole_s

    metrics.clear()
    damaged = make_adapter(tmp_path, tiny_base, "ada", "v2", seed=2)
    shutil.rmtree(damaged.folder)
    with pytest.raises(AdapterError):
        [piece async for piece in engine.submit(ask(damaged))]
    stopped = engine.submit(ask(sampling=SamplingParams(max_new_tokens=400)))
    stopped.cancel()
    [piece async for piece in stopped]
    await until(lambda: len(metrics) == 2)
    assert sorted(it.finish for it in metrics) == ["cancelled", "failed"]
