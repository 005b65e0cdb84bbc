"""The course of a run, from what it told: its steps, what was measured on the way, its phases.

A run that was killed goes on from its last checkpoint and tells the steps since then once more. What it tells last
counts: nothing is shown twice, and no line runs back.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from personas.contracts import TRAINER_EVENT, Done, Epoch, Evaluation, Failed, Phase, Progress, TrainerEvent

STAGES = {1: "general dialogue", 2: "the persona"}
DEFAULT_SMOOTHING, MOST_SMOOTHING = 0.9, 0.99
REPORT_FILES = (("steps.csv", "progress"), ("evaluations.csv", "evaluation"), ("epochs.csv", "epoch"))


@dataclass
class Course:
    """What is known of a run by what it told, in the order of its steps. `last` is its last word."""

    steps: list[Progress] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    phase: Phase | None = None
    last: TrainerEvent | None = None
    peak_bytes: int = 0

    def hear(self, event: TrainerEvent) -> None:
        """Take in the next event."""
        self.last = event
        match event:
            case Phase():
                self.phase = event
            case Progress():
                self._go_back_to(event.step)
                self.steps.append(event)
                self.peak_bytes = max(self.peak_bytes, event.memory_bytes)
            case Evaluation():
                self.evaluations = [it for it in self.evaluations if it.step != event.step] + [event]
            case Epoch():
                known = (event.stage, event.step, event.epoch)
                self.epochs = [it for it in self.epochs if (it.stage, it.step, it.epoch) != known] + [event]
            case Done() | Failed():
                self.phase = None

    def _go_back_to(self, step: int) -> None:
        """Forget what was told of this step and later ones before: a checkpoint was gone on from."""
        if self.steps and self.steps[-1].step >= step:
            self.steps = [it for it in self.steps if it.step < step]
            self.evaluations = [it for it in self.evaluations if it.step < step]
            self.epochs = [it for it in self.epochs if it.step < step]

    @property
    def heldout(self) -> list[tuple[int, float]]:
        """Steps, and the loss on held-out replies that was measured after them."""
        measured: list[Evaluation | Epoch] = [*self.evaluations, *self.epochs]
        return sorted((it.step, it.eval_loss) for it in measured if it.eval_loss is not None)

    @property
    def has_stages(self) -> bool:
        """Whether the run has two stages."""
        return any(it.stage for it in self.steps) or any(it.stage for it in self.epochs)

    @property
    def train_loss(self) -> float | None:
        """The last training loss that is a mean of more than one step, where there is one; else the last step's."""
        measured: list[Evaluation | Epoch] = [*self.evaluations, *self.epochs]
        means = [(it.step, it.train_loss) for it in measured if it.train_loss is not None]
        if means:
            return max(means)[1]
        return self.steps[-1].loss if self.steps else None


def course_of(events: Iterable[TrainerEvent]) -> Course:
    """The course of a run by all that it told."""
    course = Course()
    for event in events:
        course.hear(event)
    return course


def course_of_report(report: Path) -> Course:
    """The same by the tables in an adapter's `report/`, for a run whose job folder is gone. Empty without any."""
    return course_of(
        event
        for name, kind in REPORT_FILES
        for row in _rows(report / name)
        if (event := _event_of_row(kind, row)) is not None
    )


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """An exponential moving average without a bias towards 0, as TensorBoard draws it: each value is worth `weight` of
    the next; sₙ = Σ wⁿ⁻ⁱ·xᵢ ⁄ Σ wⁿ⁻ⁱ over all i ≤ n. A weight of 0 leaves the values as they are.
    """
    total = worth = 0.0
    means = []
    for value in values:
        total, worth = weight * total + value, weight * worth + 1
        means.append(total / worth)
    return means


def formula(weight: float) -> str:
    """What `smoothed` computes, for people."""
    return f"sₙ = Σ {weight:g}ⁿ⁻ⁱ · lossᵢ ⁄ Σ {weight:g}ⁿ⁻ⁱ, over all i ≤ n"


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return []


def _event_of_row(kind: str, row: dict[str, str]) -> TrainerEvent | None:
    """A row as the event that it was written from; what the table leaves out is 0. None where it cannot be read."""
    told: dict[str, Any] = {name: value or None for name, value in row.items()}
    rest = {"of": told.get("step"), "eta_s": 0.0} if kind == "progress" else {}
    try:
        return TRAINER_EVENT.validate_python({"event": kind, **rest, **told})
    except ValidationError:
        return None
