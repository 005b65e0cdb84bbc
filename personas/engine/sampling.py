"""Drawing the next token of each row: its own settings, its own seed, the same whoever shares the batch.

The order of the steps is that of transformers' `generate`: repetition penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch

from personas.contracts import Sampling

COLDEST = 1e-5
"""Below this temperature the likeliest is taken: divided by less, numbers grow beyond what can be told apart."""
USUAL_CANDIDATES = 256
"""So many tokens are looked at first; seldom does top-p reach beyond them."""


@dataclass
class Draws:
    """What the draws of one reply depend on. `seen` holds the prompt's tokens and those drawn."""

    sampling: Sampling
    seed: int
    seen: set[int]
    position: int = field(default=0, init=False)


@dataclass(frozen=True)
class Drawn:
    """A token and, where it was asked for, the natural logarithm of the probability the model gave it, and to which
    tokens it gave the highest."""

    token: int
    logprob: float | None
    likeliest: tuple[tuple[int, float], ...] = ()


def draw(logits: Any, best: int, row: Draws) -> Drawn:
    """Draw a row's next token. `logits` are `[vocabulary]`, as the model gave them, and `best` is their likeliest.

    Raises `ArithmeticError` where settings and numbers are such that nothing can be drawn.
    """
    token = best if _is_plainly_greedy(row.sampling) else _draw(logits, row)
    drawn = _told(logits, token, row.sampling)
    row.seen.add(token)
    row.position += 1
    return drawn


def _told(logits: Any, token: int, sampling: Sampling) -> Drawn:
    if not sampling.logprobs and sampling.alternatives is None:
        return Drawn(token, None)
    logprobs = logits.float().log_softmax(-1)
    found, tokens = logprobs.topk(sampling.alternatives or 0)
    return Drawn(token, float(logprobs[token]), tuple(zip(tokens.tolist(), found.tolist(), strict=True)))


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on seed and position alone."""
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _is_plainly_greedy(sampling: Sampling) -> bool:
    return sampling.temperature < COLDEST and sampling.repetition_penalty == 1


def _draw(logits: Any, row: Draws) -> int:
    sampling = row.sampling
    if sampling.repetition_penalty != 1:
        logits = _penalised(logits, row)
    if sampling.temperature < COLDEST:
        return int(logits.argmax())
    return _drawn_from(logits / sampling.temperature, sampling, uniform(row.seed, row.position))


def _penalised(logits: Any, row: Draws) -> Any:
    """Tokens that were there before become less likely (CTRL, arXiv 1909.05858)."""
    penalty = row.sampling.repetition_penalty
    seen = torch.tensor(list(row.seen), dtype=torch.long, device=logits.device)
    before = logits[seen]
    return logits.scatter(0, seen, torch.where(before < 0, before * penalty, before / penalty))


def _drawn_from(logits: Any, sampling: Sampling, at: float) -> int:
    """The token at the place `at` of the likely ones laid end to end, the likeliest first."""
    every = logits.shape[-1]
    count = min(every, sampling.top_k or USUAL_CANDIDATES)
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
