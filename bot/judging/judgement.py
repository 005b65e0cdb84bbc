"""What members' votes say of two versions: counts, strength, ruling, what is missing, whose votes are odd."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bot.judging.odd import OddMember, odd_members
from bot.judging.rule import Range, Ruling, members_needed, rule, sure_range
from bot.judging.strength import Strength, strengths
from bot.store import Comparison

MOST_VOTES = 10
"""So many of a member's votes between two versions count for the rule, so that each speaks once."""
OPEN_S = 86_400.0
"""For so long after their first vote a member is waited for to give them, in seconds."""
SCORES = {"tie": 0.5, "bad": 0.5}


@dataclass(frozen=True)
class Judgement:
    """What is known of `version` against `against`, the names of both.

    `counted` are the members that the rule has counted. `strength` is None without votes, `members_needed` as in
    `bot.judging.rule`. `others` are the strengths of further versions that were compared with either.
    """

    version: str
    against: str
    votes: int
    decisive: int
    members: int
    counted: int
    strength: Strength | None
    others: tuple[Strength, ...]
    ruling: Ruling
    range: Range
    members_needed: int | None
    odd: tuple[OddMember, ...]


def judge(comparisons: Sequence[Comparison], version: str, against: str, now: float) -> Judgement:
    """What these votes for one persona say of two versions at a time in seconds since 1970."""
    pair = [one for one in comparisons if set(one.versions) == {version, against}]
    values = counted(pair, version, now)
    found = strengths(comparisons, against)
    return Judgement(
        version=version,
        against=against,
        votes=len(pair),
        decisive=sum(one.chosen is not None for one in pair),
        members=len({one.user_id for one in pair}),
        counted=len(values),
        strength=next((one for one in found if one.version == version and pair), None),
        others=tuple(one for one in found if one.version != version),
        ruling=rule(values),
        range=sure_range(values),
        members_needed=members_needed(values),
        odd=tuple(odd_members(pair, version)),
    )


def counted(votes: Iterable[Comparison], version: str, now: float) -> list[float]:
    """The members as the rule counts them: each as the mean of their first votes, in the order of being complete.

    A member is complete with `MOST_VOTES` votes, or `OPEN_S` after the first: neither depends on what they chose, so
    nothing is gained by looking at a good moment.
    """
    members: dict[int, list[Comparison]] = defaultdict(list)
    for vote in sorted(votes, key=_voted_at):
        members[vote.user_id].append(vote)
    complete = sorted((_complete(own, version) for own in members.values()), key=lambda one: one[0])
    return [value for at, value in complete if at <= now]


def _complete(own: Sequence[Comparison], version: str) -> tuple[float, float]:
    """When a member is complete, and the mean of the votes that count."""
    ends = _voted_at(own[0]) + OPEN_S
    counts = [vote for vote in own[:MOST_VOTES] if _voted_at(vote) <= ends]
    scores = [SCORES.get(vote.choice or "", float(vote.chosen == version)) for vote in counts]
    return (_voted_at(counts[-1]) if len(counts) == MOST_VOTES else ends), sum(scores) / len(scores)


def _voted_at(vote: Comparison) -> float:
    return vote.voted_at or vote.shown_at
