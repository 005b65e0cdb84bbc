"""Writes an adapter's report/ folder: loss curves, tables and figures of its training."""

import csv
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from personas.schemas.formatting import markdown_table
from personas.schemas.training_events import (
    Epoch,
    Evaluation,
    Progress,
    ScoreSummary,
    summarise_epochs,
)
from trainer.dataset.charts import (
    HELDOUT_COLOUR,
    RAW_COLOUR,
    SMOOTH_COLOUR,
    new_figure,
    save_figure,
)
from trainer.machine import MemoryPeak
from trainer.process.events import StepEvent
from trainer.train.experiment_tracker import TENSORBOARD_FOLDER, write_tensorboard_file

SMOOTHING_FACTOR = 0.9
SMOOTHING_FORMULA = "sₙ = Σ 0.9ⁿ⁻ⁱ·lossᵢ ⁄ Σ 0.9ⁿ⁻ⁱ, over all i ≤ n"
"""The formula of `moving_average`, for a legend."""

STEP_COLUMNS = ("step", "epoch", "loss", "lr", "tokens_per_s", "memory_bytes", "seconds")
EPOCH_COLUMNS = ("epoch", "step", "train_loss", "eval_loss", "seconds", "samples_per_s")
EVALUATION_COLUMNS = ("step", "epoch", "train_loss", "eval_loss")
STAGE_LABELS = {1: "1: general dialogue", 2: "2: the persona"}
REPORT_FOLDER = "report"
MAX_SHOWN_STEPS = 20


@dataclass(frozen=True)
class LossCurves:
    """Loss and learning rate by step; `heldout` pairs a step with its held-out loss, if measured
    during training.
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    rates: tuple[float, ...]
    heldout: tuple[tuple[int, float], ...]


def make_curves(history: Sequence[StepEvent]) -> LossCurves:
    """Extract the curves from a run's whole history."""
    progress = [event for event in history if isinstance(event, Progress)]
    heldout: list[tuple[int, float]] = []
    for event in history:
        if isinstance(event, Evaluation | Epoch) and event.eval_loss is not None:
            heldout.append((event.step, event.eval_loss))
    return LossCurves(
        steps=tuple(event.step for event in progress),
        losses=tuple(event.loss for event in progress),
        rates=tuple(event.lr for event in progress),
        heldout=tuple(heldout),
    )


def moving_average(values: Sequence[float]) -> Iterator[float]:
    """Yield the exponential moving average (decay 0.9) of the values so far, bias-corrected."""
    # The weights of all values so far, not the limit of their sum: the first averages would
    # otherwise be too near to 0.
    total = weight = 0.0
    for value in values:
        total = SMOOTHING_FACTOR * total + value
        weight = SMOOTHING_FACTOR * weight + 1
        yield total / weight


@dataclass(frozen=True)
class TrainingRecord:
    """The facts of a finished run. `seconds` covers the whole run over all its processes;
    `training_s` ends before the adapter's evaluation and excludes waiting. `kernels` describes the
    kernels that computed it, `caveats` what differs from the request. `coverage` is the share of the
    parameters in the blocks' matrices whose layer has an adapter, None where it was not measured.
    """

    history: tuple[StepEvent, ...]
    seconds: float
    peak: MemoryPeak
    metrics: ScoreSummary
    kernels: tuple[str, ...] = ()
    training_s: float = 0.0
    caveats: tuple[str, ...] = ()
    coverage: float | None = None

    @property
    def train_loss(self) -> float:
        """The last reported training loss: of an epoch or evaluation interval, else of a step."""
        for event in reversed(self.history):
            if isinstance(event, Progress):
                return event.loss
            if event.train_loss is not None:
                return event.train_loss
        return float("nan")


