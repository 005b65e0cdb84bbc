"""Samples the next token of each sequence with its own settings and seed, for all of them at once.

The steps are the same whatever the number of sequences, and their results come from the device in
one transfer. A sequence's token depends on its own logits, settings, seed and position alone.
"""

import hashlib
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from personas.engine.beginning_score import DRY_ALLOWED_TOKENS, DRY_BASE, DRY_MULTIPLIER
from personas.engine.device_copy import copy_to_device
from personas.schemas.chat import SamplingParams

# Sampling is greedy below this temperature: dividing by less exceeds the range of float32.
MIN_TEMPERATURE = 1e-5
# Number of likeliest tokens considered first; top-p rarely reaches beyond them.
DEFAULT_TOP_K = 256
# A longer run loses no more: it is ruled out by then.
MAX_DRY_TOKENS = 20


@dataclass
class SamplerState:
    """State of one sequence's sampling. `seen` holds the tokens of the prompt and those sampled so
    far. Runs of the texts of `said` become the less likely, the longer they are.
    """

    sampling: SamplingParams
    seed: int
    seen: set[int]
    said: tuple[tuple[int, ...], ...] = ()
    position: int = field(default=0, init=False)
    _sampled: list[int] = field(default_factory=list, init=False)
    _seen_ids: "array[int]" = field(init=False)

    def __post_init__(self) -> None:
        self._seen_ids = array("q", self.seen)

    @property
    def is_greedy(self) -> bool:
        return self.sampling.temperature < MIN_TEMPERATURE

    @property
    def is_flat(self) -> bool:
        """True if more than the likeliest tokens are possible by the settings alone."""
        sampling = self.sampling
        keeps_all = not sampling.top_k and sampling.top_p >= 1 and not sampling.min_p
        return not self.is_greedy and (keeps_all or sampling.top_k > DEFAULT_TOP_K)

    @property
    def seen_ids(self) -> Any:
        """The tokens of `seen`, each once, as an array of 64-bit integers. Not to be kept."""
        return np.frombuffer(self._seen_ids, dtype=np.int64)

    def append(self, token: int) -> None:
        """Count a token as said."""
        if token not in self.seen:
            self.seen.add(token)
            self._seen_ids.append(token)
        self.position += 1
        if self.said:
            self._sampled.append(token)

    def dry_penalties(self) -> dict[int, float]:
        """Return by how much the logits of tokens that would continue a run of `said` are lower."""
        penalties: dict[int, float] = {}
        if len(self._sampled) < DRY_ALLOWED_TOKENS:
            return penalties
        last = self._sampled[-1]
        for text in self.said:
            for at in range(DRY_ALLOWED_TOKENS, len(text)):
                if text[at - 1] != last:
                    continue
                run = self._run_before(text, at)
                if run >= DRY_ALLOWED_TOKENS:
                    penalty = DRY_MULTIPLIER * DRY_BASE ** (run - DRY_ALLOWED_TOKENS)
                    penalties[text[at]] = max(penalty, penalties.get(text[at], 0.0))
        return penalties

    def _run_before(self, text: tuple[int, ...], at: int) -> int:
        """Count the latest tokens that are those of a text before a place."""
        most = min(at, len(self._sampled), MAX_DRY_TOKENS)
        for run in range(most):
            if text[at - 1 - run] != self._sampled[-1 - run]:
                return run
        return most


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


class _Settings(NamedTuple):
    """Numbers of one sequence; on the device of the logits those of all, `[sequences, 1]` each, in
    float64.
    """

    temperature: Any
    top_p: Any
    min_p: Any
    top_k: Any
    uniform: Any
    is_greedy: Any

    @classmethod
    def of(cls, states: list[SamplerState], device: Any) -> "_Settings":
        rows = []
        for state in states:
            sampling = state.sampling
            row = cls(
                temperature=1.0 if state.is_greedy else sampling.temperature,
                top_p=sampling.top_p,
                min_p=sampling.min_p,
                top_k=sampling.top_k,
                # By position, not by the state of a generator: a batch of others changes no draw.
                uniform=seeded_uniform(state.seed, state.position),
                is_greedy=state.is_greedy,
            )
            rows.append(row)
        settings = copy_to_device(torch.tensor(rows, dtype=torch.float64), device)
        return cls(*settings.split(1, dim=1))


