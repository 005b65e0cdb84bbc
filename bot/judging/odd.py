"""Members whose votes look odd. Moderators are told; nobody's votes are dropped for it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bot.store import Comparison

HASTY_S = 3.0
"""Two replies cannot be read in less, in seconds."""
LEAST_VOTES = 5
"""Of fewer votes nothing is said."""
POSITION_CHANCE = 0.005
"""So unlikely it has to be, the order being drawn by chance, that somebody chooses one position so often."""
OTHERS_CHANCE = 0.001
"""So unlikely it has to be that somebody votes so who thinks as the others do."""
LEAST_OTHERS = 3
"""As many others there have to be, with three votes each, before anybody is compared with them."""


@dataclass(frozen=True)
class OddMember:
    """A member and what is odd, in words."""

    user_id: int
    why: tuple[str, ...]


def odd_members(votes: Sequence[Comparison], version: str) -> list[OddMember]:
    """Whose votes between a version and one other look odd: far from what the others say, for a position, or hasty.

    Those with the most reasons come first.
    """
    members: dict[int, list[Comparison]] = defaultdict(list)
    for vote in votes:
        members[vote.user_id].append(vote)
    found = []
    for user_id, own in members.items():
        why = (_far_from_others(user_id, members, version), _one_position(own), _hasty(own))
        if said := tuple(one for one in why if one):
            found.append(OddMember(user_id, said))
    return sorted(found, key=lambda one: -len(one.why))


def _hasty(own: Sequence[Comparison]) -> str:
    taken = median((vote.voted_at or vote.shown_at) - vote.shown_at for vote in own)
    return f"votes after {taken:.1f} s" if len(own) >= LEAST_VOTES and taken < HASTY_S else ""


def _one_position(own: Sequence[Comparison]) -> str:
    decisive = [vote.choice for vote in own if vote.chosen]
    first = decisive.count("a")
    position, most = ("A", first) if first * 2 >= len(decisive) else ("B", len(decisive) - first)
    unlikely = 2 * _at_least(most, len(decisive), 0.5) <= POSITION_CHANCE
    return f"{most} of {len(decisive)} votes for {position}, whatever it was" if unlikely else ""


def _far_from_others(user_id: int, members: Mapping[int, Sequence[Comparison]], version: str) -> str:
    """Compared by the share of decisive votes; each of the others counts once."""
    own = [vote.chosen == version for vote in members[user_id] if vote.chosen]
    others = [
        sum(vote.chosen == version for vote in decisive) / len(decisive)
        for other, votes in members.items()
        if other != user_id and len(decisive := [vote for vote in votes if vote.chosen]) >= LEAST_OTHERS
    ]
    if len(own) < LEAST_VOTES or len(others) < LEAST_OTHERS:
        return ""
    share = min(max(sum(others) / len(others), 0.05), 0.95)
    ahead = sum(own)
    tail = min(_at_least(ahead, len(own), share), _at_least(len(own) - ahead, len(own), 1 - share))
    return f"{ahead} of {len(own)} votes for {version}, others {share:.0%}" if 2 * tail <= OTHERS_CHANCE else ""


def _at_least(hits: int, of: int, share: float) -> float:
    """The chance of so many hits or more."""
    return sum(math.comb(of, count) * share**count * (1 - share) ** (of - count) for count in range(hits, of + 1))