def write_run_report(folder: Path, training: TrainingRecord) -> None:
    """Write `report/`: three CSV tables, `training.json`, both curves, the TensorBoard log and
    `README.md`.
    """
    report = folder / REPORT_FOLDER
    history = training.history
    report.mkdir()
    stage = ("stage",) if has_stages(history) else ()
    steps = [event for event in history if isinstance(event, Progress)]
    epochs = [event for event in history if isinstance(event, Epoch)]
    evaluations = [event for event in history if isinstance(event, Evaluation)]
    _write_csv(report / "steps.csv", STEP_COLUMNS + stage, steps)
    _write_csv(report / "epochs.csv", EPOCH_COLUMNS + stage, epochs)
    if evaluations:
        _write_csv(report / "evaluations.csv", EVALUATION_COLUMNS + stage, evaluations)
    figures = json.dumps(_figures(training), indent=2) + "\n"
    (report / "training.json").write_text(figures, encoding="utf-8")
    curves = make_curves(history)
    draw_loss(report, curves)
    draw_learning_rate(report, curves)
    write_tensorboard_file(report / TENSORBOARD_FOLDER, history, time.time())
    (report / "README.md").write_text(_report_markdown(training, curves), encoding="utf-8")


def training_section(training: TrainingRecord, folder: str) -> str:
    """Render the model card's section on training; `folder` is the relative path to the curves."""
    peak = training.peak
    metrics = training.metrics
    memory = f"{peak.bytes / 1e9:.3f} GB, {peak.share:.1%} of {peak.of_bytes / 1e9:.1f} GB"
    figures = [
        ("whole run", format_duration(training.seconds)),
        ("final training loss", f"{training.train_loss:.4f}"),
        ("final held-out loss, as served", f"{metrics.loss_tuned:.4f}"),
        ("peak memory", f"{memory} ({peak.device})"),
    ]
    parts = [
        markdown_table(("figure", "value"), figures),
        " ".join(training.kernels),
        _loss_difference_note(training),
        epoch_table(training.history),
        _evaluation_table(training),
        f"![Loss by step: training, smoothed, and on held-out replies]({folder}loss.svg)",
        f"![Learning rate by step]({folder}learning_rate.svg)",
    ]
    return "\n\n".join(part for part in parts if part)


