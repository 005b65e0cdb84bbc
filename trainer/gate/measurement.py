"""A measurement that a criterion looks at, and the p-values of the gate's tests (normal, Fisher, Holm)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from personas.schemas.scorecard import Interval, ScoreCard, Side

UNIT_NATS, UNIT_SHARE, UNIT_TIMES, UNIT_COUNT = "nats per token", "share", "times", "pieces"


UNIT_SHARE_FEWER, UNIT_SHARE_MORE, UNIT_SHARE_DO_NOT = "share fewer", "share more", "share do not"


"""Where a number counts what goes wrong, or compares with the rival, its unit says so."""


PValue = Callable[[float], float]


@dataclass(frozen=True)
class CriterionMeasurement:
    """`value` is None where it was not measured. `at_least` says that more is better.

    `shown` is compared with the warning's threshold instead of the value, where that is another number. `chance` gives,
    for a test, the chance of what was measured or worse, if the truth were at a threshold. `cases` is how many prompts
    or replies the value is of, where there may be too few to tell.
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
    """What the new version is compared with where it is a question of better or worse: the live one, else the base."""
    return "live" if "live" in card.adapters else "base"


STANDARD_NORMAL = NormalDist()


NORMAL_QUANTILE_975 = STANDARD_NORMAL.inv_cdf(0.975)


"""How many standard errors an interval of 95 % reaches to each side."""


def p_value_of_interval(measured: Interval) -> Callable[[float], float]:
    """The chance of the estimate or more, if the truth were at a threshold.

    By the normal distribution with the standard error that the interval's lower half implies, so that 2.5 % is where
    the interval begins at the threshold.
    """

    def chance(threshold: float) -> float:
        error = (measured.estimate - measured.low) / NORMAL_QUANTILE_975
        above = measured.estimate - threshold
        if error <= 0:
            return 0.0 if above > 0 else 1.0
        return 1 - STANDARD_NORMAL.cdf(above / error)

    return chance


def fisher_p_value(new: float, rival: float, count: int) -> Callable[[float], float]:
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


def holm_rejections(chances: Mapping[str, float], error_rate: float) -> frozenset[str]:
    """Which of the tests fail, so that any of those whose truth is no worse than its threshold fails in no more than
    `error_rate` of cases (S. Holm, "A simple sequentially rejective multiple test procedure", 1979)."""
    failed: set[str] = set()
    for place, name in enumerate(sorted(chances, key=lambda name: (chances[name], name))):
        if chances[name] > error_rate / (len(chances) - place):
            break
        failed.add(name)
    return frozenset(failed)
