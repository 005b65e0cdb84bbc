"""Checks of a version's training data and loss curve: duplicates, leakage between splits, personal data."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from personas.schemas.scorecard import DataChecks, LossCurve
from trainer.data.dataset import Dataset
from trainer.data.minhash import MinHashIndex, split_words
from trainer.evaluate.memorisation import count_pii
from trainer.schemas import Recipe

MIN_COMPARED_WORDS = 8
"""Shorter replies are said again by chance."""
WINDOW_SHARE, MIN_WINDOW_STEPS = 0.1, 3
"""Steps that are averaged: a tenth of all, and three at least."""
STEPS_FILE = Path("report") / "steps.csv"


def data_checks_section(data: Dataset, recipe: Recipe, losses: Sequence[float]) -> DataChecks:
    """The section of a run's data and its training losses, one for each step that was told; none where not known."""
    trained = [it.reply for it in data.train_prompt_replies if it.by_persona]
    return DataChecks(
        replies=len(trained),
        repeated=duplicate_share(trained),
        leaked=split_leakage_share(trained, [it.reply for it in data.heldout_prompt_replies if it.by_persona]),
        private=count_pii(data, (("", reply) for reply in trained)),
        rate=recipe.learning_rate,
        epochs=recipe.num_train_epochs,
        course=loss_curve_of(losses),
    )


def duplicate_share(texts: Sequence[str]) -> float:
    """The share of the longer texts that say an earlier one again, in nearly the same words."""
    long = _long_texts(texts)
    return sum(place != first for place, first in enumerate(_first_duplicates(long))) / len(long) if long else 0.0


def split_leakage_share(trained: Sequence[str], heldout: Sequence[str]) -> float:
    """The share of the longer held-out texts that stand among the trained ones, in nearly the same words."""
    known, asked = _long_texts(trained), _long_texts(heldout)
    found = _first_duplicates([*known, *asked])[len(known) :]
    return sum(first < len(known) for first in found) / len(asked) if asked else 0.0


def loss_curve_of(losses: Sequence[float]) -> LossCurve | None:
    """How the losses went; None for fewer steps than can be told apart."""
    window = max(MIN_WINDOW_STEPS, round(len(losses) * WINDOW_SHARE))
    means = [fmean(losses[at : at + window]) for at in range(len(losses) - window + 1)]
    if len(means) <= window:
        return None
    return LossCurve(steps=len(losses), first=means[0], highest=max(means[1:]), last=means[-1])


def read_training_losses(adapter: Path) -> tuple[float, ...]:
    """The training losses that an adapter's report tells, by step, of two stages the last; none without a report."""
    try:
        with (adapter / STEPS_FILE).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        last = max((row.get("stage", "") for row in rows), default="")
        return tuple(float(row["loss"]) for row in rows if row.get("stage", "") == last)
    except (OSError, KeyError, ValueError):
        return ()


def _long_texts(texts: Sequence[str]) -> list[str]:
    return [text for text in texts if len(split_words(text)) >= MIN_COMPARED_WORDS]


def _first_duplicates(texts: Sequence[str]) -> list[int]:
    """For each text the place of the first that is like it."""
    with MinHashIndex() as index:
        for text in texts:
            index.add(text)
        return [int(first) for first in index.clusters()[1]] if texts else []
