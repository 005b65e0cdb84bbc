"""What is asked, what is answered, and what several runs say together."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from personas.scorecard import Side, Spread

HELDOUT, FACTS, UNAIDED, SMALL_TALK, GENERAL, SAFETY = (
    "heldout",
    "facts",
    "facts without lore",
    "small_talk",
    "general",
    "safety",
)
"""The tasks. `UNAIDED` asks the questions of `FACTS` without the lore that answers them."""
AS_PERSONA = (HELDOUT, FACTS, UNAIDED, SMALL_TALK)
"""Tasks in which the persona is asked what it would be asked in a channel."""


@dataclass(frozen=True)
class Asked:
    """A rendered prompt: the `number`-th of its task. Tasks that are asked `once` take the first seed alone.

    `message` is its last message, `asker` whose name that came under (empty: none). A reply ends before it goes on as
    somebody in `stop`.
    """

    task: str
    number: int
    ids: tuple[int, ...]
    message: str
    asker: str = ""
    stop: tuple[str, ...] = ()
    once: bool = False

    def seeds(self, seeds: Sequence[int]) -> tuple[int, ...]:
        """The seeds with which it is asked."""
        return tuple(seeds[:1] if self.once else seeds)


@dataclass(frozen=True)
class Answer:
    """A side's reply. `ended` says whether it ended by itself, not where the room for it did."""

    asked: Asked
    side: Side
    seed: int
    text: str
    tokens: int
    ended: bool


def answers_of(answers: Iterable[Answer], *tasks: str, side: Side, seed: int | None = None) -> list[Answer]:
    """One side's answers to the prompts of some tasks, in the order of the prompts; of one seed, or of all."""
    found = [it for it in answers if it.asked.task in tasks and it.side == side and seed in (None, it.seed)]
    return sorted(found, key=lambda it: (it.asked.task, it.asked.number, it.seed))


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation (n - 1) of the runs. Raises `ValueError` without any."""
    if not values:
        raise ValueError("no runs to take the mean of")
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(mean=statistics.fmean(values), sd=sd, runs=len(values))


def share(truths: Iterable[bool]) -> float:
    """The share of what is true; 0 where there is nothing."""
    listed = list(truths)
    return sum(listed) / len(listed) if listed else 0.0
