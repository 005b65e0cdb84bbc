"""P-values of the gate's tests: normal, Fisher, Holm."""

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist

from personas.schemas.scorecard import Interval

STANDARD_NORMAL = NormalDist()
NORMAL_QUANTILE_975 = STANDARD_NORMAL.inv_cdf(0.975)
"""Standard errors that a 95 % interval reaches to each side."""
PValue = Callable[[float], float]


def p_value_of_interval(measured: Interval) -> PValue:
    """Return the probability of the estimate or more if the truth were at a threshold.

    Uses the normal distribution with the standard error implied by the interval's lower half, so
    that the p-value is 2.5 % if the interval begins at the threshold.
    """

    def chance(threshold: float) -> float:
        error = (measured.estimate - measured.low) / NORMAL_QUANTILE_975
        above = measured.estimate - threshold
        if error <= 0:
            return 0.0 if above > 0 else 1.0
        return 1 - STANDARD_NORMAL.cdf(above / error)

    return chance


def fisher_p_value(new: float, rival: float, count: int) -> PValue:
    """Return the probability of this share of `count` trials or a larger one if both sides had the
    same rate.

    Fisher's exact test of two shares with as many trials each. Runs with several seeds count as one
    trial because they answer the same prompt. The test only supports a threshold of 0 and raises
    `ValueError` for any other.
    """

    def chance(threshold: float) -> float:
        if threshold:
            raise ValueError("a test of two shares needs a threshold of 0")
        mine = round(new * count)
        both = mine + round(rival * count)
        ways = 0
        # Of all ways to divide these cases between two sides, those with as many or more on mine.
        for cases in range(mine, min(both, count) + 1):
            ways += math.comb(count, cases) * math.comb(count, both - cases)
        return ways / math.comb(2 * count, both)

    return chance


def holm_rejections(chances: Mapping[str, float], error_rate: float) -> frozenset[str]:
    """Return the tests that fail, with a family-wise error rate of at most `error_rate`.

    Holm's step-down procedure (S. Holm, "A simple sequentially rejective multiple test procedure",
    1979).
    """
    failed: set[str] = set()
    for place, name in enumerate(sorted(chances, key=lambda name: (chances[name], name))):
        if chances[name] > error_rate / (len(chances) - place):
            break
        failed.add(name)
    return frozenset(failed)
