"""Samples the next token of each sequence with its own settings and seed."""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import torch

from personas.schemas.chat import SamplingParams

# Sampling is greedy below this temperature: dividing by less exceeds the range of float32.
MIN_TEMPERATURE = 1e-5
# Number of likeliest tokens considered first; top-p rarely reaches beyond them.
DEFAULT_TOP_K = 256


@dataclass
class SamplerState:
    """State of one sequence's sampling. `seen` holds the tokens of the prompt and those sampled so
    far.
    """

    sampling: SamplingParams
    seed: int
    seen: set[int]
    position: int = field(default=0, init=False)


@dataclass(frozen=True)
class SampledToken:
    """A token and, if requested, the model's own natural log-probabilities of it and of the
    likeliest tokens.
    """

    token: int
    logprob: float | None
    alternatives: tuple[tuple[int, float], ...] = ()


class NotFiniteError(ArithmeticError):
    """The model computed no finite number for any token."""


def sample_tokens(logits: Any, states: list[SamplerState]) -> list[SampledToken | Exception]:
    """Sample one token for each row of `logits` `[sequences, vocabulary]`; an error takes the place
    of its token.
    """
    if not states:
        return []
    # For all rows at once: one transfer from the device instead of one for each sequence.
    likeliest = logits.argmax(-1)  # the index of a NaN, if there is one
    highest = logits.gather(-1, likeliest[:, None])[:, 0].tolist()
    rows = zip(logits, likeliest.tolist(), highest, states, strict=True)
    return [_sample_or_error(*row) for row in rows]


def sample_token(logits: Any, likeliest: int, state: SamplerState) -> SampledToken:
    """Sample from `logits` `[vocabulary]` with argmax `likeliest`. Raises `ArithmeticError` if they
    are not finite.
    """
    sampling = state.sampling
    is_greedy = sampling.temperature < MIN_TEMPERATURE and sampling.repetition_penalty == 1
    token = likeliest if is_greedy else _sample(logits, state)
    sampled = _with_logprobs(logits, token, sampling)
    state.seen.add(token)
    state.position += 1
    return sampled


def seeded_uniform(seed: int, position: int) -> float:
    """Return a pseudorandom number in [0, 1) that depends on the seed and the position alone."""
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _sample_or_error(
    logits: Any, likeliest: int, highest: float, state: SamplerState
) -> SampledToken | Exception:
    if not math.isfinite(highest):
        return NotFiniteError("No token can be sampled: the logits are not finite.")
    try:
        return sample_token(logits, likeliest, state)
    except Exception as error:  # caused by this sequence's settings: the others go on
        return error


def _with_logprobs(logits: Any, token: int, sampling: SamplingParams) -> SampledToken:
    if not sampling.logprobs and sampling.alternatives is None:
        return SampledToken(token, None)
    logprobs = logits.float().log_softmax(-1)
    highest, tokens = logprobs.topk(sampling.alternatives or 0)
    alternatives = tuple(zip(tokens.tolist(), highest.tolist(), strict=True))
    return SampledToken(token, float(logprobs[token]), alternatives)


def _sample(logits: Any, state: SamplerState) -> int:
    sampling = state.sampling
    if sampling.repetition_penalty != 1:
        logits = _apply_repetition_penalty(logits, state)
    if sampling.temperature < MIN_TEMPERATURE:
        return int(logits.argmax())
    # By position, not by the state of a generator: a batch of others changes no draw.
    uniform = seeded_uniform(state.seed, state.position)
    return _sample_from_logits(logits / sampling.temperature, sampling, uniform)


def _apply_repetition_penalty(logits: Any, state: SamplerState) -> Any:
    """Make tokens that occurred before less likely (CTRL, arXiv 1909.05858)."""
    penalty = state.sampling.repetition_penalty
    seen = torch.tensor(list(state.seen), dtype=torch.long, device=logits.device)
    before = logits[seen]
    return logits.scatter(0, seen, torch.where(before < 0, before * penalty, before / penalty))


def _sample_from_logits(logits: Any, sampling: SamplingParams, uniform: float) -> int:
    """Invert the cumulative distribution of the likeliest tokens at `uniform`."""
    vocabulary = logits.shape[-1]
    count = min(vocabulary, sampling.top_k or DEFAULT_TOP_K)
    likeliest, tokens = logits.topk(count)
    # Top-k comes before top-p, as in transformers: probabilities are those among the k.
    normaliser = likeliest if sampling.top_k else logits
    probabilities = torch.exp(likeliest - normaliser.logsumexp(-1))
    # Sorting the whole vocabulary is left to the rare flat distribution.
    if not sampling.top_k and count < vocabulary and float(probabilities.sum()) < sampling.top_p:
        probabilities, tokens = logits.softmax(-1).sort(descending=True, stable=True)
    in_top_p = probabilities.cumsum(-1) - probabilities < sampling.top_p
    is_possible = in_top_p & (probabilities >= sampling.min_p * probabilities[0])
    cumulative = probabilities[is_possible].cumsum(-1)
    if not len(cumulative) or not cumulative[-1].isfinite():
        raise ArithmeticError(
            "No token can be sampled: the logits or the sampling settings are out of range."
        )
    index = int(torch.searchsorted(cumulative, uniform * float(cumulative[-1]), right=True))
    # Rounding may put the last step below `uniform`.
    return int(tokens[is_possible][min(index, len(cumulative) - 1)])
