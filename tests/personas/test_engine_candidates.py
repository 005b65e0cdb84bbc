"""Choosing the beginning of a reply among candidates, each of which is what its seed gives
alone.
"""

import copy
import functools
import gc
import threading
import weakref
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch

from personas.engine import candidates, engine_parts, sampler
from personas.engine.beginning_score import CANDIDATE_TOKENS, CARD_WEIGHT, says_again
from personas.engine.candidates import candidate_seed
from personas.engine.engine_parts import build_engine_parts
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.paged_kv import RESERVED_BLOCKS
from personas.engine.sequence import Sequence
from personas.models.base_model import fingerprint
from personas.models.loading import load_model
from personas.schemas.chat import ChatReply, ChatRequest, Persona, SamplingParams, Turn
from tests.personas.engine_reference import run_to_end
from tests.tiny_models import make_adapter

ADA = Persona("ada", "Ada", description="You are Ada, who mends clocks.")
SAMPLING = SamplingParams(
    temperature=1.0, top_k=20, repetition_penalty=1.0, stop_loops=False, max_new_tokens=20
)
SEEDS = range(4)
CANDIDATES = 3

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Recorder:
    """A sink that records the text, the reply and the ends."""

    cancelled: threading.Event = field(default_factory=threading.Event)
    pieces: list[object] = field(default_factory=list)
    reply: ChatReply | None = None
    ends: int = 0

    def begin(self) -> bool:
        return True

    def push(self, piece: object) -> None:
        assert self.reply is None
        self.pieces.append(piece)

    def finish(self, reply: ChatReply) -> None:
        assert "".join(map(str, self.pieces)) == reply.text
        self.reply = reply

    def count_end(self) -> None:
        self.ends += 1


@pytest.fixture(scope="module")
def model(tiny_base):
    return load_model(tiny_base, "float32").double()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, tiny_base):
    return make_adapter(tmp_path_factory.mktemp("home"), tiny_base, "ada", "v1", seed=1)


@pytest.fixture(scope="module")
def engines(model, tiny_base):
    """Return a function that returns an engine with such limits; it is built once."""

    @functools.cache
    def engine(**limits):
        shared = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
        limits = SchedulerLimits(**limits)
        return build_engine_parts(
            shared, fingerprint(tiny_base), limits, slots=2, prefix_bytes=10**7
        )

    return engine


@pytest.fixture
def start(engines, renderer):
    """Return a function that starts replies and returns the engine's parts and the replies'
    recorders. What was `said` before is not in the prompt, so that candidates are the same.
    """

    def start(*samplings, adapter=None, said=(), **limits):
        parts = engines(**limits)
        recorders = [Recorder() for _ in samplings]
        for sampling, recorder in zip(samplings, recorders, strict=True):
            asked = Turn("Bo", "What do you mend?")
            request = ChatRequest(ADA, (*said, asked), adapter=adapter, sampling=sampling)
            prompt = replace(renderer.prompt(ADA, (asked,)), card=renderer.card_prompt(ADA, "Bo"))
            parts.batch.submit(request, prompt, renderer, recorder, recorder.count_end)
        return parts, recorders

    return start


@pytest.fixture
def reply(start):
    """Return a function that generates one reply."""

    def reply(sampling, adapter=None, **settings):
        parts, (recorder,) = start(sampling, adapter=adapter, **settings)
        run_to_end(parts)
        assert recorder.ends == 1
        return recorder.reply

    return reply


def choosing(seed: int, **changes) -> SamplingParams:
    return replace(SAMPLING, seed=seed, candidates=CANDIDATES, **changes)


def alone(seed: int, number: int, **changes) -> SamplingParams:
    """Return the sampling of a candidate that is sampled alone."""
    return replace(
        SAMPLING, seed=candidate_seed(seed, number) if number else seed, logprobs=True, **changes
    )