def format_duration(seconds: float) -> str:
    """Format seconds as `4:07` or `1:02:09`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _report_markdown(training: TrainingRecord, curves: LossCurves) -> str:
    places = _evenly_spaced(len(curves.steps))
    smoothed = list(moving_average(curves.losses))
    rows = []
    for place in places:
        losses = (f"{curves.losses[place]:.4f}", f"{smoothed[place]:.4f}")
        rows.append((curves.steps[place], *losses, f"{curves.rates[place]:.3g}"))
    parts = ["# Training", training_section(training, "")]
    if training.caveats:
        parts += ["## Notes", "\n".join(f"- {caveat}" for caveat in training.caveats)]
    legend = f"Losses are nats per reply token. Smoothed: {SMOOTHING_FORMULA}."
    if len(places) < len(curves.steps):
        legend += f" {len(places)} of {len(curves.steps)} steps."
    parts += [
        "## The curves as a table",
        legend,
        markdown_table(("step", "loss", "smoothed", "learning rate"), rows),
        "`steps.csv` has every reported step, `tensorboard/` the same for `tensorboard --logdir`, "
        "`training.json` the figures at the top.",
    ]
    return "\n\n".join(parts) + "\n"


def has_stages(history: Iterable[StepEvent]) -> bool:
    """Report whether a run had two stages."""
    return any(event.stage for event in history)


def _loss_difference_note(training: TrainingRecord) -> str:
    """Explain why the final held-out loss differs from the tables' last one; empty if the tables
    have none.
    """
    if all(isinstance(event, Progress) or event.eval_loss is None for event in training.history):
        return ""
    return (
        "The tables' held-out losses were measured during training, with the base model in "
        "training precision; the final one was measured with the saved adapter and the base model "
        f"as served, in {training.metrics.precision}."
    )


def epoch_table(history: Sequence[StepEvent]) -> str:
    """Render losses, time and samples per second of each epoch, and how the losses moved; empty
    without epochs.
    """
    epochs = [event for event in history if isinstance(event, Epoch)]
    rows = []
    for epoch in epochs:
        losses = (_format_loss(epoch.train_loss), _format_loss(epoch.eval_loss))
        rows.append((epoch.passes, *losses, format_duration(epoch.seconds), epoch.pace))
    head = ("epoch", "training loss", "held-out loss", "time", "samples/s")
    parts = [_stage_table(head, rows, events=epochs)]
    # Losses of two stages are of different texts: from one to the other, nothing has moved.
    summary = "" if has_stages(history) else summarise_epochs(epochs)
    if summary:
        parts.append(f"{summary.capitalize()}.")
    return "\n\n".join(part for part in parts if part)


def _evaluation_table(training: TrainingRecord) -> str:
    history = training.history
    evaluations = [event for event in history if isinstance(event, Evaluation)]
    shown = [evaluations[place] for place in _evenly_spaced(len(evaluations))]
    rows = []
    for event in shown:
        rows.append((event.step, _format_loss(event.train_loss), _format_loss(event.eval_loss)))
    head = ("step", "training loss", "held-out loss")
    return _stage_table(head, rows, events=shown)


def _stage_table(
    head: tuple[str, ...], rows: Sequence[tuple[object, ...]], *, events: Sequence[StepEvent]
) -> str:
    """Render a table of events, with a stage column if there were two stages; empty without
    events.
    """
    if not rows:
        return ""
    if not has_stages(events):
        return markdown_table(head, rows)
    stages = [(STAGE_LABELS[event.stage], *row) for event, row in zip(events, rows, strict=True)]
    return markdown_table(("stage", *head), stages)


def _format_loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _evenly_spaced(count: int) -> list[int]:
    """Pick at most `MAX_SHOWN_STEPS` evenly spaced indices including the first and the last."""
    if count <= MAX_SHOWN_STEPS:
        return list(range(count))
    gaps = MAX_SHOWN_STEPS - 1
    return [round(number * (count - 1) / gaps) for number in range(MAX_SHOWN_STEPS)]


def _figures(training: TrainingRecord) -> dict[str, object]:
    return {
        "format": 1,
        "seconds": round(training.seconds, 1),
        "training_seconds": round(training.training_s, 1),
        "train_loss": training.train_loss,
        "heldout_loss": training.metrics.loss_tuned,
        "peak_bytes": training.peak.bytes,
        "memory_bytes": training.peak.of_bytes,
        "memory_share": training.peak.share,  # unrounded: rounding twice would differ from the text
        "memory_of": training.peak.device,
        "epochs": [event.model_dump() for event in training.history if isinstance(event, Epoch)],
    }


def _write_csv(path: Path, columns: tuple[str, ...], events: Iterable[StepEvent]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for event in events:
            writer.writerow([getattr(event, column) for column in columns])


def draw_loss(folder: Path, curves: LossCurves) -> None:
    """Draw `loss.svg` and `.png`: the training loss, raw and smoothed, and the held-out loss."""
    figure, axes = new_figure(height=3.8)
    axes.plot(curves.steps, curves.losses, color=RAW_COLOUR, linewidth=0.9, label="training")
    even = list(moving_average(curves.losses))
    axes.plot(
        curves.steps,
        even,
        color=SMOOTH_COLOUR,
        linewidth=1.8,
        label=f"training, smoothed: {SMOOTHING_FORMULA}",
    )
    if curves.heldout:
        steps, losses = zip(*curves.heldout, strict=True)
        axes.plot(
            steps,
            losses,
            color=HELDOUT_COLOUR,
            linewidth=1.4,
            marker="o",
            markersize=4,
            label="held out",
        )
    axes.set(title="Loss", xlabel="optimiser step", ylabel="nats per reply token")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    text = "Loss by optimiser step; README.md has the figures as a table"
    save_figure(figure, folder / "loss", text)


def draw_learning_rate(folder: Path, curves: LossCurves) -> None:
    """Draw `learning_rate.svg` and `.png`."""
    figure, axes = new_figure(height=2.6)
    axes.plot(curves.steps, curves.rates, color=SMOOTH_COLOUR, linewidth=1.8)
    axes.set(title="Learning rate", xlabel="optimiser step", ylabel="rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    axes.set_ylim(bottom=0)
    text = "Learning rate by optimiser step; README.md has the figures as a table"
    save_figure(figure, folder / "learning_rate", text)
