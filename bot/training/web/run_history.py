"""Events of a run, read from `events.jsonl` from any line on, and the metrics history built from
them.
"""

import csv
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from personas.schemas.training_events import (
    TRAINER_EVENT,
    Epoch,
    Evaluation,
    Progress,
    TrainerEvent,
)

BLOCK_BYTES = 2**20
"""Bytes read at once; longer lines are skipped."""
EVENT_PREFIX = b'{"event":'
STAGE_NAMES = {1: "general dialogue", 2: "the persona"}
DEFAULT_SMOOTHING = 0.9
MAX_SMOOTHING = 0.99
REPORT_FILES = (
    ("steps.csv", "progress"),
    ("evaluations.csv", "evaluation"),
    ("epochs.csv", "epoch"),
)


@dataclass(frozen=True)
class LoggedEvent:
    """An event, and the byte at which its line ends."""

    end: int
    event: TrainerEvent


@dataclass(frozen=True)
class EventBatch:
    """Events read up to `end`. `unreadable` counts lines without an event. `more`: more can be read
    now.

    `anew`: the file was replaced, and was read from its start.
    """

    events: tuple[LoggedEvent, ...] = ()
    end: int = 0
    unreadable: int = 0
    more: bool = False
    anew: bool = False


def read_events(path: Path, start: int, most: int | None = None) -> EventBatch:
    """The events after a line's end (0 for all), at most `most` of them; none if there is no file.

    An incomplete last line is left for later. Raises `OSError` if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            anew = not _is_line_end(file, start)
            if anew:
                start = 0
            file.seek(start)
            block = file.read(BLOCK_BYTES)
            is_last = not file.read(1)
    except FileNotFoundError:
        return EventBatch(anew=start > 0)
    whole = block[: block.rfind(b"\n") + 1]
    if not whole and not is_last:
        end = _next_line_end(path, start)
        return EventBatch(end=end, unreadable=int(end > start), more=end > start, anew=anew)
    return _parse_lines(whole, start, most, more=not is_last, anew=anew)


def read_all_events(path: Path) -> EventBatch:
    events: list[LoggedEvent] = []
    read = EventBatch(more=True)
    unreadable = 0
    while read.more:
        read = read_events(path, read.end)
        events += read.events
        unreadable += read.unreadable
    return EventBatch(tuple(events), end=read.end, unreadable=unreadable)


def is_line_end(path: Path, at: int) -> bool:
    """True for 0 and if a line of the file ends there."""
    try:
        with path.open("rb") as file:
            return _is_line_end(file, at)
    except FileNotFoundError:
        return at == 0


def _parse_lines(
    whole: bytes, start: int, most: int | None, *, more: bool, anew: bool
) -> EventBatch:
    events: list[LoggedEvent] = []
    end = start
    unreadable = 0
    for line in whole.split(b"\n")[:-1]:
        if most is not None and len(events) >= most:
            return EventBatch(tuple(events), end=end, unreadable=unreadable, more=True, anew=anew)
        end += len(line) + 1
        event = parse_event_line(line)
        if event is None:
            unreadable += 1
        else:
            events.append(LoggedEvent(end, event))
    return EventBatch(tuple(events), end=end, unreadable=unreadable, more=more, anew=anew)


def parse_event_line(line: bytes) -> TrainerEvent | None:
    """Parse a line, or its end after a line that was cut off; None if it holds no event."""
    for start in (0, line.rfind(EVENT_PREFIX)):
        with suppress(ValidationError):
            if start >= 0:
                return TRAINER_EVENT.validate_json(line[start:])
            return None
    return None


def _is_line_end(file: BinaryIO, at: int) -> bool:
    if at == 0:
        return True
    if at > os.fstat(file.fileno()).st_size:
        return False
    file.seek(at - 1)
    return file.read(1) == b"\n"


def _next_line_end(path: Path, start: int) -> int:
    """End of a line that is too long to read; its start if it is still being written."""
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(BLOCK_BYTES):
            if (at := block.find(b"\n")) >= 0:
                return file.tell() - len(block) + at + 1
    return start


@dataclass
class MetricsHistory:
    """Metrics of a run from its events, in the order of steps."""

    steps: list[Progress] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    peak_bytes: int = 0

    def add(self, event: TrainerEvent) -> None:
        match event:
            case Progress():
                self._go_back_to(event.step)
                self.steps.append(event)
                self.peak_bytes = max(self.peak_bytes, event.memory_bytes)
            case Evaluation():
                # A resumed run measures again after its last checkpoint: the latest value counts.
                others = [other for other in self.evaluations if other.step != event.step]
                self.evaluations = [*others, event]
            case Epoch():
                known = (event.stage, event.step, event.epoch)
                self.epochs = [
                    other
                    for other in self.epochs
                    if (other.stage, other.step, other.epoch) != known
                ]
                self.epochs.append(event)

    def _go_back_to(self, step: int) -> None:
        """Drop this step and later ones: the run resumed from a checkpoint."""
        if self.steps and self.steps[-1].step >= step:
            self.steps = [earlier for earlier in self.steps if earlier.step < step]
            self.evaluations = [earlier for earlier in self.evaluations if earlier.step < step]
            self.epochs = [earlier for earlier in self.epochs if earlier.step < step]

    @property
    def heldout(self) -> list[tuple[int, float]]:
        """Steps with the held-out loss measured after them."""
        losses = []
        for measured in self._measured():
            if measured.eval_loss is not None:
                losses.append((measured.step, measured.eval_loss))
        return sorted(losses)

    @property
    def has_stages(self) -> bool:
        return any(step.stage for step in self.steps) or any(epoch.stage for epoch in self.epochs)

    @property
    def train_loss(self) -> float | None:
        """The last mean training loss over several steps; else the last step's."""
        means = []
        for measured in self._measured():
            if measured.train_loss is not None:
                means.append((measured.step, measured.train_loss))
        if means:
            return max(means)[1]
        return self.steps[-1].loss if self.steps else None

    def _measured(self) -> list[Evaluation | Epoch]:
        return [*self.evaluations, *self.epochs]