def sample_tokens(logits: Any, states: list[SamplerState]) -> list[SampledToken | Exception]:
    """Sample one token for each row of `logits` `[sequences, vocabulary]`; an error takes the place
    of its token.
    """
    if not states:
        return []
    # Apart from the others, so that what is drawn does not depend on them.
    flat = [number for number, state in enumerate(states) if state.is_flat]
    likely = [number for number, state in enumerate(states) if not state.is_flat]
    rows = _fetch(logits, states, {False: likely, True: flat})
    if cut := [number for number in likely if rows[number][_IS_CUT]]:
        rows |= _fetch(logits, states, {True: cut})
    return [_to_token(rows[number], state) for number, state in enumerate(states)]


def seeded_uniform(seed: int, position: int) -> float:
    """Return a pseudorandom number in [0, 1) that depends on the seed and the position alone."""
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _fetch(
    logits: Any, states: list[SamplerState], numbers: Mapping[bool, list[int]]
) -> dict[int, list[float]]:
    """Sample the rows with these numbers, which are given by `whole`, and return the columns of each
    in one transfer.
    """
    most = _most_alternatives(states)
    fetched: list[int] = []
    packed = []
    for whole, chosen in numbers.items():
        if not chosen:
            continue
        fetched += chosen
        part = logits
        if len(chosen) < len(states):
            part = logits.index_select(0, copy_to_device(torch.tensor(chosen), logits.device))
        chosen_states = [states[number] for number in chosen]
        packed.append(_sample(part, chosen_states, most=most, whole=whole))
    return dict(zip(fetched, torch.cat(packed).tolist(), strict=True))


# Columns of what `_sample` returns; the log-probability and the alternatives follow.
_TOKEN, _HIGHEST, _IS_POSSIBLE, _IS_CUT = range(4)
_LOGPROB = 4


def _sample(logits: Any, states: list[SamplerState], *, most: int | None, whole: bool) -> Any:
    """Return the columns of each row `[sequences, columns]` in float64. Without `whole`, the
    likeliest tokens alone are considered, and the column `_IS_CUT` tells where they are not enough.
    """
    likeliest = logits.argmax(-1, keepdim=True)  # the index of a NaN, if there is one
    highest = logits.gather(-1, likeliest)
    penalised = _apply_dry(_apply_repetition_penalties(logits, states), states)
    token = likeliest
    if penalised is not logits and any(state.is_greedy for state in states):
        token = penalised.argmax(-1, keepdim=True)
    if all(state.is_greedy for state in states):
        is_possible = torch.ones_like(token, dtype=torch.bool)
        is_cut = torch.zeros_like(is_possible)
    else:
        settings = _Settings.of(states, logits.device)
        drawn, is_possible, is_cut = _draw(penalised, settings, states, whole=whole)
        if any(state.is_greedy for state in states):
            is_greedy = settings.is_greedy > 0
            token = torch.where(is_greedy, token, drawn)
            is_possible = is_possible | is_greedy
            is_cut = is_cut & ~is_greedy
        else:
            token = drawn
    columns = [token.double(), highest, is_possible, is_cut, *_logprobs(logits, token, most)]
    return torch.cat(columns, dim=1)


def _apply_repetition_penalties(logits: Any, states: list[SamplerState]) -> Any:
    """Make tokens that occurred before less likely (CTRL, arXiv 1909.05858); returns the logits
    themselves where no sequence asks for it.
    """
    places = []
    penalties = []
    for row, state in enumerate(states):
        penalty = state.sampling.repetition_penalty
        if penalty != 1:
            places.append(state.seen_ids + row * logits.shape[-1])
            penalties.append(np.full(len(state.seen), penalty, dtype=np.float32))
    if not places:
        return logits
    seen = copy_to_device(torch.from_numpy(np.concatenate(places)), logits.device)
    penalty = copy_to_device(torch.from_numpy(np.concatenate(penalties)), logits.device)
    flat = logits.reshape(-1)
    before = flat.gather(0, seen)
    after = torch.where(before < 0, before * penalty, before / penalty)
    return flat.scatter(0, seen, after.to(flat.dtype)).view_as(logits)


def _apply_dry(logits: Any, states: list[SamplerState]) -> Any:
    """Make tokens that continue runs of what was said before less likely; returns the logits
    themselves where there are none.
    """
    places = []
    penalties = []
    for row, state in enumerate(states):
        for token, penalty in state.dry_penalties().items():
            places.append(token + row * logits.shape[-1])
            penalties.append(penalty)
    if not places:
        return logits
    continuing = copy_to_device(torch.tensor(places), logits.device)
    penalty = copy_to_device(torch.tensor(penalties, dtype=logits.dtype), logits.device)
    flat = logits.reshape(-1)
    after = flat.gather(0, continuing) - penalty
    return flat.scatter(0, continuing, after).view_as(logits)


