"""`report/` of an adapter: what its training was like, as tables, curves and figures, and the part of the model card
that says so.

Every curve stands beside its figures as a table, for whoever cannot see it.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from personas.contracts import Epoch, Evaluation, Progress, ScoreCard
from trainer.building.data_sheet import table
from trainer.loop.memory import Peak
from trainer.report.charts import draw_learning_rate, draw_loss
from trainer.report.curves import FORMULA, Curves, Told, curves_of, smoothed
from trainer.report.tracking import FOLDER, write_whole

STEP_COLUMNS = ("step", "epoch", "loss", "lr", "tokens_per_s", "memory_bytes", "seconds")
EPOCH_COLUMNS = ("epoch", "step", "train_loss", "eval_loss", "seconds")
EVALUATION_COLUMNS = ("step", "epoch", "train_loss", "eval_loss")
STAGES = {1: "1: general dialogue", 2: "2: the persona"}
REPORT = "report"
SHOWN_STEPS = 20


def losses_of(history: Sequence[Told]) -> tuple[float, ...]:
    """The training losses that were told step by step; of two stages, those of the last."""
    last = max((event.stage for event in history), default=0)
    return tuple(event.loss for event in history if isinstance(event, Progress) and event.stage == last)


@dataclass(frozen=True)
class Training:
    """What is known of a run at its end. `seconds` of the whole run, over all its processes, `training_s` of it until
    the adapter was measured, without waiting; `kernels` computed it."""

    history: tuple[Told, ...]
    seconds: float
    peak: Peak
    metrics: ScoreCard
    kernels: tuple[str, ...] = ()
    training_s: float = 0.0

    @property
    def train_loss(self) -> float:
        """The last that was told: of the last epoch or interval between measurements, else of the last step."""
        for event in reversed(self.history):
            if isinstance(event, Progress):
                return event.loss
            if event.train_loss is not None:
                return event.train_loss
        return float("nan")


def write_report(folder: Path, training: Training) -> None:
    """`report/`: three tables as CSV, `training.json`, both curves, TensorBoard's file, and `README.md` for people."""
    report, history = folder / REPORT, training.history
    report.mkdir()
    stage = ("stage",) if has_stages(history) else ()
    _csv(report / "steps.csv", STEP_COLUMNS + stage, [event for event in history if isinstance(event, Progress)])
    _csv(report / "epochs.csv", EPOCH_COLUMNS + stage, [event for event in history if isinstance(event, Epoch)])
    if evaluations := [event for event in history if isinstance(event, Evaluation)]:
        _csv(report / "evaluations.csv", EVALUATION_COLUMNS + stage, evaluations)
    (report / "training.json").write_text(json.dumps(_figures(training), indent=2) + "\n", encoding="utf-8")
    curves = curves_of(history)
    draw_loss(report, curves)
    draw_learning_rate(report, curves)
    write_whole(report / FOLDER, history, time.time())
    (report / "README.md").write_text(_page(training, curves), encoding="utf-8")


def seconds_in(adapter: Path) -> float:
    """What an adapter's run took, over all its processes, as its report has it."""
    told = json.loads((adapter / REPORT / "training.json").read_text(encoding="utf-8"))
    return float(told["seconds"])


def training_section(training: Training, folder: str) -> str:
    """What the model card says of the training; `folder` is where the curves lie, seen from it."""
    peak, metrics = training.peak, training.metrics
    figures = [
        ("whole run", duration(training.seconds)),
        ("final training loss", f"{training.train_loss:.4f}"),
        ("final held-out loss, as served", f"{metrics.loss_tuned:.4f}"),
        ("peak memory", f"{peak.bytes / 1e9:.3f} GB, {peak.share:.1%} of {peak.of_bytes / 1e9:.1f} GB ({peak.device})"),
    ]
    parts = [
        table(("figure", "value"), figures),
        " ".join(training.kernels),
        _two_ways(training),
        _epochs(training.history),
        _evaluations(training.history),
        f"![Loss by step: training, smoothed, and on held-out replies]({folder}loss.svg)",
        f"![Learning rate by step]({folder}learning_rate.svg)",
    ]
    return "\n\n".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """As a clock shows it: `4:07`, `1:02:09`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _page(training: Training, curves: Curves) -> str:
    places = _spread(len(curves.steps))
    even = list(smoothed(curves.losses))
    rows = [
        (curves.steps[at], f"{curves.losses[at]:.4f}", f"{even[at]:.4f}", f"{curves.rates[at]:.3g}") for at in places
    ]
    parts = [
        "# Training",
        training_section(training, ""),
        "## The curves as a table",
        f"Losses are nats per reply token. Smoothed: {FORMULA}." + _some(len(places), len(curves.steps)),
        table(("step", "loss", "smoothed", "learning rate"), rows),
        "`steps.csv` has every step that was told, `tensorboard/` the same for `tensorboard --logdir`, `training.json` "
        "the figures at the top.",
    ]
    return "\n\n".join(parts) + "\n"


def has_stages(history: Iterable[Told]) -> bool:
    """Whether a run had two stages."""
    return any(event.stage for event in history)


def _two_ways(training: Training) -> str:
    """Why the final held-out loss is not the last of those in the tables; empty where these have none."""
    if all(isinstance(event, Progress) or event.eval_loss is None for event in training.history):
        return ""
    return (
        "The tables' held-out losses were measured while it trained, over the base model as it is held for training; "
        f"the final one is the written adapter's, over the base model as it is served, in {training.metrics.precision}."
    )


def _epochs(history: Sequence[Told]) -> str:
    found = [event for event in history if isinstance(event, Epoch)]
    rows = [(it.passes, _loss(it.train_loss), _loss(it.eval_loss), duration(it.seconds)) for it in found]
    return _by_stage(("epoch", "training loss", "held-out loss", "time"), rows, found, history)


def _evaluations(history: Sequence[Told]) -> str:
    found = [event for event in history if isinstance(event, Evaluation)]
    shown = [found[at] for at in _spread(len(found))]
    rows = [(it.step, _loss(it.train_loss), _loss(it.eval_loss)) for it in shown]
    return _by_stage(("step", "training loss", "held-out loss"), rows, shown, history)


def _by_stage(
    head: tuple[str, ...], rows: Sequence[tuple[object, ...]], events: Sequence[Told], history: Sequence[Told]
) -> str:
    """A table of events that names the stage of each, where there were two; empty without any."""
    if not rows:
        return ""
    if not has_stages(history):
        return table(head, rows)
    stages = [(STAGES[event.stage], *row) for event, row in zip(events, rows, strict=True)]
    return table(("stage", *head), stages)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _spread(count: int) -> list[int]:
    """Places of at most `SHOWN_STEPS`, evenly, first and last among them."""
    if count <= SHOWN_STEPS:
        return list(range(count))
    return [round(number * (count - 1) / (SHOWN_STEPS - 1)) for number in range(SHOWN_STEPS)]


def _some(shown: int, count: int) -> str:
    return "" if shown == count else f" {shown} of {count} steps."


def _figures(training: Training) -> dict[str, object]:
    return {
        "format": 1,
        "seconds": round(training.seconds, 1),
        "training_seconds": round(training.training_s, 1),
        "train_loss": training.train_loss,
        "heldout_loss": training.metrics.loss_tuned,
        "peak_bytes": training.peak.bytes,
        "memory_bytes": training.peak.of_bytes,
        "memory_share": training.peak.share,  # as it is: rounded twice it would differ from what the text says
        "memory_of": training.peak.device,
    }


def _csv(path: Path, columns: tuple[str, ...], events: Iterable[Told]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([getattr(event, column) for column in columns] for event in events)