def logprob_after(model, prompt, tokens) -> float:
    """Compute the log-probability of a continuation with transformers."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *tokens[:-1]]])).logits[0, len(prompt) - 1 :]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum())


def best_of(model, renderer, tokens_of) -> int:
    """Return the number of the best candidate, computed apart from the engine."""
    talk, card = (
        renderer.prompt(ADA, [Turn("Bo", text)]).ids for text in ("What do you mend?", "")
    )
    scores = []
    for tokens in tokens_of:
        begun = tokens[:CANDIDATE_TOKENS]
        difference = logprob_after(model, talk, begun) - CARD_WEIGHT * logprob_after(
            model, card, begun
        )
        scores.append(difference / len(begun))
    return scores.index(max(scores))


@pytest.fixture
def sampled(monkeypatch):
    """Record the tokens of all sequences by seed."""
    tokens: dict[int, list[int]] = {}
    append = Sequence.append

    def recorded(seq, token):
        tokens.setdefault(seq.sampler.seed, []).append(token.token)
        append(seq, token)

    monkeypatch.setattr(Sequence, "append", recorded)
    return tokens


@pytest.mark.parametrize("changes", [{}, {"max_new_tokens": 3}], ids=["plain", "short"])
def test_the_reply_goes_on_as_the_candidate_that_fits_this_talk_best(
    reply, model, renderer, sampled, changes
):
    chosen = set()
    for seed in SEEDS:
        expected = [reply(alone(seed, number, **changes)) for number in range(CANDIDATES)]
        tokens_of = [sampled[one.seed] for one in expected]
        best = best_of(model, renderer, tokens_of)
        actual = reply(choosing(seed, logprobs=True, **changes))
        assert actual.text == expected[best].text and actual.finish == expected[best].finish
        assert actual.logprobs == pytest.approx(expected[best].logprobs)
        assert (actual.seed, actual.candidates) == (seed, CANDIDATES)
        sampled.clear()
        chosen.add(best)
    assert len(chosen) > 1


def test_the_same_seed_says_the_same_under_an_adapter_too(reply, adapter):
    first, again, base = (reply(choosing(3), used) for used in (adapter, adapter, None))
    assert first == again and first.version == "v1" and first.text != base.text
    assert first.candidates == CANDIDATES and first.logprobs == ()


def test_a_pool_of_keys_and_values_changes_no_choice(reply, engines, adapter, monkeypatch):
    asked = [(choosing(0, logprobs=True), None), (choosing(1, logprobs=True), adapter)]
    expected = [reply(*one) for one in asked]
    monkeypatch.setattr(engine_parts, "decodes_in_static_shapes", lambda model: True)
    for one, before in zip(asked, expected, strict=True):
        actual = reply(*one, wait_s=119.0)  # by another engine
        assert (actual.text, actual.candidates) == (before.text, CANDIDATES)
        assert actual.logprobs == pytest.approx(before.logprobs)
    parts = engines(wait_s=119.0)
    parts.batch.clear_prefix_cache()
    pool = parts.stacked.pool
    assert pool.free_blocks == pool.memory.shape[2] - RESERVED_BLOCKS, "what forks shared is free"


def test_one_candidate_is_what_was_always_said(reply, monkeypatch):
    plain = [reply(replace(SAMPLING, seed=seed)) for seed in SEEDS]
    forks = []
    monkeypatch.setattr(Sequence, "fork", lambda seq, seed: forks.append(seed))
    assert [reply(choosing(seed), candidate_rows=1) for seed in SEEDS] == plain
    greedy = replace(SAMPLING, temperature=0.0, seed=1)
    assert reply(replace(greedy, candidates=8)) == reply(greedy) and not forks


def test_rows_are_shared_with_those_who_wait(start):
    parts, recorders = start(*map(choosing, range(6)), rows=2, overflow_rows=0, candidate_rows=5)
    run_to_end(parts)
    counts = [one.reply.candidates for one in recorders]
    assert counts[:2] == [1] * 2 and all(one.ends == 1 for one in recorders)  # four others wait
    assert sorted(counts[4:])[-1] > 1 and sum(counts[4:]) <= 5


def test_a_candidate_without_words_is_not_chosen():
    def candidate(text):
        seq = Sequence.__new__(Sequence)
        seq._detokenizer = SimpleNamespace(text=text, stopped=False)
        seq.request = ChatRequest(ADA, (Turn("Toby Reed", "My cat sat on the warm quay wall."),))
        return seq

    seq, *others = map(candidate, ("*", "*bows*", "", "…", "Да", "7"))
    seq.other_candidates = tuple(others)
    compared = candidates.comparable_candidates(seq)
    assert [candidate.text for candidate in compared] == ["*bows*", "Да", "7"]
    seq.other_candidates = (others[1],)
    assert candidates.comparable_candidates(seq) == [seq]
    # What the message says itself fits it best, and would always be chosen.
    echo, *rest = map(
        candidate,
        ("Toby Reed: My cat", "my cat sat on the warm qua", "My cat sat, too.", "Mine bites."),
    )
    echo.other_candidates = tuple(rest)
    assert candidates.comparable_candidates(echo) == rest[1:]
    echo.other_candidates = (rest[0],)
    assert candidates.comparable_candidates(echo) == [echo, rest[0]]


def by_ada(text: str) -> Turn:
    return Turn("Ada", text, by_persona=True)


@pytest.fixture
def forked(monkeypatch):
    """Record the seeds of all forks."""
    seeds = []
    fork = Sequence.fork
    monkeypatch.setattr(Sequence, "fork", lambda seq, seed: seeds.append(seed) or fork(seq, seed))
    return seeds


def test_a_candidate_that_says_again_what_was_said_is_passed_over(
    reply, model, renderer, sampled, forked
):
    expected = [reply(alone(0, number)) for number in range(CANDIDATES)]
    tokens_of = [sampled[one.seed] for one in expected]
    best = best_of(model, renderer, tokens_of)
    said = expected[best].text.upper().replace(" ", " * ")
    actual = reply(choosing(0), said=[by_ada(said)])
    del expected[best], tokens_of[best]
    assert actual.text == expected[best_of(model, renderer, tokens_of)].text
    assert actual.candidates == CANDIDATES - 1
    assert len(forked) == CANDIDATES - 1, "none was drawn again"


def test_where_all_say_again_what_was_said_others_are_drawn_once(reply, forked):
    sure = choosing(0, temperature=0.01)
    before = reply(sure)
    other = Turn("Cy", before.text)
    assert reply(sure, said=[other]) == before, "others may be repeated"
    assert len(forked) == 2 * (CANDIDATES - 1)
    forked.clear()
    said = [by_ada("Clocks."), by_ada(before.text)]
    after = reply(sure, said=said)
    assert not says_again(after.text, [before.text]) and after.seed == before.seed
    assert forked == [candidate_seed(0, number) for number in range(1, 2 * CANDIDATES - 1)]
    assert reply(sure, said=said) == after


def test_where_nothing_else_can_be_drawn_the_same_is_said_again(reply, forked, monkeypatch):
    sure = choosing(0, temperature=0.01)
    before = reply(sure)
    monkeypatch.setattr(sampler, "DRY_MULTIPLIER", 0.0)
    forked.clear()
    after = reply(sure, said=[by_ada(before.text)])
    assert (after.text, after.candidates) == (before.text, CANDIDATES)
    assert len(forked) == 2 * (CANDIDATES - 1), "drawn again once"


def test_a_redraw_that_fails_is_the_first_candidate(reply, monkeypatch, caplog):
    sure = choosing(0, temperature=0.01)
    before = reply(sure)
    monkeypatch.setattr(Sequence, "encode", lambda *_: 1 / 0)
    after = reply(sure, said=[by_ada(before.text)])
    assert (after.text, after.candidates) == (before.text, 1) and "failed" in caplog.text


def test_others_who_need_the_rows_end_a_redraw(start, reply):
    sure = choosing(0, temperature=0.01)
    before = reply(sure)
    parts, (first,) = start(sure, said=[by_ada(before.text)], candidate_rows=4)
    while not any(seq.is_redrawn for seq in parts.batch.scheduler.running):
        parts.batch.step()
    assert not first.pieces
    start(choosing(1), choosing(2), candidate_rows=4)
    parts.batch.step()
    assert first.pieces
    run_to_end(parts)
    assert first.reply.text == before.text and first.ends == 1


def test_others_who_need_the_rows_end_the_choice(start, reply):
    expected = reply(replace(SAMPLING, seed=0))
    parts, (first,) = start(choosing(0), candidate_rows=4)
    while not any(len(seq.reply_ids) > 4 for seq in parts.batch.scheduler.running):
        parts.batch.step()
    _, (second,) = start(choosing(1), candidate_rows=4)
    parts.batch.step()
    assert not first.pieces  # four rows suffice for both
    _, (third,) = start(choosing(2), candidate_rows=4)
    parts.batch.step()
    assert first.pieces
    run_to_end(parts)
    assert first.reply == expected and third.reply.candidates > 1 and second.ends == 1


def test_no_text_is_shown_before_the_choice(start):
    parts, (recorder,) = start(choosing(0))
    while not parts.batch.scheduler.running or not recorder.pieces:
        for seq in parts.batch.scheduler.running:
            assert not seq.is_candidate or not recorder.pieces
        parts.batch.step()
    (seq,) = parts.batch.scheduler.running
    assert not seq.is_candidate and seq.reply_ids and len(seq.reply_ids) <= CANDIDATE_TOKENS
    run_to_end(parts)
    assert recorder.reply.candidates == CANDIDATES


def test_a_cancelled_choice_ends_with_the_first_candidate_and_frees_all(start, adapter):
    parts, (recorder,) = start(choosing(0), adapter=adapter)
    while not any(len(seq.reply_ids) > 4 for seq in parts.batch.scheduler.running):
        parts.batch.step()
    (seq,) = parts.batch.scheduler.running
    memories = [weakref.ref(one.kv) for one in (seq, *seq.other_candidates)]
    text = seq.text
    assert len(memories) == CANDIDATES and not recorder.pieces
    del seq
    recorder.cancelled.set()
    parts.batch.step()
    gc.collect()
    assert (
        parts.batch.running == 0 and recorder.ends == 1 and not any(memory() for memory in memories)
    )
    assert recorder.reply.finish == "cancelled" and recorder.reply.text.startswith(text)
    assert [one.replies for one in parts.lora.resident] == [0]


def test_a_candidate_that_fails_is_left_out(start, reply):
    expected = reply(choosing(0))
    parts, (recorder,) = start(choosing(0))
    while not any(seq.other_candidates for seq in parts.batch.scheduler.running):
        parts.batch.step()
    (seq,) = parts.batch.scheduler.running
    seq.other_candidates[0].sampler.sampling = replace(SAMPLING, repetition_penalty=1e-45)
    run_to_end(parts)
    assert expected.candidates == CANDIDATES and recorder.reply.candidates == CANDIDATES - 1


@pytest.mark.parametrize("is_cancelled", [True, False], ids=["cancelled", "failed"])
def test_a_reply_that_ends_within_a_step_ends_without_its_other_candidates(
    start, monkeypatch, is_cancelled
):
    parts, (recorder,) = start(choosing(0))
    while not any(seq.other_candidates for seq in parts.batch.scheduler.running):
        parts.batch.step()
    (seq,) = parts.batch.scheduler.running
    append = Sequence.append

    def end(one, token):
        append(one, token)
        if one is seq:
            recorder.cancelled.set()

    if is_cancelled:
        monkeypatch.setattr(Sequence, "append", end)
    else:
        seq.sampler.sampling = replace(SAMPLING, repetition_penalty=1e-45)
    run_to_end(parts)
    assert parts.batch.running == 0 and recorder.ends == 1
    if is_cancelled:
        assert recorder.reply.finish == "cancelled"
    else:
        assert isinstance(recorder.pieces[-1], ArithmeticError)


def test_a_choice_that_fails_is_the_first_candidate(reply, monkeypatch, caplog):
    expected = reply(replace(SAMPLING, seed=5))
    monkeypatch.setattr(candidates, "_card_logprobs", lambda *_: 1 / 0)
    assert reply(choosing(5)) == expected and "cannot be compared" in caplog.text


def test_no_next_prompt_is_prepared_while_candidates_are_written(start, monkeypatch):
    parts, (recorder,) = start(replace(SAMPLING, candidates=3))
    parts.batch.step()
    parts.batch.warmer.add(None, range(100, 200), is_talk=True)
    computed = []
    forward = parts.stacked.forward
    monkeypatch.setattr(
        parts.stacked, "forward", lambda spans: computed.extend(spans) or forward(spans)
    )
    while not recorder.pieces:
        parts.batch.step()
        assert recorder.pieces or not [span for span in computed if 100 in span.tokens]
    run_to_end(parts)
    assert [span for span in computed if 100 in span.tokens] and not parts.batch.warmer.jobs
