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
from typing import Any

import numpy as np

FloatArray = Any  # a numpy array of floats

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
