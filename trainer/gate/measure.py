"""One number of a score card that a criterion of the gate looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from personas.scorecard import FullScoreCard, Side

NATS, SHARE, TIMES, COUNT = "nats per token", "share", "times", "pieces"
FEWER, MORE, DO_NOT = "share fewer", "share more", "share do not"
"""Where a number counts what goes wrong, or compares with the rival, its unit says so."""
Chance = Callable[[float], float]


@dataclass(frozen=True)
class Measure:
    """`value` is None where it was not measured. `at_least` says that more is better.

    `shown` is compared with the warning's threshold instead of the value, where that is another number. `chance` gives,
    for a test, the chance of what was measured or worse, if the truth were at a threshold. `cases` is how many prompts
    or replies the value is of, where there may be too few to tell.
    """

    name: str
    title: str
    unit: str
    value: float | None
    why: str
    at_least: bool = False
    shown: float | None = None
    chance: Chance | None = None
    cases: int | None = None


def rival_of(card: FullScoreCard) -> Side:
    """What the new version is compared with where it is a question of better or worse: the live one, else the base."""
    return "live" if "live" in card.adapters else "base"
