"""Sign test of two versions: which of them more members prefer.

Each member counts once. The votes are looked at when so many members as `LOOKS` says prefer one of
the two, at a level of `ALPHA` divided by the number of looks each: by Bonferroni's inequality, a
preference that is not there is found at any of them with a probability of at most `ALPHA`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Ruling = Literal["better", "worse", "open", "undecided"]

ALPHA = 0.05  # probability, at most, of a false ruling
LOOKS = (10, 20, 40)  # members with a preference at which the votes are looked at
MAX_CONTAMINATED_SHARE = 0.1  # share of the members whose votes may be anything
NO_PREFERENCE = 0.5  # score of a member who prefers neither version


@dataclass(frozen=True)
class SignTest:
    """Result: of so many `members` with a preference, `preferring` prefer the version.

    They are those of the look that decided; with a ruling of "open" those so far. "undecided" is
    final, too: the last look has found nothing.
    """

    ruling: Ruling
    preferring: int
    members: int

    @property
    def share(self) -> float | None:
        """Share of the members who prefer the version, as far as it is significant."""
        return self.preferring / self.members if self.ruling in ("better", "worse") else None

    @property
    def next_look(self) -> int | None:
        """Members at which the votes are looked at next; None once there is a ruling."""
        if self.ruling != "open":
            return None
        return next(look for look in LOOKS if look > self.members)


def run_sign_test(scores: Sequence[float]) -> SignTest:
    """Test the members' scores, from 0 (the other version) to 1, in the order in which they were
    counted. A member who prefers neither counts for neither.
    """
    prefers = [score > NO_PREFERENCE for score in scores if score != NO_PREFERENCE]
    for look in LOOKS:
        if len(prefers) < look:
            return SignTest("open", sum(prefers), len(prefers))
        preferring = sum(prefers[:look])
        if sign_test_p_value(preferring, look) <= ALPHA / len(LOOKS):
            ruling: Ruling = "better" if 2 * preferring > look else "worse"
            return SignTest(ruling, preferring, look)
    return SignTest("undecided", preferring, look)


def sign_test_p_value(preferring: int, members: int) -> float:
    """Compute the exact two-sided p-value of so many members who prefer the version.

    A tenth of the members (rounded up) is left out on the side of the majority: if any tenth
    coordinates, the rest is no more than honest members alone would have voted.
    """
    left_out = math.ceil(MAX_CONTAMINATED_SHARE * members)
    honest = members - left_out
    majority = max(preferring, members - preferring) - left_out
    return min(1.0, 2 * binomial_tail(majority, honest, 0.5))


def binomial_tail(hits: int, trials: int, share: float) -> float:
    """Compute the probability of at least this many hits."""
    return sum(
        math.comb(trials, count) * share**count * (1 - share) ** (trials - count)
        for count in range(hits, trials + 1)
    )