def _draw(
    logits: Any, settings: _Settings, states: list[SamplerState], *, whole: bool
) -> tuple[Any, Any, Any]:
    """Return a token for each row, whether any was possible, and whether the likeliest ones were
    not enough, `[sequences, 1]` each.
    """
    scaled = logits / settings.temperature.to(logits.dtype)
    vocabulary = logits.shape[-1]
    count = vocabulary if whole else min(vocabulary, DEFAULT_TOP_K)
    if count < vocabulary:
        values, tokens = scaled.topk(count)
    else:
        values, tokens = scaled.sort(descending=True, stable=True)
    # A filter that no sequence asks for would change nothing: on a processor, its calls take as long
    # as the rest.
    has_top_k = settings.top_k > 0
    in_top_k = None
    if any(state.sampling.top_k for state in states):
        in_top_k = ~has_top_k | (torch.arange(count, device=logits.device) < settings.top_k)
        values = values.masked_fill(~in_top_k, -torch.inf)
    # Top-k comes before top-p, as in transformers: probabilities are those among the k.
    if in_top_k is None and count < vocabulary:
        normaliser = scaled.logsumexp(-1, keepdim=True)
    else:
        normaliser = values.logsumexp(-1, keepdim=True)
        if count < vocabulary and not all(state.sampling.top_k for state in states):
            normaliser = torch.where(has_top_k, normaliser, scaled.logsumexp(-1, keepdim=True))
    probabilities = torch.exp(values - normaliser)
    is_cut = torch.zeros_like(has_top_k)
    if count < vocabulary:
        is_cut = ~has_top_k & (probabilities.sum(-1, keepdim=True) < settings.top_p)
    is_possible = probabilities.cumsum(-1) - probabilities < settings.top_p.float()
    if in_top_k is not None:
        is_possible &= in_top_k
    if any(state.sampling.min_p for state in states):
        is_likely = probabilities >= settings.min_p.float() * probabilities[:, :1]
        is_possible &= is_likely
        is_cut &= is_likely[:, -1:]
    place, is_finite = _invert(probabilities * is_possible, is_possible, settings.uniform)
    return tokens.gather(-1, place), is_finite, is_cut


def _invert(probabilities: Any, is_possible: Any, uniform: Any) -> tuple[Any, Any]:
    """Invert each row's cumulative distribution, of which the impossible tokens are 0, at its
    `uniform`. Returns the index of the token, and whether there is one.
    """
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:]
    wanted = (uniform * total.double()).to(cumulative.dtype)
    index = torch.searchsorted(cumulative, wanted, right=True)
    # Rounding may put the last step below `uniform`.
    last = is_possible.sum(-1, keepdim=True) - 1
    index = index.minimum(last).clamp_min(0)
    return index, (last >= 0) & total.isfinite()


def _most_alternatives(states: list[SamplerState]) -> int | None:
    """Return the largest number of alternatives; None if no sequence wants log-probabilities."""
    wanted = [state.sampling for state in states if _wants_logprob(state.sampling)]
    return max((sampling.alternatives or 0 for sampling in wanted), default=None)


def _logprobs(logits: Any, token: Any, most: int | None) -> list[Any]:
    """Return the log-probability of each row's token, and those of the `most` likeliest tokens after
    these; nothing if `most` is None.
    """
    if most is None:
        return []
    normaliser = logits.logsumexp(-1, keepdim=True)
    columns = [logits.gather(-1, token) - normaliser]
    if most:
        highest, tokens = logits.topk(most)
        columns += [tokens, highest - normaliser]
    return columns


def _wants_logprob(sampling: SamplingParams) -> bool:
    return sampling.logprobs or sampling.alternatives is not None


def _to_token(row: list[float], state: SamplerState) -> SampledToken | Exception:
    if not math.isfinite(row[_HIGHEST]):
        return NotFiniteError("No token can be sampled: the logits are not finite.")
    if not row[_IS_POSSIBLE]:
        return ArithmeticError(
            "No token can be sampled: the logits or the sampling settings are out of range."
        )
    token = int(row[_TOKEN])
    state.append(token)
    if not _wants_logprob(state.sampling):
        return SampledToken(token, None)
    likeliest = row[_LOGPROB + 1 :]
    half = len(likeliest) // 2
    pairs = zip(map(int, likeliest[:half]), likeliest[half:], strict=True)
    alternatives = tuple(pairs)[: state.sampling.alternatives or 0]
    return SampledToken(token, row[_LOGPROB], alternatives)