def build_history(events: Iterable[TrainerEvent]) -> MetricsHistory:
    history = MetricsHistory()
    for event in events:
        history.add(event)
    return history


def read_report_history(report: Path) -> MetricsHistory:
    """Build it from the tables in an adapter's `report/`, if the job folder no longer exists."""
    history = MetricsHistory()
    for name, kind in REPORT_FILES:
        for row in _csv_rows(report / name):
            event = _row_event(kind, row)
            if event is not None:
                history.add(event)
    return history


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """An exponential moving average without a bias towards 0, as TensorBoard draws it: each value
    is worth `weight` of the next; sₙ = Σ wⁿ⁻ⁱ·xᵢ ⁄ Σ wⁿ⁻ⁱ over all i ≤ n. A weight of 0 leaves the
    values as they are.
    """
    total = worth = 0.0
    means = []
    for value in values:
        total = weight * total + value
        worth = weight * worth + 1
        means.append(total / worth)
    return means


def smoothing_formula(weight: float) -> str:
    return f"sₙ = Σ {weight:g}ⁿ⁻ⁱ · lossᵢ ⁄ Σ {weight:g}ⁿ⁻ⁱ, over all i ≤ n"


def _csv_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return []


def _row_event(kind: str, row: dict[str, str]) -> TrainerEvent | None:
    """Convert a row back to its event, with 0 for what the table omits; None if it is
    unreadable.
    """
    fields: dict[str, Any] = {"event": kind}
    if kind == "progress":
        fields |= {"of": row.get("step") or None, "eta_s": 0.0}
    for name, value in row.items():
        fields[name] = value or None
    try:
        return TRAINER_EVENT.validate_python(fields)
    except ValidationError:
        return None
