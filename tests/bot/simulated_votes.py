"""Votes on comparisons, and members who vote in one way or another."""

from __future__ import annotations

import random
from collections.abc import Callable

from bot.store import BlindComparison

START = 1_800_000_000.0


def a_vote(user_id, choice, a="v2", b="v1", *, at=START, taken=20.0, seq=0):
    """One vote; `base` is the base model."""
    return BlindComparison(
        guild_id=1,
        persona_id="oda",
        user_id=user_id,
        prompt_id="p",
        prompt="Hello?",
        version_a=None if a == "base" else a,
        version_b=None if b == "base" else b,
        text_a="one",
        text_b="other",
        seed_a=1,
        seed_b=2,
        seq=seq,
        shown_at=at - taken,
        choice=choice,
        voted_at=at,
    )


def votes_of(
    user_id, chooses: Callable[[str, str], str], count=10, pair=("v2", "v1"), rng=None, at=START
):
    """Votes of one member, a minute apart, the order drawn by chance; `chooses` is given which
    version A and B are.
    """
    rng = rng or random.Random(user_id)
    found = []
    for number in range(count):
        a, b = rng.sample(pair, 2)
        found.append(a_vote(user_id, chooses(a, b), a, b, at=at + 60 * number))
    return found


def prefers(version: str, share: float, rng: random.Random) -> Callable[[str, str], str]:
    """Chooses a version in a share of the comparisons."""

    def chooses(a: str, b: str) -> str:
        return "a" if (a == version) == (rng.random() < share) else "b"

    return chooses
