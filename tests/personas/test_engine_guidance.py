"""Guided replies: token for token what the formula gives, alone and beside others."""

import math
from dataclasses import replace

import pytest
import torch

from personas.engine.engine_parts import build_engine_parts
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.guidance import GUIDED_MIN_P, apply_guidance, with_negatives
from personas.engine.llm_engine import LLMEngine
from personas.engine.model_runner import ScheduledTokens
from personas.engine.step import BatchGenerator
from personas.models.base_model import fingerprint
from personas.models.loading import load_model
from personas.schemas.chat import ChatRequest, Persona, SamplingParams, Turn
from tests.personas.engine_reference import run_to_end
from tests.personas.test_engine_candidates import Recorder

ADA = Persona("ada", "Ada", description="You are Ada, who mends clocks.")
ASKED = ("What do you mend?", "Who are you, and since when do you live in the tower?")
GREEDY = SamplingParams(
    temperature=0.0, repetition_penalty=1.0, stop_loops=False, max_new_tokens=12
)
SCALE = 2.0

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tiny_base):
    return load_model(tiny_base, "float32").double()


@pytest.fixture
def parts(model, tiny_base):
    built = build_engine_parts(
        model, fingerprint(tiny_base), SchedulerLimits(rows=8), slots=2, prefix_bytes=10**7
    )
    yield built
    built.close()


def ask(parts, renderer, text, *, scale, sampling=GREEDY):
    """Submit a question to Ada; return the recorder of the reply."""
    turns = (Turn("Bo", text),)
    request = ChatRequest(ADA, turns, sampling=sampling, guidance_scale=scale)
    prompt = renderer.prompt(ADA, turns)
    if scale != 1:
        prompt = replace(prompt, negative=renderer.prompt(None, [Turn("", text)]).ids)
    if sampling.candidates > 1:
        prompt = replace(prompt, card=renderer.card_prompt(ADA, "Bo"))
    recorder = Recorder()
    parts.batch.submit(request, prompt, renderer, recorder, recorder.count_end)
    return recorder


@torch.no_grad()
def expected(model, renderer, text, scale):
    """The greedy reply by the formula, each token from two whole forward passes."""
    own = list(renderer.prompt(ADA, [Turn("Bo", text)]).ids)
    negative = list(renderer.prompt(None, [Turn("", text)]).ids)
    reply = []
    while len(reply) < GREEDY.max_new_tokens:
        with_card, without = (
            model(torch.tensor([[*prompt, *reply]])).logits[0, -1].float().log_softmax(-1)
            for prompt in (own, negative)
        )
        guided = without + scale * (with_card - without)
        guided[with_card < with_card.max() + math.log(GUIDED_MIN_P)] = -math.inf
        reply.append(int(guided.argmax()))
        if reply[-1] in renderer.stop_ids:
            reply.pop()
            break
    return renderer.tokenizer.decode(reply).strip()


def test_a_guided_reply_is_what_the_formula_gives_also_beside_others(parts, model, renderer):
    guided = [ask(parts, renderer, text, scale=SCALE) for text in ASKED]
    plain = [ask(parts, renderer, text, scale=1) for text in ASKED]
    run_to_end(parts)
    texts = [one.reply.text.strip() for one in guided]
    assert texts == [expected(model, renderer, text, SCALE) for text in ASKED]
    others = [one.reply.text.strip() for one in plain]
    assert others == [expected(model, renderer, text, 1) for text in ASKED]
    assert texts != others and all(one.ends == 1 for one in (*guided, *plain))


def test_a_guided_reply_has_no_candidates(parts, renderer):
    drawn = replace(GREEDY, temperature=1.0, top_k=20, seed=3, max_new_tokens=24)
    replies = []
    for count in (1, 3):
        sampling = replace(drawn, candidates=count)
        replies.append(ask(parts, renderer, ASKED[0], scale=SCALE, sampling=sampling))
        run_to_end(parts)
    assert [one.reply.candidates for one in replies] == [1, 1]
    assert replies[0].reply.text == replies[1].reply.text != ""


def test_a_batch_that_fails_is_computed_again_with_its_negatives(
    parts, model, renderer, monkeypatch
):
    forward = type(parts.batch.runner.backend).forward
    failed = []

    def once(self, scheduled):
        logits = forward(self, scheduled)
        if len(scheduled) > 3 and len(failed) < 2:
            failed.append(len(scheduled))
            raise ValueError("a kernel broke")
        return logits

    monkeypatch.setattr(type(parts.batch.runner.backend), "forward", once)
    guided = [ask(parts, renderer, text, scale=SCALE) for text in ASKED]
    run_to_end(parts)
    assert failed
    texts = [one.reply.text.strip() for one in guided]
    assert texts == [expected(model, renderer, text, SCALE) for text in ASKED]


def test_no_token_that_the_card_makes_unlikely_is_drawn():
    own = torch.tensor([[0.0, -1.0, -9.0]])
    negative_logits = torch.tensor([[0.0, -5.0, -99.0]])
    negative = ScheduledTokens(None, (1,))
    item = ScheduledTokens(None, (1,), negative=negative, guidance_scale=3.0)
    assert with_negatives([item]) == [item, negative]
    (row,) = apply_guidance(torch.cat([own, negative_logits]), [item])
    assert row.argmax() == 1, "likelier by the card"
    assert row[2] == -math.inf, "too unlikely with it, however much likelier than without"


async def test_the_engine_contrasts_with_the_talk_alone(tiny_base, monkeypatch):
    """It makes the negative prompt itself, and only for a scale above 1."""
    prompts = []
    submit = BatchGenerator.submit

    def recorded(self, request, prompt, *rest, **named):
        prompts.append(prompt)
        submit(self, request, prompt, *rest, **named)

    monkeypatch.setattr(BatchGenerator, "submit", recorded)
    engine = LLMEngine(tiny_base, "float32")
    await engine.start()
    try:
        for scale in (SCALE, 1.0):
            request = ChatRequest(
                ADA, (Turn("Bo", ASKED[0]),), sampling=GREEDY, guidance_scale=scale
            )
            stream = engine.submit(request)
            async for _ in stream:
                pass
            assert stream.reply.new_tokens
    finally:
        await engine.close()
    guided, plain = prompts
    text = engine._renderer.tokenizer.decode(guided.negative)
    assert ASKED[0] in text and "Ada" not in text and "Bo" not in text
    assert not plain.negative
