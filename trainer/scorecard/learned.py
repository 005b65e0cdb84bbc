"""What a version learned from, as it was learned, and how its training went.

It is looked at once more, behind everything that sifts and masks material: whatever got through, or came in another
way, is found here or nowhere.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from personas.scorecard import Course, Learned
from trainer.building.duplicates import DuplicateIndex, words_of
from trainer.dataset import Dataset
from trainer.recipe import Recipe
from trainer.scorecard.private import private_in

LEAST_WORDS = 8
"""Shorter replies are said again by chance."""
WINDOW_SHARE, LEAST_WINDOW = 0.1, 3
"""Steps that are averaged: a tenth of all, and three at least."""
STEPS_FILE = Path("report") / "steps.csv"


def learned_section(data: Dataset, recipe: Recipe, losses: Sequence[float]) -> Learned:
    """The section of a run's data and its training losses, one for each step that was told; none where not known."""
    trained = [it.reply for it in data.said_train if it.by_persona]
    return Learned(
        replies=len(trained),
        repeated=repeated(trained),
        leaked=leaked(trained, [it.reply for it in data.said_heldout if it.by_persona]),
        private=private_in(data, (("", reply) for reply in trained)),
        rate=recipe.learning_rate,
        epochs=recipe.num_train_epochs,
        course=course_of(losses),
    )


def repeated(texts: Sequence[str]) -> float:
    """The share of the longer texts that say an earlier one again, in nearly the same words."""
    long = _longer(texts)
    return sum(place != first for place, first in enumerate(_firsts(long))) / len(long) if long else 0.0


def leaked(trained: Sequence[str], heldout: Sequence[str]) -> float:
    """The share of the longer held-out texts that stand among the trained ones, in nearly the same words."""
    known, asked = _longer(trained), _longer(heldout)
    found = _firsts([*known, *asked])[len(known) :]
    return sum(first < len(known) for first in found) / len(asked) if asked else 0.0


def course_of(losses: Sequence[float]) -> Course | None:
    """How the losses went; None for fewer steps than can be told apart."""
    window = max(LEAST_WINDOW, round(len(losses) * WINDOW_SHARE))
    means = [fmean(losses[at : at + window]) for at in range(len(losses) - window + 1)]
    if len(means) <= window:
        return None
    return Course(steps=len(losses), first=means[0], highest=max(means[1:]), last=means[-1])


def losses_in(adapter: Path) -> tuple[float, ...]:
    """The training losses that an adapter's report tells, by step, of two stages the last; none without a report."""
    try:
        with (adapter / STEPS_FILE).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        last = max((row.get("stage", "") for row in rows), default="")
        return tuple(float(row["loss"]) for row in rows if row.get("stage", "") == last)
    except (OSError, KeyError, ValueError):
        return ()


def _longer(texts: Sequence[str]) -> list[str]:
    return [text for text in texts if len(words_of(text)) >= LEAST_WORDS]


def _firsts(texts: Sequence[str]) -> list[int]:
    """For each text the place of the first that is like it."""
    with DuplicateIndex() as index:
        for text in texts:
            index.add(text)
        return [int(first) for first in index.clusters()[1]] if texts else []
