"""Confidence intervals by a cluster bootstrap over conversations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from personas.schemas.scorecard import Interval

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
