"""Sampling: the same distribution as transformers' logits processors, independent of other
sequences.
"""

import collections
import math

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from personas.engine import sampler
from personas.engine.sampler import SampledToken, SamplerState, sample_tokens, seeded_uniform
from personas.schemas.chat import SamplingParams

VOCABULARY = 1000


def random_logits(rows: int, seed: int = 0):
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def sample_token(logits, state: SamplerState) -> SampledToken:
    (sampled,) = sample_tokens(logits[None], [state])
    if isinstance(sampled, Exception):
        raise sampled
    return sampled


def one(logits, sampling: SamplingParams, seed: int = 0, seen=(), position: int = 0) -> int:
    draws = SamplerState(sampling, seed, set(seen))
    draws.position = position
    return sample_token(logits, draws).token


SETTINGS = [
    SamplingParams(temperature=1.0, top_p=0.9, repetition_penalty=1.0),
    SamplingParams(temperature=0.7, top_p=1.0, min_p=0.05, repetition_penalty=1.0),
    SamplingParams(temperature=1.3, top_p=0.8, top_k=7, repetition_penalty=1.2),
    SamplingParams(
        temperature=3.0, top_p=0.99, repetition_penalty=1.1
    ),  # far beyond the usual candidates
]


def by_transformers(logits, sampling: SamplingParams, seen):
    steps = [RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)]
    steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))
    return LogitsProcessorList(steps)(torch.tensor([sorted(seen)]), logits[None].clone())[
        0
    ].softmax(-1)


@pytest.mark.parametrize("sampling", SETTINGS)
def test_tokens_come_as_often_as_transformers_would_draw_them(sampling):
    logits = random_logits(1)[0]
    seen = {3, 5, 500}
    expected = by_transformers(logits, sampling, seen)
    drawn = collections.Counter(one(logits, sampling, seed, seen) for seed in range(600))
    assert all(expected[token] > 0 for token in drawn)
    likely = int(expected.argmax())
    share = float(expected[likely])
    spread = math.sqrt(float(expected[likely]) / 600)
    assert abs(drawn[likely] / 600 - share) < 4 * spread


def test_a_draw_depends_on_seed_and_position():
    logits = random_logits(5)
    sampling = SamplingParams(temperature=1.0)
    assert len({one(logits[0], sampling, 7, position=place) for place in range(20)}) > 3
    assert (
        len({seeded_uniform(seed, 0) for seed in range(1000)}) == 1000
        and 0 <= seeded_uniform(1, 1) < 1
    )


def test_what_was_said_before_is_less_likely_greedily_too():
    logits = torch.zeros(VOCABULARY)
    logits[4], logits[9] = 2.0, 1.9
    greedy = SamplingParams(temperature=0, repetition_penalty=1.2)
    assert one(logits, greedy) == 4 and one(logits, greedy, seen={4}) == 9
    draws = SamplerState(greedy, 0, set())
    assert [sample_token(logits, draws).token for _ in range(2)] == [4, 9], "its own tokens count"


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 8e-38, 1e-6])
def test_next_to_no_temperature_is_none(temperature):
    logits = random_logits(1)[0]
    for penalty in (1.0, 1.05):
        settings = SamplingParams(temperature=temperature, repetition_penalty=penalty)
        assert one(logits, settings) == int(logits.argmax())
    assert one(logits, SamplingParams(temperature=2e-5, repetition_penalty=1.05)) == int(
        logits.argmax()
    )


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf"), float("-inf")])
def test_numbers_of_which_nothing_can_be_drawn_are_an_error(spoilt):
    with pytest.raises(ArithmeticError, match="No token can be sampled"):
        one(torch.full((VOCABULARY,), spoilt), SamplingParams(temperature=1.0))


def test_log_probabilities_are_the_models_own():
    logits = random_logits(1)[0]
    drawn = sample_token(
        logits,
        SamplerState(SamplingParams(temperature=0.2, top_k=1, logprobs=True), 0, set()),
    )
    assert drawn.logprob == pytest.approx(float(logits.log_softmax(-1).max()))
    assert sample_token(logits, SamplerState(SamplingParams(), 0, set())).logprob is None


LARGE_K = SamplingParams(temperature=1.0, top_k=700, min_p=0.001)
MIXED = [
    *SETTINGS,
    SamplingParams(temperature=0, repetition_penalty=1.0),
    SamplingParams(temperature=0, repetition_penalty=1.3, logprobs=True, alternatives=3),
    LARGE_K,
    SamplingParams(temperature=0.9, top_p=0.5, logprobs=True),
    SamplingParams(temperature=1.0, alternatives=5),
    SamplingParams(temperature=1.0, top_p=1.0, repetition_penalty=1.0),
]


def mixed_states():
    return [SamplerState(sampling, seed, {seed, 7}) for seed, sampling in enumerate(MIXED)]


def test_a_batch_of_all_settings_draws_what_each_draws_alone():
    together = mixed_states()
    alone = mixed_states()
    for step in range(20):
        logits = random_logits(len(MIXED), step)
        drawn = sample_tokens(logits, together)
        assert drawn == [sample_token(row, state) for row, state in zip(logits, alone, strict=True)]
    assert [
        len(sampled.alternatives) for sampled in drawn if isinstance(sampled, SampledToken)
    ] == [sampling.alternatives or 0 for sampling in MIXED]
    assert [state.seen for state in together] == [state.seen for state in alone]


def test_one_that_cannot_be_drawn_changes_none_of_the_others():
    logits = random_logits(len(MIXED))
    expected = sample_tokens(logits.clone(), mixed_states())
    spoilt = logits.clone()
    spoilt[1, 5] = float("nan")
    spoilt[4] = float("-inf")
    drawn = sample_tokens(spoilt, mixed_states())
    errors = [number for number, sampled in enumerate(drawn) if isinstance(sampled, Exception)]
    assert errors == [1, 4]
    assert [drawn[number] for number in (0, 2, 3, 5)] == [expected[n] for n in (0, 2, 3, 5)]


def test_only_distributions_that_turn_out_flat_are_fetched_again(monkeypatch):
    fetched = []
    fetch = sampler._fetch

    def counted(logits, states, numbers):
        fetched.append({whole: list(chosen) for whole, chosen in numbers.items()})
        return fetch(logits, states, numbers)

    monkeypatch.setattr(sampler, "_fetch", counted)
    sample_tokens(random_logits(len(MIXED)), mixed_states())
    flat = [MIXED.index(LARGE_K), len(MIXED) - 1]
    likely = [number for number in range(len(MIXED)) if number not in flat]
    hot = MIXED.index(SETTINGS[3])
    assert fetched == [{False: likely, True: flat}, {True: [hot]}]
