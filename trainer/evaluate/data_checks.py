"""Checks of the training data: duplicates, leakage, personal data, and the loss curve."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from personas.schemas.scorecard import DataChecks, LossCurve
from personas.schemas.training_events import Progress
from trainer.dataset.dataset import Dataset
from trainer.dataset.minhash import MinHashIndex, split_words
from trainer.dataset.written_replies import is_written
from trainer.evaluate.generation.reply_tasks import true_share
from trainer.evaluate.memorisation import count_pii
from trainer.process.events import StepEvent
from trainer.schemas import Recipe

MIN_COMPARED_WORDS = 8  # shorter replies repeat by chance
WINDOW_SHARE = 0.1  # of the training steps, to average over
MIN_WINDOW_STEPS = 3
STEPS_FILE = Path("report") / "steps.csv"
DEFAULT_TRAINING_S = 180.0
"""Time limit of the score card of an adapter whose training time is unknown."""


def data_checks_section(
    data: Dataset,
    recipe: Recipe,
    losses: Sequence[float],
    *,
    written_by: str = "",
    live_had_people: bool = False,
) -> DataChecks:
    """Build the section on a run's data and its training losses by step, which may be unknown."""
    trained = [pair.reply for pair in data.train_prompt_replies if pair.by_persona]
    own = [pair for pair in data.heldout_prompt_replies if pair.by_persona]
    heldout = [pair.reply for pair in own]
    return DataChecks(
        replies=len(trained),
        repeated=duplicate_share(trained),
        leaked=split_leakage_share(trained, heldout),
        private=count_pii(data, (("", reply) for reply in trained)),
        rate=recipe.learning_rate,
        epochs=recipe.num_train_epochs,
        course=loss_curve_of(losses),
        written_by=written_by,
        heldout_written=true_share(is_written(pair.talk) for pair in own),
        live_had_people=live_had_people,
    )


def duplicate_share(texts: Sequence[str]) -> float:
    """Return the share of the longer texts that nearly repeat an earlier one."""
    firsts = _first_duplicates(_long_texts(texts))
    return true_share(place != first for place, first in enumerate(firsts))


def split_leakage_share(trained: Sequence[str], heldout: Sequence[str]) -> float:
    """Return the share of the longer held-out texts with a near duplicate among the trained
    ones.
    """
    known = _long_texts(trained)
    compared = _long_texts(heldout)
    # The trained texts come first in the index, so that a leaked text's first duplicate is among
    # them even if other held-out texts say the same.
    firsts = _first_duplicates([*known, *compared])[len(known) :]
    return true_share(first < len(known) for first in firsts)


def loss_curve_of(losses: Sequence[float]) -> LossCurve | None:
    """Summarise the training losses; None for too few steps."""
    window = max(MIN_WINDOW_STEPS, round(len(losses) * WINDOW_SHARE))
    means = []
    for begin in range(len(losses) - window + 1):
        means.append(fmean(losses[begin : begin + window]))
    # With fewer, the first and the last window would share steps.
    if len(means) <= window:
        return None
    return LossCurve(steps=len(losses), first=means[0], highest=max(means[1:]), last=means[-1])


def training_losses(history: Sequence[StepEvent]) -> tuple[float, ...]:
    """Return the training losses by step; of two stages, those of the second, which is on the
    persona's replies.
    """
    steps = [event for event in history if isinstance(event, Progress)]
    stage = max((event.stage for event in steps), default=0)
    return tuple(event.loss for event in steps if event.stage == stage)


def read_training_seconds(adapter: Path) -> float:
    """Read from an adapter's report how many seconds its training took; a default where it does not
    say so.
    """
    try:
        figures = json.loads((adapter / "report" / "training.json").read_text(encoding="utf-8"))
        return float(figures.get("training_seconds") or figures["seconds"])
    except (OSError, ValueError, KeyError):
        return DEFAULT_TRAINING_S


def read_training_losses(adapter: Path) -> tuple[float, ...]:
    """Read from an adapter's report what `training_losses` returns; empty without a report."""
    try:
        with (adapter / STEPS_FILE).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        stage = max((int(row.get("stage", 0)) for row in rows), default=0)
        return tuple(float(row["loss"]) for row in rows if int(row.get("stage", 0)) == stage)
    except (OSError, KeyError, ValueError):
        return ()


def _long_texts(texts: Sequence[str]) -> list[str]:
    return [text for text in texts if len(split_words(text)) >= MIN_COMPARED_WORDS]


def _first_duplicates(texts: Sequence[str]) -> list[int]:
    """Return, for each text, the index of the first near duplicate."""
    with MinHashIndex() as index:
        for text in texts:
            index.add(text)
        return [int(first) for first in index.clusters()[1]] if texts else []
