"""When is it certain which version members like better? A rule that may be asked after every vote.

Each member counts once: the mean of their votes is one number between 0 (always for the other version) and 1. Bets are
placed on these numbers one by one; capital that has grown to 40 is what a version that is no better reaches with a
chance of at most 1 in 40, whenever one looks (Ville's inequality). With both directions that is an error rate of 5 %
for all that the rule ever says. The bets and their mixture over fixed stakes are those of I. Waudby-Smith and
A. Ramdas, "Estimating means of bounded random variables by betting", Journal of the Royal Statistical Society B 86
(2024).

Up to a tenth of the members may vote as they please, whether they recognise a version or not. The capital is the
smaller of two, so it holds where either of two things is true: that at most a tenth of those counted (rounded up) are
such, in whichever order they come (then without those whose votes helped most it is an honest capital, or less); or
that each further member is such with a chance of at most a tenth, whatever went before (then the mean may be so much
higher).
Assumed of all others: each comes from the same community without being chosen for what they think.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

LEVEL = 0.05
"""The chance that the rule ever says something that is not so."""
BRIGADE = 0.1
"""The share of the members whose votes may be anything."""
LEAST_MEMBERS = 10
"""Nothing is said before so many have voted: among fewer, a tenth is nobody."""
ALIKE = 0.1
"""Versions are alike when neither is ahead by more than this: chosen in 40 to 60 % of the comparisons."""
STAKES = np.linspace(0.05, 0.95, 10)
"""What is bet each time, as shares of what could be lost at most."""
ENOUGH = math.log(2 / LEVEL)
"""The logarithm of the capital at which a direction is certain."""
NEVER = 100_000
"""More members than this are not waited for."""

Ruling = Literal["better", "worse", "alike", "open"]
Floats = Any
"""A numpy array of floats."""


@dataclass(frozen=True)
class Range:
    """Between which bounds the mean of the honest members lies, with a chance of error of `LEVEL` over all time."""

    low: float
    high: float


def rule(values: Sequence[float]) -> Ruling:
    """What is certain after these members, each a number from 0 to 1 in the order in which they were counted.

    What was certain once stays so, with whatever comes later. Versions are "better" or "worse" than the other also
    where they are no more than `ALIKE` apart.
    """
    up, down = _bets(values)
    if up.reached(0.5):
        return "better"
    if down.reached(0.5):
        return "worse"
    if up.reached(0.5 - ALIKE) and down.reached(0.5 - ALIKE):
        return "alike"
    return "open"


def sure_range(values: Sequence[float]) -> Range:
    """The confidence sequence that the rule follows from, as narrow as it has ever been."""
    up, down = _bets(values)
    return Range(up.sure_from(), 1 - down.sure_from())


def members_needed(values: Sequence[float]) -> int | None:
    """How many more members it takes to tell the direction if they vote like these; None where it is too small."""
    if not values:
        return None
    up, down = _bets(values)
    ahead = up if up.values.mean() >= 0.5 else down
    waits = [_wait(sums[-1], len(values)) for sums in ahead.sums(0.5)]
    return None if None in waits else max(wait for wait in waits if wait is not None)


def votes_needed(share: float, power: float = 0.8) -> int:
    """How many votes that are no tie a plain test needs to see that a version is chosen in this share of them.

    Two-sided at `LEVEL`, by the normal approximation of the binomial, without allowance for odd members.
    """
    normal = NormalDist()
    wanted = normal.inv_cdf(1 - LEVEL / 2) * 0.5 + normal.inv_cdf(power) * math.sqrt(share * (1 - share))
    return math.ceil((wanted / (share - 0.5)) ** 2 - 1e-9)


# ------------------------------------------------------------------------------------------------ the capital


@dataclass(frozen=True)
class _Bets:
    """Bets that the honest mean of the values is higher. `loudest` says, after each member, who is left out."""

    values: Floats
    loudest: Floats

    def sums(self, mean: float) -> tuple[Floats, Floats]:
        """For either assumption, the logarithm of the capital after each member (rows) for each stake (columns)."""
        logs = _logs(self.values, mean)
        without_loudest = np.cumsum(logs, axis=0) - self.loudest @ np.maximum(logs, 0)
        higher = (1 - BRIGADE) * mean + BRIGADE
        return without_loudest, np.cumsum(_logs(self.values, higher), axis=0)

    def reached(self, mean: float) -> bool:
        """Whether it was certain at any time that the honest mean is higher than this."""
        if len(self.values) < LEAST_MEMBERS:
            return False
        one, other = (_mixed(sums) for sums in self.sums(mean))
        return bool((np.minimum(one, other)[LEAST_MEMBERS - 1 :] >= ENOUGH).any())

    def sure_from(self) -> float:
        """The highest mean that the bets have won against; they win against all lower ones, too."""
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if self.reached(middle) else (low, middle)
        return low


def _bets(values: Sequence[float]) -> tuple[_Bets, _Bets]:
    """For the version, and against it."""
    up = np.asarray(values, dtype=float)
    return _Bets(up, _loudest(up)), _Bets(1 - up, _loudest(1 - up))


def _logs(values: Floats, mean: float) -> Floats:
    """Each bet multiplies the capital by 1 + stake * (value / mean - 1): its logarithm, members by stakes."""
    return np.log1p(STAKES * (values[:, None] / mean - 1))


def _loudest(values: Floats) -> Floats:
    """After each member (rows), who are the tenth with the highest values: 1 in their columns, else 0."""
    size = len(values)
    found = np.zeros((size, size))
    for count in range(1, size + 1):
        tenth = math.ceil(BRIGADE * count)
        found[count - 1, np.argpartition(-values[:count], tenth - 1)[:tenth]] = 1
    return found


def _mixed(sums: Floats) -> Floats:
    """The capital is shared out equally over the stakes at the start."""
    highest = sums.max(axis=1)
    return highest + np.log(np.exp(sums - highest[:, None]).mean(axis=1))


def _wait(sums: Floats, members: int) -> int | None:
    """How many more members the stake that does best needs, at its own pace."""
    growth = sums / members
    grows = growth > 0
    if not grows.any():
        return None
    fewest = float(((ENOUGH + math.log(len(STAKES)) - sums[grows]) / growth[grows]).min())
    return math.ceil(max(fewest, 1)) if fewest < NEVER else None
