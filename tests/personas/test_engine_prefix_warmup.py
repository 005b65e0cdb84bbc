"""Prefixes computed in advance: in chunks, correct, and never delaying a request."""

from types import SimpleNamespace

import pytest
import torch

from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.kv_cache import BLOCK_TOKENS
from personas.engine.llm_engine import LLMEngine, default_prefix_bytes
from personas.engine.prefix_warmer import (
    CHUNK_TOKENS_BESIDE_REPLIES,
    MAX_QUEUED_PREFIXES,
    MAX_QUEUED_TALKS,
    PrefixWarmer,
)
from personas.schemas.chat import AdapterRef, ChatRequest, LoreHit, Persona, SamplingParams, Turn
from tests.personas.engine_reference import RecordedReply, ReferenceModel, differences, run_to_end

ADA = Persona(
    "ada",
    "Ada",
    description="You are Ada, who keeps the lamps of the harbour lit.",
    personality="Plain.",
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny_base):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield ReferenceModel(
        tmp_path_factory.mktemp("reference"), tiny_base, torch.float64, adapters=2, prompts=5
    )
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
        parts.stacked,
        "forward",
        lambda spans: lengths.extend(len(s.tokens) for s in spans) or forward(spans),
    )
    return lengths


def test_a_prompt_that_was_prepared_is_computed_from_there_on_and_is_right(reference, monkeypatch):
    ref = reference.refs[0]
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
    assert sum(lengths) == len(other.prompt) + 5 and differences([recorded]) == (0, []), (
        "nothing else was computed"
    )
    lengths.clear()
    idle(parts)
    parts.close()
    assert (
        sum(lengths) >= (len(one.prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS - 2 * BLOCK_TOKENS > 0
    )


def test_what_is_kept_already_is_never_pushed_out_by_it(reference):
    parts = reference.parts(SchedulerLimits(), 2, 40_000)
    question = longest(reference, None)
    parts.batch.scheduler.add(RecordedReply(question, 2).sequence())
    run_to_end(parts)
    before = dict(parts.stacked.prefixes._blocks)
    parts.batch.warmer.add(reference.refs[0], question.prompt * 3)
    idle(parts)
    parts.close()
    assert before and dict(parts.stacked.prefixes._blocks) == before and not parts.batch.warmer.jobs


def test_a_talk_replaces_what_was_used_least_recently(reference):
    one, other = (longest(reference, ref) for ref in reference.refs)
    block = (
        reference.parts(SchedulerLimits(), 1, 0).stacked.new_kv_cache(BLOCK_TOKENS).memory.nbytes
    )
    parts = reference.parts(SchedulerLimits(), 2, (len(other.prompt) // BLOCK_TOKENS + 1) * block)
    for question in (one, other):
        parts.batch.warmer.add(question.adapter, question.prompt, is_talk=True)
        idle(parts)
    names = [key[0] for key in parts.stacked.prefixes._blocks]
    parts.batch.warmer.add(one.adapter, one.prompt * 3, is_talk=True)
    idle(parts, steps=9)
    parts.close()
    assert (
        names.count(other.adapter.name)
        == (len(other.prompt) - 1) // BLOCK_TOKENS
        > names.count(one.adapter.name)
    )
    assert not parts.batch.warmer.jobs, "what the cache cannot hold is left out"


def test_beside_replies_that_have_begun_talks_are_prepared_in_short_pieces(reference, monkeypatch):
    parts = reference.parts(SchedulerLimits(prefill_tokens=100), 2, 10**8)
    reply = longest(reference, None)
    talk = longest(reference, reference.refs[0])
    recorded = RecordedReply(reply, 12)
    parts.lora._reader.submit(
        parts.batch.warmer.add, talk.adapter, talk.prompt * 3, is_talk=True
    ).result()
    parts.batch.warmer.add(None, [5] * 200)  # a persona's: it waits until nothing else runs
    parts.batch.scheduler.add(recorded.sequence())
    lengths = computed_of(parts, monkeypatch)
    by_step = []
    while parts.batch.running or parts.batch.waiting:
        lengths.clear()
        parts.batch.step()
        by_step.append(tuple(lengths))
        parts.lora._reader.submit(lambda: None).result()
    assert by_step[0] == (len(reply.prompt), 1), "nothing beside a prompt"
    beside = [step[1:] for step in by_step[1:] if len(step) > 1]
    assert beside and all(step == (CHUNK_TOKENS_BESIDE_REPLIES,) for step in beside[:-1])
    assert sum(map(sum, beside)) == (len(talk.prompt) * 3 - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    assert len(parts.batch.warmer.jobs) == 1 and differences([recorded]) == (0, [])
    parts.close()


@pytest.mark.parametrize("busy", ["many rows", "somebody waits", "a request has come"])
def test_a_talk_waits_while_the_engine_has_no_time(reference, monkeypatch, busy):
    rows = 1 if busy == "somebody waits" else 4
    limits = SchedulerLimits(
        rows=rows, overflow_rows=0, candidate_rows=1 if busy == "many rows" else 4
    )
    parts = reference.parts(limits, 2, 10**8)
    parts.batch.has_arrivals = lambda: busy == "a request has come"
    question = longest(reference, None)
    for _ in range(2):
        parts.batch.scheduler.add(RecordedReply(question, 8).sequence())
    parts.batch.step()
    parts.batch.warmer.add(None, [7] * 60, is_talk=True)
    lengths = computed_of(parts, monkeypatch)
    parts.batch.step()
    assert lengths and max(lengths) < BLOCK_TOKENS, "a token of every reply"
    run_to_end(parts)
    idle(parts)
    parts.close()
    assert not parts.batch.warmer.jobs


def test_what_cannot_be_prepared_is_let_go_of(reference, tmp_path, caplog):
    caplog.set_level("INFO")
    parts = reference.parts(SchedulerLimits(), 2, 10**8)
    parts.batch.warmer.add(AdapterRef("p", "v9", tmp_path / "nowhere"), range(40))
    parts.batch.warmer.add(None, range(40))
    idle(parts)
    parts.close()
    assert "was not computed" in caplog.text and parts.stacked.prefixes.bytes > 0
    assert not parts.batch.warmer.jobs


def test_nothing_is_prepared_for_an_adapter_that_was_dropped(reference):
    parts = reference.parts(SchedulerLimits(), 2, 10**8)
    kept, dropped = reference.refs
    for ref in reference.refs:
        for is_talk in (True, False):
            parts.batch.warmer.add(ref, [int(is_talk)] * 40, is_talk=is_talk)
    parts.drop_adapter(dropped, lambda: None)
    idle(parts)
    parts.close()
    assert {key[0] for key in parts.stacked.prefixes._blocks} == {kept.name}
    assert dropped.name not in {adapter.name for adapter in parts.lora.resident}


def test_neither_what_runs_nor_what_waits_is_stored_after_the_cache_was_cleared(reference):
    parts = reference.parts(SchedulerLimits(rows=1, overflow_rows=0), 2, 10**8)
    recorded = [RecordedReply(longest(reference, None), 3) for _ in range(2)]
    for one in recorded:
        parts.batch.scheduler.add(one.sequence())
    parts.batch.step()
    assert (parts.batch.running, parts.batch.waiting) == (1, 1)
    parts.batch.clear_prefix_cache()
    run_to_end(parts)
    parts.close()
    assert not parts.stacked.prefixes.bytes and differences(recorded) == (0, [])


def test_the_same_is_prepared_once_and_no_more_than_a_bounded_number_wait(reference):
    parts = reference.parts(SchedulerLimits(), 2, 10**8)
    ahead = PrefixWarmer(parts.stacked, parts.lora, 16)
    for number in range(MAX_QUEUED_PREFIXES + 9):
        for _ in range(2):
            ahead.add(None, [number] * 40)
    assert len(ahead.jobs) == MAX_QUEUED_PREFIXES
    for number in range(MAX_QUEUED_TALKS + 3):
        for _ in range(2):
            ahead.add(None, [number] * 50, is_talk=True)
    talks = ahead.jobs[:MAX_QUEUED_TALKS]
    personas = ahead.jobs[MAX_QUEUED_TALKS:]
    assert [job.tokens[0] for job in talks] == [*range(MAX_QUEUED_TALKS + 2, 2, -1)] and all(
        it.is_talk for it in talks
    )
    assert len(personas) == MAX_QUEUED_PREFIXES, "talks come first, and take nobody's place"
    ahead.clear()
    parts.close()
    assert not ahead.step()


def test_all_prompts_of_a_persona_begin_with_its_beginning(renderer):
    begins = renderer.common_prefix(ADA, 2048)
    assert "lamps of the harbour" in renderer.tokenizer.decode(begins)
    for turns in (
        [Turn("Cy", "so?")],
        [Turn("Dot", "well"), Turn("Ada", "Yes.", True), Turn("Dot", "no")],
    ):
        assert renderer.prompt(ADA, turns).ids[: len(begins)] == begins


def test_the_next_prompt_of_a_talk_begins_with_what_was_prepared(renderer):
    card = Persona(
        "ada",
        "Ada",
        description="You are Ada. {{user}} is your guest.",
        post_history_instructions="Be brief.",
    )
    talk = [
        Turn("Dot", "is it late?"),
        Turn("Ada", "Past nine, and the lamps are lit.", True),
        Turn("Cy", ""),
    ]
    prefix = renderer.common_prefix(card, 2048, talk)
    assert "lamps are lit" in renderer.tokenizer.decode(prefix)
    for words in ("so?", "Well, how many lamps are there?"):
        prompt = renderer.prompt(card, [*talk[:-1], Turn("Cy", words)])
        assert prompt.ids[: len(prefix)] == prefix and len(prompt.ids) > len(prefix)
        lore = (LoreHit("a.md", "Lamps", "There are nine lamps.", 1.0),)
        prompt = renderer.prompt(card, [*talk[:-1], Turn("Cy", words)], lore)
        assert prompt.ids[: len(prefix) - 4] == prefix[:-4], "lore comes before the name"


async def test_a_talk_that_was_prepared_is_computed_from_its_last_message_on(
    tiny_base, monkeypatch
):
    engine = LLMEngine(tiny_base, "float32")
    await engine.start()
    lengths = computed_of(engine._parts, monkeypatch)
    talk = [Turn("Bo", "is it late?" * 9), Turn("Ada", "Past nine. " * 20, True), Turn("Bo", "")]
    engine.prepare(ADA, None, talk)
    while not engine._parts.stacked.prefixes.bytes or engine._parts.batch.warmer.jobs:
        await engine._run(lambda: None)
    ahead = sum(lengths)
    lengths.clear()
    stream = engine.submit(
        ChatRequest(ADA, (*talk[:-1], Turn("Bo", "hello")), (), None, sampling())
    )
    assert [piece async for piece in stream]
    await engine.close()
    assert ahead > 100 and sum(lengths) < 60


def sampling():
    return SamplingParams(temperature=0, repetition_penalty=1, max_new_tokens=8)


@pytest.mark.parametrize(("device", "memory_gib", "cache_mib"), [
    ("cpu", 2, 256), ("cpu", 12, 512), ("cpu", 96, 1024), ("cuda", 96, 256),
])  # fmt: skip
def test_the_prefix_cache_takes_a_share_of_the_memory_on_cpus(
    device, memory_gib, cache_mib, monkeypatch
):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=memory_gib * 2**30))
    assert default_prefix_bytes(device) == cache_mib * 2**20
