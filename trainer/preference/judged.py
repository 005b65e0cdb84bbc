"""Preferences as they are trained on: samples that are good or bad, in an order that KTO and DPO can learn in."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from personas.hyperparameters import PreferenceMethod
from personas.prompt import Sample

GOOD_REPLIES, BAD_REPLIES = "replies_good", "replies_bad"
"""What the manifest of an adapter counts that has learned from preferences, and no other."""

MOST_GOOD = 4 / 3
"""Good replies count from as much to a third more than bad ones (arXiv 2402.01306, equation 8)."""


@dataclass(frozen=True)
class Judged:
    """A reply that was liked, or was not. `prompt` is the number of what it answers.

    `by` stands for who judged it, `right` and `at` are those of the preference, `said` is what was asked last and
    answered. The ids of a pair are the same up to where the replies begin.
    """

    sample: Sample
    is_good: bool
    prompt: int
    by: str = ""
    right: str = ""
    at: str = ""
    said: tuple[str, str] = ("", "")

    @property
    def reply(self) -> tuple[int, ...]:
        """The ids of the reply, end of turn included."""
        return reply_of(self.sample)


@dataclass(frozen=True)
class Pair:
    """Two replies to one prompt."""

    chosen: Judged
    rejected: Judged


@dataclass(frozen=True)
class Preferences:
    """What is learned from, by which method: `judged` holds all replies, good ones first, `pairs` the compared ones."""

    method: PreferenceMethod
    judged: tuple[Judged, ...]
    pairs: tuple[Pair, ...]

    @property
    def good(self) -> int:
        """How many are good."""
        return sum(one.is_good for one in self.judged)

    @property
    def marks(self) -> str:
        """Which of the samples are good, as a `+` or `-` each."""
        return "".join("+" if one.is_good else "-" for one in self.judged)


def reply_of(sample: Sample) -> tuple[int, ...]:
    """The ids of a sample's reply, end of turn included."""
    return sample.ids[len(sample.ids) - sample.reply_tokens :]


def weights(judged: Sequence[Judged]) -> tuple[float, float]:
    """What a good and a bad reply count, so that all good ones together count from 1 to 4/3 of all bad ones.

    Where one side is missing, nothing can balance it and both count 1.
    """
    good = sum(one.is_good for one in judged)
    bad = len(judged) - good
    if not (good and bad):
        return 1.0, 1.0
    wanted = min(max(good / bad, 1.0), MOST_GOOD)
    return wanted * bad / good, 1.0


def arranged(judged: Sequence[Judged], batch: int, seed: int) -> list[Judged]:
    """A random order in which a batch's replies answer different prompts, as far as there are, and hold both kinds.

    KTO pairs each prompt with the reply before it in the batch to see how far the model has gone in general; a reply
    to the same prompt would not be general. The last batch is filled up with replies of the first.
    """
    draw = random.Random(seed)
    waiting = {good: draw.sample(of := [it for it in judged if it.is_good is good], len(of)) for good in (True, False)}
    total = {good: max(len(of), 1) for good, of in waiting.items()}
    order: list[Judged] = []
    while any(waiting.values()):
        taken = Counter(it.prompt for it in order[len(order) // batch * batch :])
        good = len(waiting[True]) / total[True] >= len(waiting[False]) / total[False]
        kinds = [kind for kind in (good, not good) if waiting[kind]]
        place = next(((k, n) for k in kinds for n, it in _latest(waiting[k]) if it.prompt not in taken), None)
        kind, number = place or (kinds[0], len(waiting[kinds[0]]) - 1)
        order.append(waiting[kind].pop(number))
    missing = -len(order) % batch
    return order + [order[number % len(order)] for number in range(missing)] if order else order


LOOKED_THROUGH = 64
"""So many waiting replies are looked at for one that answers another prompt."""


def _latest(waiting: Sequence[Judged]) -> list[tuple[int, Judged]]:
    """The replies at the end of a list, with their places."""
    first = max(len(waiting) - LOOKED_THROUGH, 0)
    return [(number, waiting[number]) for number in range(len(waiting) - 1, first - 1, -1)]


def shuffled(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """A random order of pairs."""
    return random.Random(seed).sample(list(pairs), len(pairs))
