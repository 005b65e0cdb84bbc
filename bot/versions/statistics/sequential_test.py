"""One anytime-valid sequential test by betting, with the payoffs of rollouts and of blind votes.

Each test bets against a null hypothesis, in several ways at once: the starting capital of 1 is
split evenly over the bets, and the capital is at any time at most what fair bets yield in the mean.
By Ville's inequality it ever reaches `E_VALUE_THRESHOLD` with a probability of at most `ALPHA` /
`TESTS` under the null hypothesis, however often one looks. `log_mixture` and the threshold are
common to all three; what is bet on differs with what is known of the data: a random draw for each
reply (`LikelihoodRatioEProcess`), the same member before and after (`PairedEProcess`), or a bounded
mean of which a tenth may be forged (`decide_ruling`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

FloatArray = Any  # a numpy array of floats
Ruling = Literal["better", "worse", "alike", "open"]

ALPHA = 0.05  # probability, at most, that a rollout or a blind test ever yields a false finding
# Tests that share `ALPHA`: votes and interruptions of a rollout; both directions of a blind test.
TESTS = 2
E_VALUE_THRESHOLD = TESTS / ALPHA
LOG_E_VALUE_THRESHOLD = math.log(E_VALUE_THRESHOLD)
MAX_LOG_E_VALUE = 700.0  # larger exponents overflow a float

MIN_ROLLOUT_MEMBERS = (
    3  # fewer members cannot bring the evidence to `E_VALUE_THRESHOLD`, whatever they do
)
ALTERNATIVE_RATE_RATIOS = ((1.5, 1.0), (3.0, 1.0), (1.5, 2 / 3), (3.0, 0.5))
"""Alternatives bet on: rate ratio of bad replies and of good replies, new version to old."""
PAIRED_BET_FRACTIONS = np.array(
    (0.25, 0.5, 0.9)
)  # fractions of the capital bet on each member's difference

MAX_CONTAMINATED_SHARE = 0.1  # share of the members whose votes may be anything
MIN_RULING_MEMBERS = 10  # minimum members for a ruling: a tenth of fewer is less than one
EQUIVALENCE_MARGIN = 0.1  # versions are alike when each is chosen in 40 to 60 % of the comparisons
RULING_BET_FRACTIONS = np.linspace(0.05, 0.95, 10)  # bets as fractions of what can be lost at most
MAX_MEMBERS_NEEDED = 100_000


def log_mixture(log_capitals: FloatArray) -> FloatArray:
    """Log of the whole capital, from the log capital of each bet (last axis), the start split
    evenly.
    """
    # Divided by the highest before the exponential, which would overflow.
    highest = log_capitals.max(axis=-1, keepdims=True)
    return highest[..., 0] + np.log(np.exp(log_capitals - highest).mean(axis=-1))


class EProcess:
    """The capital of a number of bets, one payoff after another."""

    def __init__(self, bets: int) -> None:
        self._log_capitals = np.zeros(bets)

    def _multiply(self, log_payoffs: FloatArray) -> None:
        self._log_capitals = self._log_capitals + log_payoffs

    @property
    def evidence(self) -> float:
        """The e-value: the capital that a start of 1 has become."""
        return math.exp(min(float(log_mixture(self._log_capitals)), MAX_LOG_E_VALUE))


class LikelihoodRatioEProcess(EProcess):
    """Evidence of a rollout whose version is drawn for each reply, the new one with probability
    `share`.

    If the versions do not differ, then whatever happens to a reply, its draw was "new" with
    probability `share`, also where some members vote more, or worse, than others, or all at one
    time of the day. A judged reply multiplies the capital by how much likelier its draw is where
    the new version is worse: a sequential likelihood ratio, exact for two proportions (Turner, Ly
    and Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional
    stopping", J. Statist. Plann. Inference 230, 2024). The bets are `ALTERNATIVE_RATE_RATIOS`.

    That holds while members do not vote by the version's name, which stands under each reply.
    Therefore one member's factor is capped so that the threshold takes `MIN_ROLLOUT_MEMBERS`; a cap
    only makes it smaller.
    """

    def __init__(self, share: float) -> None:
        super().__init__(len(ALTERNATIVE_RATE_RATIOS))
        bad, good = np.array(ALTERNATIVE_RATE_RATIOS).T
        self._payoffs = {
            True: _log_likelihood_ratios(share, bad),
            False: _log_likelihood_ratios(share, good),
        }
        self._members: dict[int, FloatArray] = {}

    def add(self, member: int, *, is_new: bool, is_bad: bool) -> None:
        """Count a reply that a member judged; each reply counts once."""
        cap = LOG_E_VALUE_THRESHOLD / MIN_ROLLOUT_MEMBERS
        before = self._members.get(member, np.zeros(len(ALTERNATIVE_RATE_RATIOS)))
        after = self._members[member] = before + self._payoffs[is_bad][is_new]
        self._multiply(np.minimum(after, cap) - np.minimum(before, cap))


def _log_likelihood_ratios(share: float, rate_ratios: FloatArray) -> dict[bool, FloatArray]:
    """Log likelihood ratios of a draw, by whether it was "new", for replies `rate_ratios` times as
    frequent.
    """
    likely = share * rate_ratios / (share * rate_ratios + 1 - share)
    return {True: np.log(likely / share), False: np.log((1 - likely) / (1 - share))}


class PairedEProcess(EProcess):
    """Evidence of a version that replaced another: each member's share of bad replies before and
    after.

    If members' replies are bad as often as before, the difference of the two shares is 0 in the
    mean, whatever each member's own habit is. Each member multiplies the capital once, by one plus
    a fraction times their difference: the betting martingale for means of bounded values
    (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", J. R.
    Statist. Soc. B 86(1), 2024). The bets are `PAIRED_BET_FRACTIONS`.

    Nothing is drawn here, so this assumes that nothing else changed in between, and that members go
    on talking or not for other reasons than their replies. One member at most doubles the capital.
    """

    def __init__(self) -> None:
        super().__init__(len(PAIRED_BET_FRACTIONS))

    def add(self, before: float, now: float) -> None:
        """Count a member's shares of bad replies, from 0 to 1."""
        self._multiply(np.log1p(PAIRED_BET_FRACTIONS * (now - before)))


# -------------------------------------------------------------------------------------- blind votes


@dataclass(frozen=True)
class ConfidenceRange:
    """Bounds of the honest members' mean, with a probability of error of `ALPHA` over all time."""

    low: float
    high: float


def decide_ruling(values: Sequence[float]) -> Ruling:
    """Rule on the members' scores, each from 0 to 1, in the order in which they were counted.

    A ruling stays, whatever comes later. A version can be "better" or "worse" also where both are
    no more than `EQUIVALENCE_MARGIN` apart. Up to `MAX_CONTAMINATED_SHARE` of the members may vote
    in any way.
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
    """Compute the confidence sequence behind the ruling, at its narrowest so far."""
    up, down = _mean_tests(values)
    return ConfidenceRange(up.lower_bound(), 1 - down.lower_bound())


def members_needed(values: Sequence[float]) -> int | None:
    """Estimate how many more members a ruling takes if they vote like these; None if more than
    `MAX_MEMBERS_NEEDED`.
    """
    if not values:
        return None
    up, down = _mean_tests(values)
    ahead = up if up.values.mean() >= 0.5 else down
    waits = [_members_to_threshold(sums[-1], len(values)) for sums in ahead.sums(0.5)]
    if None in waits:
        return None
    return max(wait for wait in waits if wait is not None)


def votes_needed(share: float, power: float = 0.8) -> int:
    """Compute how many votes without ties a plain test needs to detect that a version is chosen in
    this share of them.

    Two-sided at `ALPHA`, by the normal approximation of the binomial, without allowance for odd
    members.
    """
    normal = NormalDist()
    wanted = normal.inv_cdf(1 - ALPHA / 2) * 0.5 + normal.inv_cdf(power) * math.sqrt(
        share * (1 - share)
    )
    # Less a little, because rounding errors must not raise a whole number by one.
    return math.ceil((wanted / (share - 0.5)) ** 2 - 1e-9)


@dataclass(frozen=True)
class _MeanTest:
    """Bets that the honest mean of the values is higher. `trim_masks` marks, after each member, who
    is left out.
    """

    values: FloatArray
    trim_masks: FloatArray

    def sums(self, mean: float) -> tuple[FloatArray, FloatArray]:
        """Log capital after each member (rows) for each bet (columns), for either assumption on the
        forged votes.
        """
        logs = _log_payoffs(self.values, mean)
        trimmed = np.cumsum(logs, axis=0) - self.trim_masks @ np.maximum(logs, 0)
        higher = (1 - MAX_CONTAMINATED_SHARE) * mean + MAX_CONTAMINATED_SHARE
        return trimmed, np.cumsum(_log_payoffs(self.values, higher), axis=0)

    def reached(self, mean: float) -> bool:
        """Report whether the honest mean was ever certain to be higher than this."""
        if len(self.values) < MIN_RULING_MEMBERS:
            return False
        trimmed, shifted = (log_mixture(sums) for sums in self.sums(mean))
        # Whichever votes are forged: the weaker of both assumptions counts.
        evidence = np.minimum(trimmed, shifted)[MIN_RULING_MEMBERS - 1 :]
        return bool((evidence >= LOG_E_VALUE_THRESHOLD).any())

    def lower_bound(self) -> float:
        """Find the highest mean that the bets have won against; they win against all lower ones,
        too.
        """
        low = 0.0
        high = 1.0
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if self.reached(middle) else (low, middle)
        return low


def _mean_tests(values: Sequence[float]) -> tuple[_MeanTest, _MeanTest]:
    up = np.asarray(values, dtype=float)
    return _MeanTest(up, _trim_masks(up)), _MeanTest(1 - up, _trim_masks(1 - up))


def _log_payoffs(values: FloatArray, mean: float) -> FloatArray:
    """Log payoffs, members by bets: a bet multiplies the capital by 1 + fraction * (value / mean -
    1).
    """
    return np.log1p(RULING_BET_FRACTIONS * (values[:, None] / mean - 1))


def _trim_masks(values: FloatArray) -> FloatArray:
    """Mark, after each member (rows), the tenth of the members with the highest values: 1 in their
    columns, else 0.
    """
    size = len(values)
    masks = np.zeros((size, size))
    for count in range(1, size + 1):
        tenth = math.ceil(MAX_CONTAMINATED_SHARE * count)
        masks[count - 1, np.argpartition(-values[:count], tenth - 1)[:tenth]] = 1
    return masks


def _members_to_threshold(sums: FloatArray, members: int) -> int | None:
    """Extrapolate how many more members the best bet needs, at its own growth."""
    growth = sums / members
    grows = growth > 0
    if not grows.any():
        return None
    fewest = float(
        (
            (LOG_E_VALUE_THRESHOLD + math.log(len(RULING_BET_FRACTIONS)) - sums[grows])
            / growth[grows]
        ).min()
    )
    if fewest < MAX_MEMBERS_NEEDED:
        return math.ceil(max(fewest, 1))
    return None
