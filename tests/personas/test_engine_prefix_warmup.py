"""Prefixes computed in idle time: in chunks, correct, and never delaying a request."""

from types import SimpleNamespace

import pytest
import torch

from personas.engine.admission import SchedulerLimits
from personas.engine.engine_core import MAX_QUEUED_PREFIXES, PrefixWarmer
from personas.engine.kv_cache import BLOCK_TOKENS
from personas.engine.llm_engine import LLMEngine, default_prefix_bytes
from personas.schemas.chat import AdapterRef, ChatRequest, Persona, SamplingParams, Turn
from tests.personas.engine_reference import RecordedReply, ReferenceModel, differences, run_to_end

ADA = Persona("ada", "Ada", description="You are Ada, who keeps the lamps of the harbour lit.", personality="Plain.")


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny_base):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield ReferenceModel(tmp_path_factory.mktemp("reference"), tiny_base, torch.float64, adapters=2, prompts=5)
    torch.set_num_threads(before)


def longest(reference, ref):
    return max((q for q in reference.questions if q.adapter == ref), key=lambda q: len(q.prompt))


def idle(parts, steps=200):
    """Step until nothing more is computed; an adapter may have to be read first."""
    still = 0
    for _ in range(steps):
        still = 0 if parts.batch.step() else still + 1
        if still:
            parts.lora._reader.submit(lambda: None).result()  # waits for pending reads
        if still == 3:
            return


def computed_of(parts, monkeypatch):
    lengths: list[int] = []
    forward = parts.stacked.forward
    monkeypatch.setattr(
        parts.stacked, "forward", lambda spans: lengths.extend(len(s.tokens) for s in spans) or forward(spans)
    )
    return lengths


@pytest.mark.parametrize("at", [0, 1])
def test_a_prompt_that_was_prepared_is_computed_from_there_on_and_is_right(reference, monkeypatch, at):
    ref = (None, reference.refs[0])[at]
    question = longest(reference, ref)
    parts = reference.parts(SchedulerLimits(prefill_tokens=BLOCK_TOKENS + 3), 2, 10**8)
    parts.batch.warmer.add(ref, question.prompt)
    lengths = computed_of(parts, monkeypatch)
    idle(parts)
    whole = (len(question.prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    assert len(lengths) > 1 and max(lengths) <= BLOCK_TOKENS + 3 and not parts.batch.step()
    lengths.clear()
    recorded = RecordedReply(question, 5)
    parts.batch.scheduler.add(recorded.sequence())
    run_to_end(parts)
    parts.close()
    assert sum(lengths) == len(question.prompt) - whole + 4 and differences([recorded]) == (0, [])


def test_it_gives_way_to_whoever_asks(reference, monkeypatch):
    parts = reference.parts(SchedulerLimits(prefill_tokens=BLOCK_TOKENS), 1, 10**8)
    one, other = (longest(reference, ref) for ref in reference.refs)
    parts.batch.warmer.add(one.adapter, one.prompt)
    while not parts.batch.step():
        pass  # until its adapter has been read and its first chunk computed
    recorded = RecordedReply(other, 6)
    parts.batch.scheduler.add(recorded.sequence())  # the only slot was the other's
    lengths = computed_of(parts, monkeypatch)
    while not recorded.ends:
        parts.batch.step()
    assert sum(lengths) == len(other.prompt) + 5 and differences([recorded]) == (0, []), "nothing else was computed"
    lengths.clear()
    idle(parts)
    parts.close()
    assert sum(lengths) >= (len(one.prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS - 2 * BLOCK_TOKENS > 0


def test_what_is_kept_already_is_never_pushed_out_by_it(reference):
    parts = reference.parts(SchedulerLimits(), 2, 40_000)
    question = longest(reference, None)
    parts.batch.scheduler.add(RecordedReply(question, 2).sequence())
    run_to_end(parts)
    before = dict(parts.stacked.prefixes._blocks)
    parts.batch.warmer.add(reference.refs[0], question.prompt * 3)
    idle(parts)
    parts.close()
    assert before and dict(parts.stacked.prefixes._blocks) == before and not parts.batch.warmer.queue


def test_what_cannot_be_prepared_is_let_go_of(reference, tmp_path, caplog):
    caplog.set_level("INFO")
    parts = reference.parts(SchedulerLimits(), 2, 10**8)
    parts.batch.warmer.add(AdapterRef("p", "v9", tmp_path / "nowhere"), range(40))
    parts.batch.warmer.add(None, range(40))
    idle(parts)
    parts.close()
    assert "was not computed" in caplog.text and parts.stacked.prefixes.bytes > 0
    assert not parts.batch.warmer.queue


def test_the_same_is_prepared_once_and_no_more_than_a_bounded_number_wait(reference):
    parts = reference.parts(SchedulerLimits(), 2, 10**8)
    ahead = PrefixWarmer(parts.stacked, parts.lora, 16)
    for number in range(MAX_QUEUED_PREFIXES + 9):
        for _ in range(2):
            ahead.add(None, [number] * 40)
    assert len(ahead.queue) == MAX_QUEUED_PREFIXES
    ahead.queue.clear()
    parts.close()
    assert not ahead.step()


def test_all_prompts_of_a_persona_begin_with_its_beginning(renderer):
    begins = renderer.common_prefix(ADA, 2048)
    assert "lamps of the harbour" in renderer.tokenizer.decode(begins)
    for turns in ([Turn("Cy", "so?")], [Turn("Dot", "well"), Turn("Ada", "Yes.", True), Turn("Dot", "no")]):
        assert renderer.prompt(ADA, turns).ids[: len(begins)] == begins


async def test_the_engine_answers_with_what_was_prepared_as_without(tiny_base):
    said = []
    for prepared in (False, True):
        engine = LLMEngine(tiny_base, "float32")
        await engine.start()
        if prepared:
            engine.prepare(ADA, None)
            await engine._run(lambda: None)
            while not engine._parts.stacked.prefixes.bytes:
                await engine._run(lambda: None)
        stream = engine.submit(ChatRequest(ADA, (Turn("Bo", "hello"),), (), None, sampling()))
        said.append([piece async for piece in stream])
        await engine.close()
    assert said[0] == said[1]


def sampling():
    return SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=8)


@pytest.mark.parametrize(("device", "memory_gib", "cache_mib"), [
    ("cpu", 2, 256), ("cpu", 12, 512), ("cpu", 96, 1024), ("cuda", 96, 256),
])  # fmt: skip
def test_the_prefix_cache_takes_a_share_of_the_memory_on_cpus(device, memory_gib, cache_mib, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=memory_gib * 2**30))
    assert default_prefix_bytes(device) == cache_mib * 2**20
