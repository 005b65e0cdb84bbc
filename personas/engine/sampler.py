"""Samples the next token of each sequence with its own settings and seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch

from personas.schemas.chat import SamplingParams

MIN_TEMPERATURE = 1e-5
"""Below this temperature the likeliest is taken: divided by less, numbers grow beyond what can be told apart."""
DEFAULT_CANDIDATES = 256
"""So many tokens are looked at first; seldom does top-p reach beyond them."""


@dataclass
class SamplerState:
    """What the draws of one reply depend on. `seen` holds the prompt's tokens and those drawn."""

    sampling: SamplingParams
    seed: int
    seen: set[int]
    position: int = field(default=0, init=False)


@dataclass(frozen=True)
class SampledToken:
    """A token and, where it was asked for, the natural logarithm of the probability the model gave it, and to which
    tokens it gave the highest."""

    token: int
    logprob: float | None
    likeliest: tuple[tuple[int, float], ...] = ()


def sample_token(logits: Any, best: int, row: SamplerState) -> SampledToken:
    """Draw a row's next token. `logits` are `[vocabulary]`, as the model gave them, and `best` is their likeliest.

    Raises `ArithmeticError` where settings and numbers are such that nothing can be drawn.
    """
    token = best if _is_greedy(row.sampling) else _sample(logits, row)
    drawn = _with_logprobs(logits, token, row.sampling)
    row.seen.add(token)
    row.position += 1
    return drawn


def _with_logprobs(logits: Any, token: int, sampling: SamplingParams) -> SampledToken:
    if not sampling.logprobs and sampling.alternatives is None:
        return SampledToken(token, None)
    logprobs = logits.float().log_softmax(-1)
    found, tokens = logprobs.topk(sampling.alternatives or 0)
    return SampledToken(token, float(logprobs[token]), tuple(zip(tokens.tolist(), found.tolist(), strict=True)))


def seeded_uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on seed and position alone."""
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _is_greedy(sampling: SamplingParams) -> bool:
    return sampling.temperature < MIN_TEMPERATURE and sampling.repetition_penalty == 1


def _sample(logits: Any, row: SamplerState) -> int:
    sampling = row.sampling
    if sampling.repetition_penalty != 1:
        logits = _apply_repetition_penalty(logits, row)
    if sampling.temperature < MIN_TEMPERATURE:
        return int(logits.argmax())
    return _sample_from_logits(logits / sampling.temperature, sampling, seeded_uniform(row.seed, row.position))


def _apply_repetition_penalty(logits: Any, row: SamplerState) -> Any:
    """Tokens that were there before become less likely (CTRL, arXiv 1909.05858)."""
    penalty = row.sampling.repetition_penalty
    seen = torch.tensor(list(row.seen), dtype=torch.long, device=logits.device)
    before = logits[seen]
    return logits.scatter(0, seen, torch.where(before < 0, before * penalty, before / penalty))


def _sample_from_logits(logits: Any, sampling: SamplingParams, at: float) -> int:
    """The token at the place `at` of the likely ones laid end to end, the likeliest first."""
    every = logits.shape[-1]
    count = min(every, sampling.top_k or DEFAULT_CANDIDATES)
    logits_of, tokens = logits.topk(count)
    shares = torch.exp(logits_of - (logits_of if sampling.top_k else logits).logsumexp(-1))
    if not sampling.top_k and count < every and float(shares.sum()) < sampling.top_p:
        shares, tokens = logits.softmax(-1).sort(descending=True, stable=True)
    kept = (shares.cumsum(-1) - shares < sampling.top_p) & (shares >= sampling.min_p * shares[0])
    upto = shares[kept].cumsum(-1)
    if not len(upto) or not upto[-1].isfinite():
        raise ArithmeticError("No token can be drawn: the model's numbers or the settings are out of bounds.")
    place = int(torch.searchsorted(upto, at * float(upto[-1]), right=True))
    return int(tokens[kept][min(place, len(upto) - 1)])
