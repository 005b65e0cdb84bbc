"""Bradley-Terry strengths of versions, with bootstrap intervals by member."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bot.store import BlindComparison

BOOTSTRAP_SAMPLES = 1000
MIN_INTERVAL_MEMBERS = 5
"""Members that resampling needs to estimate their spread."""
MAX_ITERATIONS = 500
"""Limit of Hunter's iterations; two versions take one."""

FloatArray = Any  # a numpy array of floats


@dataclass(frozen=True)
class VersionStrength:
    """Strength of a version relative to the one it is compared with, in log-odds, with its
    interval.

    `low` and `high` are the 95 % interval by resampling members with all their votes; None with too
    few of them.
    """

    version: str
    log_odds: float
    low: float | None
    high: float | None


def fit_strengths(votes: Sequence[BlindComparison], reference: str) -> list[VersionStrength]:
    """The strengths of all versions that were compared with `reference`, directly or over others;
    strongest first.
    """
    versions = _connected_versions(votes, reference)
    places = {version: place for place, version in enumerate(versions)}
    wins = _wins_by_member([vote for vote in votes if vote.versions[0] in places], places)
    total = wins.sum(axis=0)
    compared = (total + total.T > 0) * 0.5
    log_odds = _fit_log_odds(total[None] + compared)[0]
    lows, highs = _interval(wins, compared)
    strengths = []
    for version, place in places.items():
        if version != reference:
            low = _at(lows, place)
            high = _at(highs, place)
            strengths.append(VersionStrength(version, float(log_odds[place]), low, high))
    return sorted(strengths, key=lambda strength: -strength.log_odds)


def win_probability(log_odds: float) -> float:
    """Convert a strength to the share of comparisons in which the version is preferred."""
    return float(1 / (1 + np.exp(-log_odds)))


def _connected_versions(votes: Iterable[BlindComparison], reference: str) -> list[str]:
    """The reference and what was compared with it, directly or over others, in order."""
    pairs = {frozenset(vote.versions) for vote in votes}
    connected = {reference}
    size = 0
    while len(connected) > size:
        size = len(connected)
        for pair in pairs:
            if connected & pair:
                connected |= pair
    return [reference, *sorted(connected - {reference})]


def _wins_by_member(votes: Sequence[BlindComparison], places: dict[str, int]) -> FloatArray:
    """Count how often each member (first axis) chose the one version (second) over the other
    (third).
    """
    members: dict[int, int] = {}
    for vote in votes:
        members.setdefault(vote.user_id, len(members))
    wins = np.zeros((len(members), len(places), len(places)))
    for vote in votes:
        member = members[vote.user_id]
        a, b = (places[version] for version in vote.versions)
        for_a = {"a": 1.0, "b": 0.0}.get(vote.choice or "", 0.5)
        wins[member, a, b] += for_a
        wins[member, b, a] += 1 - for_a
    return wins


def _interval(
    wins: FloatArray, compared: FloatArray
) -> tuple[FloatArray | None, FloatArray | None]:
    members = len(wins)
    if members < MIN_INTERVAL_MEMBERS:
        return None, None
    drawn = np.random.default_rng(0).multinomial(
        members, np.full(members, 1 / members), size=BOOTSTRAP_SAMPLES
    )
    fits = _fit_log_odds(np.tensordot(drawn, wins, axes=1) + compared)
    low, high = np.quantile(fits, (0.025, 0.975), axis=0)
    return low, high


def _fit_log_odds(wins: FloatArray) -> FloatArray:
    """The log-odds of each version (last axis) over the first of them, for each table of wins
    (first axis).
    """
    games = wins + wins.transpose(0, 2, 1)
    won = wins.sum(axis=2)
    strength = np.ones(won.shape)
    for _ in range(MAX_ITERATIONS):
        met = (games / (strength[:, :, None] + strength[:, None, :])).sum(axis=2)
        after = won / np.where(met > 0, met, 1)
        after = np.where(after > 0, after, 1)
        after /= after.sum(axis=1, keepdims=True)
        if np.abs(after - strength).max() < 1e-9:
            break
        strength = after
    logs = np.log(after)
    return logs - logs[:, :1]


def _at(values: FloatArray | None, place: int) -> float | None:
    return None if values is None else float(values[place])
