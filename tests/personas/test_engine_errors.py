"""An error of one request ends that request alone, in whichever step it happens."""

from dataclasses import replace

import pytest
import torch

from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.llm_engine import LLMEngine
from personas.errors import AdapterError, NoMemoryError
from personas.prompt.renderer import PromptTooLongError
from personas.schemas.chat import AdapterRef
from tests.personas.engine_reference import RecordedReply, ReferenceModel, differences, run_to_end
from tests.personas.test_engine import GREEDY, answer, ask

SLOTS = 4
ATTEMPTS = 12


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny_base):
    return ReferenceModel(
        tmp_path_factory.mktemp("reference"), tiny_base, torch.float64, adapters=2, prompts=2
    )


class FailedOnPurposeError(Exception):
    """Raised where a test wants it."""


def fail(*_):
    raise FailedOnPurposeError


def spoil_forward(parts, sequences):
    """Fail in the middle of each forward pass that has one of these sequences in it."""
    forward = parts.stacked.forward

    def spoilt(scheduled):
        logits = forward(scheduled)
        if {id(item.kv) for item in scheduled} & {
            id(seq.kv) for seq in sequences if hasattr(seq, "kv")
        }:
            fail()
        return logits

    parts.stacked.forward = spoilt


SEQUENCE_STEPS = ("start", "load_prefix", "next_tokens", "append", "store_prefix", "_reply")
SINK_STEPS = ("begin", "finish", "flush")
HARMLESS_STEPS = ("load_prefix", "store_prefix")  # the prefix cache only saves time


def spoil(parts, step, bad, sequences):
    for one, seq in zip(bad, sequences, strict=True):
        if step in SINK_STEPS:
            setattr(one, step, fail)
        elif step == "on_end":
            seq._on_end = lambda one=one: (one.count_end(), fail())
        elif step == "push":
            one.push = seq.start = fail
        else:
            setattr(seq, step, fail)
    if step == "forward":
        spoil_forward(parts, sequences)


@pytest.mark.parametrize("step", [*SEQUENCE_STEPS, *SINK_STEPS, "forward", "push", "on_end"])
def test_an_error_in_any_step_ends_its_request_alone(reference, step):
    parts = reference.parts(SchedulerLimits(prefill_tokens=16), SLOTS, 10**6)
    good = [RecordedReply(question, 14) for question in reference.questions]
    bad = [
        RecordedReply(reference.questions[at % len(reference.questions)], 3)
        for at in range(ATTEMPTS)
    ]
    sequences = [one.sequence(guild_id=2) for one in bad]
    spoil(parts, step, bad, sequences)
    for one in good[:3]:
        parts.batch.scheduler.add(one.sequence(guild_id=1))
    parts.batch.step()
    for seq in sequences:
        parts.batch.scheduler.add(seq)
    for one in good[3:]:
        parts.batch.scheduler.add(one.sequence(guild_id=1))
    run_to_end(parts)
    assert differences(good) == (0, []), "others go on"
    assert all(one.ends == 1 for one in bad)
    if step in HARMLESS_STEPS:
        assert differences(bad) == (0, [])
    elif step not in (
        "begin",
        "push",
        "on_end",
    ):  # nobody listens there, or the reply was delivered
        assert all(isinstance(one.error, FailedOnPurposeError) for one in bad)
    held = [adapter for adapter in parts.lora.resident if adapter.in_slot]
    assert not any(adapter.replies for adapter in parts.lora.resident)
    assert len(held) + len(parts.lora._free) == SLOTS and not parts.batch.waiting
    parts.close()


def test_an_adapter_without_finite_logits_is_named(reference):
    parts = reference.parts(SchedulerLimits(), SLOTS, 0)
    plain, adapted = (
        next(q for q in reference.questions if q.adapter is it) for it in (None, reference.refs[0])
    )
    good = RecordedReply(plain, 8)
    bad = RecordedReply(adapted, 8)
    parts.batch.scheduler.add(good.sequence())
    parts.batch.scheduler.add(bad.sequence(temperature=1.0))
    parts.load_adapter(parts.read(adapted.adapter))
    for a, _ in parts.stacked.stack.pairs.values():
        a[1:] = torch.nan
    run_to_end(parts)
    assert differences([good]) == (0, [])
    assert isinstance(bad.error, AdapterError)
    assert "p v0 " in str(bad.error) and "not finite" in str(bad.error)
    parts.close()


async def test_an_error_of_the_metrics_callback_stops_no_engine(tiny_base, tmp_path):
    engine = LLMEngine(tiny_base, "float32", on_reply=fail)
    await engine.start()
    for _ in range(3):
        assert await answer(engine, ask("hello"))
        with pytest.raises(AdapterError):
            await answer(engine, ask("hello", AdapterRef("ada", "v9", tmp_path / "none")))
        with pytest.raises(PromptTooLongError):  # before it is queued
            await answer(
                engine, ask("hello", sampling=replace(GREEDY, max_new_tokens=engine.context_tokens))
            )
    await engine.close()
    assert not engine._streams


OUT_OF_MEMORY = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["python", "torch"])
def test_a_batch_without_memory_is_computed_reply_by_reply_and_one_too_large_ends_alone(
    reference, error
):
    parts = reference.parts(SchedulerLimits(), SLOTS, 10**6)
    forward = parts.stacked.forward
    batches = []
    good = [RecordedReply(question, 6) for question in reference.questions[:3]]
    bad = RecordedReply(reference.questions[3], 6)
    too_large = bad.sequence()

    def limited(scheduled):
        batches.append(len(scheduled))
        if len(scheduled) > 1 or scheduled[0].kv is getattr(too_large, "kv", None):
            raise error
        return forward(scheduled)

    parts.stacked.forward = limited
    for seq in (*(one.sequence() for one in good), too_large):
        parts.batch.scheduler.add(seq)
    parts.stacked.prefixes.clear()
    run_to_end(parts)
    assert max(batches) > 1 and differences(good) == (0, []), "others go on"
    assert isinstance(bad.error, NoMemoryError) and bad.ends == 1
    assert "this reply" in bad.error.message and "Ask again" in bad.error.advice
    parts.close()
