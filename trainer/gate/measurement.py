"""Measurements that criteria are judged by, and the p-values of the gate's tests (normal, Fisher, Holm)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from personas.schemas.scorecard import Interval, ScoreCard, Side

UNIT_NATS, UNIT_SHARE, UNIT_TIMES, UNIT_COUNT = "nats per token", "share", "times", "pieces"
UNIT_SHARE_FEWER, UNIT_SHARE_MORE, UNIT_SHARE_DO_NOT = "share fewer", "share more", "share do not"
"""Units of shares that count failures or compare with the rival."""

STANDARD_NORMAL = NormalDist()
NORMAL_QUANTILE_975 = STANDARD_NORMAL.inv_cdf(0.975)
"""Standard errors that a 95 % interval reaches to each side."""

PValue = Callable[[float], float]


@dataclass(frozen=True)
class CriterionMeasurement:
    """A measured value of one criterion. `value` is None if it was not measured; `at_least` marks values where more is
    better.

    `shown` replaces the value in the comparison with the warning threshold. `chance` gives a test's p-value: the
    probability of this measurement or a worse one if the truth were exactly at a threshold. `cases` is the number of
    prompts or replies behind the value, which may be too small to judge.
    """

    name: str
    title: str
    unit: str
    value: float | None
    why: str
    at_least: bool = False
    shown: float | None = None
    chance: PValue | None = None
    cases: int | None = None


def reference_side(card: ScoreCard) -> Side:
    """Return the side that the new version is compared with: the live version if there is one, else the base model."""
    return "live" if "live" in card.adapters else "base"


def p_value_of_interval(measured: Interval) -> Callable[[float], float]:
    """Return the probability of the estimate or more if the truth were at a threshold.

    Uses the normal distribution with the standard error implied by the interval's lower half, so that the p-value is
    2.5 % if the interval begins at the threshold.
    """

    def chance(threshold: float) -> float:
        error = (measured.estimate - measured.low) / NORMAL_QUANTILE_975
        above = measured.estimate - threshold
        if error <= 0:
            return 0.0 if above > 0 else 1.0
        return 1 - STANDARD_NORMAL.cdf(above / error)

    return chance


def fisher_p_value(new: float, rival: float, count: int) -> Callable[[float], float]:
    """Return the probability of this share of `count` trials or a larger one if both sides had the same rate.

    Fisher's exact test of two shares with as many trials each. Runs with several seeds count as one trial because they
    answer the same prompt. The test only supports a threshold of 0 and raises `ValueError` for any other.
    """

    def chance(threshold: float) -> float:
        if threshold:
            raise ValueError("a test of two shares needs a threshold of 0")
        mine, others = round(new * count), round(rival * count)
        both = mine + others
        ways = sum(math.comb(count, of) * math.comb(count, both - of) for of in range(mine, min(both, count) + 1))
        return ways / math.comb(2 * count, both)

    return chance


def holm_rejections(chances: Mapping[str, float], error_rate: float) -> frozenset[str]:
    """Return the tests that fail, with a family-wise error rate of at most `error_rate`.

    Holm's step-down procedure (S. Holm, "A simple sequentially rejective multiple test procedure", 1979).
    """
    failed: set[str] = set()
    for place, name in enumerate(sorted(chances, key=lambda name: (chances[name], name))):
        if chances[name] > error_rate / (len(chances) - place):
            break
        failed.add(name)
    return frozenset(failed)
