"""Losses of the same replies under several candidates, within a time budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from personas.prompt import TokenizedSample
from personas.schemas.scorecard import Interval
from trainer.train.losses import ReplyLoss, TokenLosses, mean_loss, measure_token_losses

"""All sections; all of them in a fifth of the time; the losses on held-out replies and general dialogue alone."""


class TimeBudget:
    """Seconds for a part of the card, which count from when it is made.

    Who has some takes fewer prompts where there is little left, but never none, and says how many.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.seconds = seconds
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left, 0 at least."""
        return max(0.0, self._end - self._clock())

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.left <= 0

    def part(self, share: float) -> TimeBudget:
        """A share (0 to 1) of what is left, which counts from now."""
        return TimeBudget(self.left * share, self._clock)


REPLIES_PER_STEP, PERMUTATION_SEED = 16, 0


"""How many replies are measured under each side before it is looked whether time is left."""


CandidateName = TypeVar("CandidateName", bound=str)


UseCandidate = Callable[[CandidateName], AbstractContextManager[Any]]


@dataclass(frozen=True)
class PairedLosses(Generic[CandidateName]):
    """`places` says which of the samples were measured, in order; `losses` has by side the losses of these."""

    places: tuple[int, ...]
    losses: Mapping[CandidateName, Sequence[TokenLosses]]

    def whole(self, name: CandidateName) -> list[ReplyLoss]:
        """Each reply's loss under a side, end of turn included."""
        return [losses.whole for losses in self.losses[name]]

    def means(self) -> dict[CandidateName, float]:
        """Nats per reply token, by side."""
        return {name: mean_loss(self.whole(name)) for name in self.losses}

    def chosen(self, items: Sequence[Any]) -> list[Any]:
        """Those of `items`, one for each sample, that belong to what was measured."""
        return [items[place] for place in self.places]


def paired_losses(
    use: UseCandidate[CandidateName],
    names: Sequence[CandidateName],
    samples: Sequence[TokenizedSample],
    budget: TimeBudget | None = None,
    between: Callable[[], None] = lambda: None,
    known: Mapping[CandidateName, Sequence[TokenLosses]] | None = None,
) -> PairedLosses[CandidateName]:
    """The losses of the samples under each side.

    Within a budget they are taken in an order that chance decides once for all, until it is spent; `REPLIES_PER_STEP` are
    measured at least. `known` are sides that all the samples were measured under before.
    """
    order = (
        np.random.default_rng(PERMUTATION_SEED).permutation(len(samples)).tolist()
        if budget
        else list(range(len(samples)))
    )
    step = REPLIES_PER_STEP if budget else max(1, len(samples))
    found: dict[CandidateName, dict[int, TokenLosses]] = {name: {} for name in names}
    for begin in range(0, len(order), step):
        if begin and budget and budget.is_spent:
            break
        _measure(use, samples, order[begin : begin + step], found, between, known or {})
    places = tuple(sorted(next(iter(found.values()), {})))
    return PairedLosses(places, {name: [losses[place] for place in places] for name, losses in found.items()})


def _measure(
    use: UseCandidate[CandidateName],
    samples: Sequence[TokenizedSample],
    places: Sequence[int],
    found: dict[CandidateName, dict[int, TokenLosses]],
    between: Callable[[], None],
    known: Mapping[CandidateName, Sequence[TokenLosses]],
) -> None:
    for name, losses in found.items():
        if name in known:
            losses |= {place: known[name][place] for place in places}
            continue
        with use(name) as model:
            losses |= zip(
                places, measure_token_losses(model, [samples[place] for place in places], between), strict=True
            )


RESAMPLES, SEED = 10_000, 0
CONFIDENCE_LEVEL = 0.95
MIN_PERCENTILE_TALKS = 10
"""Talks."""
MAX_DRAWS_PER_ARRAY = 2**22
"""How many conversations are drawn in one array: some 100 MB."""

FloatArray = NDArray[np.float64]


def bootstrap_ratio(talks: Sequence[str], above: Sequence[float], below: Sequence[float]) -> Interval:
    """The sum of `above` over the sum of `below` (one of each per reply) and its 95 % interval.

    A percentile bootstrap over the talks that the replies belong to, seeded, so that the same numbers give the same
    interval. Percentiles are a little narrow; they are taken further out by as much as Student's t is wider than the
    normal distribution (the expanded percentile interval of Hesterberg, arXiv 1411.5279). With fewer than `MIN_PERCENTILE_TALKS` talks
    there is little to take percentiles of: then the interval is Student's, of the bootstrap's standard error. Replies
    of a single talk are resampled one by one. Raises `ValueError` without any reply.
    """
    if not talks:
        raise ValueError("no replies to resample")
    sums = _by_talk(talks if len(set(talks)) > 1 else [str(place) for place in range(len(talks))], above, below)
    estimate = float(sums[0].sum() / sums[1].sum())
    count = sums.shape[1]
    if count < 2:
        return Interval(estimate=estimate, low=estimate, high=estimate)
    resampled, wider = _resample_ratios(sums), _student_factor(count)
    if count < MIN_PERCENTILE_TALKS:
        reach = wider * float(resampled.std())
        return Interval(estimate=estimate, low=estimate - reach, high=estimate + reach)
    tail = NormalDist().cdf(-wider)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(estimate=estimate, low=float(low), high=float(high))


def _student_factor(count: int) -> float:
    """How many of the bootstrap's standard errors an interval of so many talks reaches, 2 talks at least.

    Student's t for the level; the bootstrap takes the spread of n talks with n where n - 1 belongs.
    """
    from scipy.special import stdtrit

    return math.sqrt(count / (count - 1)) * float(stdtrit(count - 1, (1 + CONFIDENCE_LEVEL) / 2))


def _by_talk(talks: Sequence[str], above: Sequence[float], below: Sequence[float]) -> FloatArray:
    """The sums of both over each talk, [2, talks]."""
    _, places = np.unique(np.asarray(talks), return_inverse=True)
    sums = [np.bincount(places, weights=np.asarray(numbers, dtype=np.float64)) for numbers in (above, below)]
    return np.stack(sums)


def _resample_ratios(sums: FloatArray) -> FloatArray:
    """The ratio in each of the resamples, [RESAMPLES]."""
    draw, count = np.random.default_rng(SEED), sums.shape[1]
    at_once = max(1, MAX_DRAWS_PER_ARRAY // count)
    ratios: list[FloatArray] = []
    for begin in range(0, RESAMPLES, at_once):
        drawn = draw.integers(0, count, (min(at_once, RESAMPLES - begin), count))
        above, below = sums[0][drawn].sum(1), sums[1][drawn].sum(1)
        ratios.append(above / below)
    return np.concatenate(ratios)
