"""Chances behind the gate's tests, and their error rate together.

Every test is one-sided: how likely is what was measured, or worse, if the version were just at the threshold?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist

from personas.scorecard import Interval

NORMAL = NormalDist()
QUANTILE = NORMAL.inv_cdf(0.975)
"""How many standard errors an interval of 95 % reaches to each side."""


def of_interval(measured: Interval) -> Callable[[float], float]:
    """The chance of the estimate or more, if the truth were at a threshold.

    By the normal distribution with the standard error that the interval's lower half implies, so that 2.5 % is where
    the interval begins at the threshold.
    """

    def chance(threshold: float) -> float:
        error = (measured.estimate - measured.low) / QUANTILE
        above = measured.estimate - threshold
        if error <= 0:
            return 0.0 if above > 0 else 1.0
        return 1 - NORMAL.cdf(above / error)

    return chance


def of_shares(new: float, rival: float, count: int) -> Callable[[float], float]:
    """The chance of so large a share of `count` trials or a larger one, if both were drawn from the same.

    Fisher's exact test of two shares of as many trials each; runs with several seeds count as one trial, because they
    answer the same prompt. It asks for a threshold of 0 alone. Raises `ValueError` for another one.
    """

    def chance(threshold: float) -> float:
        if threshold:
            raise ValueError("a test of two shares asks whether they differ at all")
        mine, others = round(new * count), round(rival * count)
        both = mine + others
        ways = sum(math.comb(count, of) * math.comb(count, both - of) for of in range(mine, min(both, count) + 1))
        return ways / math.comb(2 * count, both)

    return chance


def holm(chances: Mapping[str, float], error_rate: float) -> frozenset[str]:
    """Which of the tests fail, so that any of those whose truth is no worse than its threshold fails in no more than
    `error_rate` of cases (S. Holm, "A simple sequentially rejective multiple test procedure", 1979)."""
    failed: set[str] = set()
    for place, name in enumerate(sorted(chances, key=lambda name: (chances[name], name))):
        if chances[name] > error_rate / (len(chances) - place):
            break
        failed.add(name)
    return frozenset(failed)
