"""How strong versions are against each other: Bradley and Terry's model, with intervals resampled by member.

A version beats another with the odds exp(strength - other strength). Fitted by the iteration of D. R. Hunter, "MM
algorithms for generalized Bradley-Terry models", Annals of Statistics 32 (2004). A tie, and "both bad", is half a win
for either: it says that neither is better, and leaving it out would make a small difference look sure. One tie that
nobody voted is added between versions that were compared, so that few votes for one side do not give endless odds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bot.store import Comparison

DRAWS = 1000
"""How often members are resampled."""
LEAST_MEMBERS = 5
"""Of fewer members, no resampling says how much they differ."""
ROUNDS = 500
"""Of Hunter's iteration, at most; two versions take one."""

Floats = Any
"""A numpy array of floats."""


@dataclass(frozen=True)
class Strength:
    """How much stronger a version is than the one it is compared with, in log-odds, and from where to where that lies.

    `low` and `high` are the 95 % interval by resampling members with all their votes; None with too few of them.
    """

    version: str
    log_odds: float
    low: float | None
    high: float | None


def strengths(votes: Sequence[Comparison], reference: str) -> list[Strength]:
    """The strengths of all versions that were compared with `reference`, directly or over others; strongest first."""
    versions = _connected(votes, reference)
    places = {version: place for place, version in enumerate(versions)}
    wins = _wins_by_member([vote for vote in votes if vote.versions[0] in places], places)
    total = wins.sum(axis=0)
    compared = (total + total.T > 0) * 0.5
    found = _fitted(total[None] + compared)[0]
    lows, highs = _interval(wins, compared)
    made = [
        Strength(version, float(found[place]), _at(lows, place), _at(highs, place))
        for version, place in places.items()
        if version != reference
    ]
    return sorted(made, key=lambda strength: -strength.log_odds)


def chance(log_odds: float) -> float:
    """In which share of comparisons a version so much stronger is preferred."""
    return float(1 / (1 + np.exp(-log_odds)))


def _connected(votes: Iterable[Comparison], reference: str) -> list[str]:
    """The reference and what was compared with it, directly or over others, in order."""
    pairs, found = {vote.versions for vote in votes}, {reference}
    while new := {version for pair in pairs if found & set(pair) for version in pair} - found:
        found |= new
    return [reference, *sorted(found - {reference})]


def _wins_by_member(votes: Sequence[Comparison], places: dict[str, int]) -> Floats:
    """How often each member (first axis) chose the one version (second) over the other (third)."""
    members = {user: number for number, user in enumerate(dict.fromkeys(vote.user_id for vote in votes))}
    wins = np.zeros((len(members), len(places), len(places)))
    for vote in votes:
        member, (a, b) = members[vote.user_id], (places[version] for version in vote.versions)
        for_a = {"a": 1.0, "b": 0.0}.get(vote.choice or "", 0.5)
        wins[member, a, b] += for_a
        wins[member, b, a] += 1 - for_a
    return wins


def _interval(wins: Floats, compared: Floats) -> tuple[Floats | None, Floats | None]:
    members = len(wins)
    if members < LEAST_MEMBERS:
        return None, None
    drawn = np.random.default_rng(0).multinomial(members, np.full(members, 1 / members), size=DRAWS)
    fits = _fitted(np.tensordot(drawn, wins, axes=1) + compared)
    low, high = np.quantile(fits, (0.025, 0.975), axis=0)
    return low, high


def _fitted(wins: Floats) -> Floats:
    """The log-odds of each version (last axis) over the first of them, for each table of wins (first axis)."""
    games, won = wins + wins.transpose(0, 2, 1), wins.sum(axis=2)
    strength = np.ones(won.shape)
    for _ in range(ROUNDS):
        met = (games / (strength[:, :, None] + strength[:, None, :])).sum(axis=2)
        after = won / np.where(met > 0, met, 1)
        after = np.where(after > 0, after, 1)
        after /= after.sum(axis=1, keepdims=True)
        if np.abs(after - strength).max() < 1e-9:
            break
        strength = after
    logs = np.log(after)
    return logs - logs[:, :1]


def _at(values: Floats | None, place: int) -> float | None:
    return None if values is None else float(values[place])
