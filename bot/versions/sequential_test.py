"""Anytime-valid sequential tests by betting: evidence that a rollout is worse, and the ruling of a blind test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

ROLLOUT_ALPHA = 0.05


"""The chance, at most, that a version that is no worse is ever taken to be."""


ROLLOUT_SIGNALS = 2


E_VALUE_THRESHOLD = ROLLOUT_SIGNALS / ROLLOUT_ALPHA


MIN_ROLLOUT_MEMBERS = 3


"""No fewer members can bring the evidence to `E_VALUE_THRESHOLD`, whatever they do."""


ALTERNATIVE_RATE_RATIOS = ((1.5, 1.0), (3.0, 1.0), (1.5, 2 / 3), (3.0, 0.5))


"""What is bet on: so many times as many bad replies, so many times as many good ones."""


PAIRED_BET_FRACTIONS = (0.25, 0.5, 0.9)


"""The shares of the coin that are bet on each member's difference."""


MAX_LOG_E_VALUE = 700.0


"""Above this an exponential is no float any more."""


class LikelihoodRatioEProcess:
    """For replies whose version was drawn: the new one with the chance `share`, each reply by itself.

    If it makes no difference which version answers, then whatever befalls a reply, the draw that made it says "new"
    with the chance `share`, also where some members vote more, or worse, than others, or all at one time of the day.
    A reply that was judged multiplies the coin by how much likelier its draw is where the new version is worse: a
    sequential likelihood ratio, exact for two proportions (Turner, Ly and Grünwald, "Generic E-variables for exact
    sequential k-sample tests that allow for optional stopping", J. Statist. Plann. Inference 230, 2024). The coin is
    split evenly between the bets of `ALTERNATIVE_RATE_RATIOS`.

    That holds while members do not vote by the version's name, which stands under each reply. Therefore what one member
    multiplies it by is capped, such that it takes `MIN_ROLLOUT_MEMBERS`; a cap only makes it less.
    """

    def __init__(self, share: float) -> None:
        self._bets = [_LikelihoodRatioBet(share, bad, good) for bad, good in ALTERNATIVE_RATE_RATIOS]

    def add(self, member: int, *, is_new: bool, is_bad: bool) -> None:
        """A reply was judged by a member; each reply counts once."""
        for bet in self._bets:
            bet.add(member, is_new=is_new, is_bad=is_bad)

    @property
    def evidence(self) -> float:
        """What one coin has become."""
        return sum(math.exp(min(bet.log, MAX_LOG_E_VALUE)) for bet in self._bets) / len(self._bets)


class _LikelihoodRatioBet:
    """One bet of `ALTERNATIVE_RATE_RATIOS`, member by member."""

    def __init__(self, share: float, bad: float, good: float) -> None:
        self.log = 0.0
        self._logs = {True: _log_ratios(share, bad), False: _log_ratios(share, good)}
        self._members: dict[int, float] = {}

    def add(self, member: int, *, is_new: bool, is_bad: bool) -> None:
        cap = math.log(E_VALUE_THRESHOLD) / MIN_ROLLOUT_MEMBERS
        before = self._members.get(member, 0.0)
        after = self._members[member] = before + self._logs[is_bad][is_new]
        self.log += min(after, cap) - min(before, cap)


def _log_ratios(share: float, times: float) -> dict[bool, float]:
    """By whether the draw said "new": how much likelier that is where such replies are so many times as frequent."""
    likely = share * times / (share * times + 1 - share)
    return {True: math.log(likely / share), False: math.log((1 - likely) / (1 - share))}


class PairedEProcess:
    """For a version that came after the other: each member's share of bad replies then and now, compared.

    If members' replies are bad as often as before, the difference of the two shares is 0 in the mean, whatever each
    member's own habit is. Each member multiplies the coin by one plus a stake times their difference, once: the betting
    martingale for means of bounded values (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
    betting", J. R. Statist. Soc. B 86(1), 2024). The coin is split evenly between `PAIRED_BET_FRACTIONS`.

    Nothing was drawn here, so this assumes that nothing else changed between then and now, and that members go on
    talking or not for other reasons than their replies. One member at most doubles the coin.
    """

    def __init__(self) -> None:
        self._logs = [0.0] * len(PAIRED_BET_FRACTIONS)

    def add(self, before: float, now: float) -> None:
        """A member's shares of bad replies, from 0 to 1."""
        for number, stake in enumerate(PAIRED_BET_FRACTIONS):
            self._logs[number] += math.log1p(stake * (now - before))

    @property
    def evidence(self) -> float:
        """What one coin has become."""
        return sum(math.exp(min(log, MAX_LOG_E_VALUE)) for log in self._logs) / len(self._logs)


RULING_ALPHA = 0.05


"""The chance that the rule ever says something that is not so."""


MAX_CONTAMINATED_SHARE = 0.1


"""The share of the members whose votes may be anything."""


MIN_RULING_MEMBERS = 10


"""Nothing is said before so many have voted: among fewer, a tenth is nobody."""


EQUIVALENCE_MARGIN = 0.1


"""Versions are alike when neither is ahead by more than this: chosen in 40 to 60 % of the comparisons."""


RULING_BET_FRACTIONS = np.linspace(0.05, 0.95, 10)


"""What is bet each time, as shares of what could be lost at most."""


LOG_CAPITAL_THRESHOLD = math.log(2 / RULING_ALPHA)


