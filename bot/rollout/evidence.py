"""Evidence that members fare worse with one version than with another, which may be looked at after every vote.

Both kinds here are nonnegative processes that do not grow in expectation while the new version is no worse: a gambler
bets that it is worse, and `evidence` is what one coin has become. By Ville's inequality it ever reaches `NEEDED` with a
chance of 1 / `NEEDED` at most, however often one looks and whenever one stops (Ramdas, Grünwald, Vovk and Shafer,
"Game-theoretic statistics and safe anytime-valid inference", Statistical Science 38(4), 2023). There are two signs,
votes and interruptions, each with half of `ALPHA`.
"""

from __future__ import annotations

import math

ALPHA = 0.05
"""The chance, at most, that a version that is no worse is ever taken to be."""
SIGNS = 2
NEEDED = SIGNS / ALPHA
LEAST_MEMBERS = 3
"""No fewer members can bring the evidence to `NEEDED`, whatever they do."""

WORSE = ((1.5, 1.0), (3.0, 1.0), (1.5, 2 / 3), (3.0, 0.5))
"""What is bet on: so many times as many bad replies, so many times as many good ones."""
STAKES = (0.25, 0.5, 0.9)
"""The shares of the coin that are bet on each member's difference."""
HIGHEST_LOG = 700.0
"""Above this an exponential is no float any more."""


class DrawnEvidence:
    """For replies whose version was drawn: the new one with the chance `share`, each reply by itself.

    If it makes no difference which version answers, then whatever befalls a reply, the draw that made it says "new"
    with the chance `share`, also where some members vote more, or worse, than others, or all at one time of the day.
    A reply that was judged multiplies the coin by how much likelier its draw is where the new version is worse: a
    sequential likelihood ratio, exact for two proportions (Turner, Ly and Grünwald, "Generic E-variables for exact
    sequential k-sample tests that allow for optional stopping", J. Statist. Plann. Inference 230, 2024). The coin is
    split evenly between the bets of `WORSE`.

    That holds while members do not vote by the version's name, which stands under each reply. Therefore what one member
    multiplies it by is capped, such that it takes `LEAST_MEMBERS`; a cap only makes it less.
    """

    def __init__(self, share: float) -> None:
        self._bets = [_Bet(share, bad, good) for bad, good in WORSE]

    def add(self, member: int, *, is_new: bool, is_bad: bool) -> None:
        """A reply was judged by a member; each reply counts once."""
        for bet in self._bets:
            bet.add(member, is_new=is_new, is_bad=is_bad)

    @property
    def evidence(self) -> float:
        """What one coin has become."""
        return sum(math.exp(min(bet.log, HIGHEST_LOG)) for bet in self._bets) / len(self._bets)


class _Bet:
    """One bet of `WORSE`, member by member."""

    def __init__(self, share: float, bad: float, good: float) -> None:
        self.log = 0.0
        self._logs = {True: _log_ratios(share, bad), False: _log_ratios(share, good)}
        self._members: dict[int, float] = {}

    def add(self, member: int, *, is_new: bool, is_bad: bool) -> None:
        cap = math.log(NEEDED) / LEAST_MEMBERS
        before = self._members.get(member, 0.0)
        after = self._members[member] = before + self._logs[is_bad][is_new]
        self.log += min(after, cap) - min(before, cap)


def _log_ratios(share: float, times: float) -> dict[bool, float]:
    """By whether the draw said "new": how much likelier that is where such replies are so many times as frequent."""
    likely = share * times / (share * times + 1 - share)
    return {True: math.log(likely / share), False: math.log((1 - likely) / (1 - share))}


class PairedEvidence:
    """For a version that came after the other: each member's share of bad replies then and now, compared.

    If members' replies are bad as often as before, the difference of the two shares is 0 in the mean, whatever each
    member's own habit is. Each member multiplies the coin by one plus a stake times their difference, once: the betting
    martingale for means of bounded values (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
    betting", J. R. Statist. Soc. B 86(1), 2024). The coin is split evenly between `STAKES`.

    Nothing was drawn here, so this assumes that nothing else changed between then and now, and that members go on
    talking or not for other reasons than their replies. One member at most doubles the coin.
    """

    def __init__(self) -> None:
        self._logs = [0.0] * len(STAKES)

    def add(self, before: float, now: float) -> None:
        """A member's shares of bad replies, from 0 to 1."""
        for number, stake in enumerate(STAKES):
            self._logs[number] += math.log1p(stake * (now - before))

    @property
    def evidence(self) -> float:
        """What one coin has become."""
        return sum(math.exp(min(log, HIGHEST_LOG)) for log in self._logs) / len(self._logs)
