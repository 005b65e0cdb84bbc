"""Bootstrap intervals of ratios over conversations."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from personas.schemas.scorecard import Interval

RESAMPLES = 10_000
SEED = 0
CONFIDENCE_LEVEL = 0.95
MIN_PERCENTILE_TALKS = 10
MAX_DRAWS_PER_ARRAY = 2**22  # conversations drawn into one array of some 100 MB
FloatArray = NDArray[np.float64]


def bootstrap_ratio(
    talks: Sequence[str], above: Sequence[float], below: Sequence[float]
) -> Interval:
    """Return the ratio of the sums of `above` and `below` (one value each per reply) with its 95 %
    interval.

    A seeded percentile bootstrap over the conversations (`talks`) of the replies. As percentile
    intervals are slightly narrow, they are widened by the ratio of Student's t to the normal
    distribution (the expanded percentile interval of Hesterberg, arXiv 1411.5279). With fewer than
    `MIN_PERCENTILE_TALKS` conversations, the interval is Student's t with the bootstrap's standard
    error. Replies of a single conversation are resampled individually. Raises `ValueError` for no
    replies.
    """
    if not talks:
        raise ValueError("no replies to resample")
    units = talks
    if len(set(talks)) == 1:
        units = [str(place) for place in range(len(talks))]
    sums = _sums_by_unit(units, above, below)
    estimate = float(sums[0].sum() / sums[1].sum())
    count = sums.shape[1]
    if count < 2:
        return Interval(estimate=estimate, low=estimate, high=estimate)
    resampled = _resample_ratios(sums)
    wider = _student_factor(count)
    if count < MIN_PERCENTILE_TALKS:
        reach = wider * float(resampled.std())
        return Interval(estimate=estimate, low=estimate - reach, high=estimate + reach)
    tail = NormalDist().cdf(-wider)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(estimate=estimate, low=float(low), high=float(high))


def _student_factor(count: int) -> float:
    """Return the interval's half width in bootstrap standard errors, for at least 2 conversations.

    Uses Student's t; the factor corrects the bootstrap's spread with n in place of n - 1.
    """
    return math.sqrt(count / (count - 1)) * float(stdtrit(count - 1, (1 + CONFIDENCE_LEVEL) / 2))


def _sums_by_unit(
    units: Sequence[str], above: Sequence[float], below: Sequence[float]
) -> FloatArray:
    """Sum both per unit, [2, units]."""
    _, places = np.unique(np.asarray(units), return_inverse=True)
    above_sums = np.bincount(places, weights=np.asarray(above, dtype=np.float64))
    below_sums = np.bincount(places, weights=np.asarray(below, dtype=np.float64))
    return np.stack([above_sums, below_sums])


def _resample_ratios(sums: FloatArray) -> FloatArray:
    """Return the ratio of each resample, [RESAMPLES]."""
    # The same seed every time: a score card that is made again has the same intervals.
    draw = np.random.default_rng(SEED)
    count = sums.shape[1]
    at_once = max(1, MAX_DRAWS_PER_ARRAY // count)
    ratios: list[FloatArray] = []
    for begin in range(0, RESAMPLES, at_once):
        drawn = draw.integers(0, count, (min(at_once, RESAMPLES - begin), count))
        above = sums[0][drawn].sum(1)
        below = sums[1][drawn].sum(1)
        ratios.append(above / below)
    return np.concatenate(ratios)