"""The logarithm of the capital at which a direction is certain."""


MAX_MEMBERS_NEEDED = 100_000


"""More members than this are not waited for."""


Ruling = Literal["better", "worse", "alike", "open"]


FloatArray = Any


"""A numpy array of floats."""


@dataclass(frozen=True)
class ConfidenceRange:
    """Between which bounds the mean of the honest members lies, with a chance of error of `RULING_ALPHA` over all time."""

    low: float
    high: float


def decide_ruling(values: Sequence[float]) -> Ruling:
    """What is certain after these members, each a number from 0 to 1 in the order in which they were counted.

    What was certain once stays so, with whatever comes later. Versions are "better" or "worse" than the other also
    where they are no more than `EQUIVALENCE_MARGIN` apart.
    """
    up, down = _mean_tests(values)
    if up.reached(0.5):
        return "better"
    if down.reached(0.5):
        return "worse"
    if up.reached(0.5 - EQUIVALENCE_MARGIN) and down.reached(0.5 - EQUIVALENCE_MARGIN):
        return "alike"
    return "open"


def confidence_range(values: Sequence[float]) -> ConfidenceRange:
    """The confidence sequence that the rule follows from, as narrow as it has ever been."""
    up, down = _mean_tests(values)
    return ConfidenceRange(up.lower_bound(), 1 - down.lower_bound())


def members_needed(values: Sequence[float]) -> int | None:
    """How many more members it takes to tell the direction if they vote like these; None where it is too small."""
    if not values:
        return None
    up, down = _mean_tests(values)
    ahead = up if up.values.mean() >= 0.5 else down
    waits = [_members_to_threshold(sums[-1], len(values)) for sums in ahead.sums(0.5)]
    return None if None in waits else max(wait for wait in waits if wait is not None)


def votes_needed(share: float, power: float = 0.8) -> int:
    """How many votes that are no tie a plain test needs to see that a version is chosen in this share of them.

    Two-sided at `RULING_ALPHA`, by the normal approximation of the binomial, without allowance for odd members.
    """
    normal = NormalDist()
    wanted = normal.inv_cdf(1 - RULING_ALPHA / 2) * 0.5 + normal.inv_cdf(power) * math.sqrt(share * (1 - share))
    return math.ceil((wanted / (share - 0.5)) ** 2 - 1e-9)


# ------------------------------------------------------------------------------------------------ the capital


@dataclass(frozen=True)
class _MeanTest:
    """Bets that the honest mean of the values is higher. `loudest` says, after each member, who is left out."""

    values: FloatArray
    trim_masks: FloatArray

    def sums(self, mean: float) -> tuple[FloatArray, FloatArray]:
        """For either assumption, the logarithm of the capital after each member (rows) for each stake (columns)."""
        logs = _log_payoffs(self.values, mean)
        without_loudest = np.cumsum(logs, axis=0) - self.trim_masks @ np.maximum(logs, 0)
        higher = (1 - MAX_CONTAMINATED_SHARE) * mean + MAX_CONTAMINATED_SHARE
        return without_loudest, np.cumsum(_log_payoffs(self.values, higher), axis=0)

    def reached(self, mean: float) -> bool:
        """Whether it was certain at any time that the honest mean is higher than this."""
        if len(self.values) < MIN_RULING_MEMBERS:
            return False
        one, other = (_log_mixture(sums) for sums in self.sums(mean))
        return bool((np.minimum(one, other)[MIN_RULING_MEMBERS - 1 :] >= LOG_CAPITAL_THRESHOLD).any())

    def lower_bound(self) -> float:
        """The highest mean that the bets have won against; they win against all lower ones, too."""
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if self.reached(middle) else (low, middle)
        return low


def _mean_tests(values: Sequence[float]) -> tuple[_MeanTest, _MeanTest]:
    """For the version, and against it."""
    up = np.asarray(values, dtype=float)
    return _MeanTest(up, _trim_masks(up)), _MeanTest(1 - up, _trim_masks(1 - up))


def _log_payoffs(values: FloatArray, mean: float) -> FloatArray:
    """Each bet multiplies the capital by 1 + stake * (value / mean - 1): its logarithm, members by stakes."""
    return np.log1p(RULING_BET_FRACTIONS * (values[:, None] / mean - 1))


def _trim_masks(values: FloatArray) -> FloatArray:
    """After each member (rows), who are the tenth with the highest values: 1 in their columns, else 0."""
    size = len(values)
    found = np.zeros((size, size))
    for count in range(1, size + 1):
        tenth = math.ceil(MAX_CONTAMINATED_SHARE * count)
        found[count - 1, np.argpartition(-values[:count], tenth - 1)[:tenth]] = 1
    return found


def _log_mixture(sums: FloatArray) -> FloatArray:
    """The capital is shared out equally over the stakes at the start."""
    highest = sums.max(axis=1)
    return highest + np.log(np.exp(sums - highest[:, None]).mean(axis=1))


def _members_to_threshold(sums: FloatArray, members: int) -> int | None:
    """How many more members the stake that does best needs, at its own pace."""
    growth = sums / members
    grows = growth > 0
    if not grows.any():
        return None
    fewest = float(((LOG_CAPITAL_THRESHOLD + math.log(len(RULING_BET_FRACTIONS)) - sums[grows]) / growth[grows]).min())
    return math.ceil(max(fewest, 1)) if fewest < MAX_MEMBERS_NEEDED else None
