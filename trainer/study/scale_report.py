"""Reports a scaling study: table, JSON and chart of losses and ROUGE by the number of samples."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

from personas.home.atomic_files import write_private_file
from personas.schemas.formatting import markdown_table
from personas.schemas.scorecard import MeanStd
from trainer.dataset.charts import HELDOUT_COLOUR, SERIES_COLOURS, new_figure, save_figure
from trainer.study.scale import HELDOUT_REPLIES, ScaleResult, TaskScores

STUDY_FILE = "study.json"
CHARTED_METRICS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
METRIC_LABELS = {**CHARTED_METRICS, "chrf": "chrF", "length_ratio": "length"}
ALL_TASKS = "mean of the tasks"


@dataclass(frozen=True)
class SizeSummary:
    """Statistics over the runs of one size; `tasks` has them by task, and for the mean of all
    tasks.
    """

    samples: int
    loss: MeanStd
    scores: dict[str, MeanStd]
    tasks: dict[str, dict[str, MeanStd]] = field(default_factory=dict)


def summarise_sizes(results: Sequence[ScaleResult]) -> list[SizeSummary]:
    """Return mean and standard deviation over the runs of each size, smallest first."""
    sizes = []
    for samples in sorted({result.samples for result in results}):
        runs = [result for result in results if result.samples == samples]
        by_task = [{HELDOUT_REPLIES: run.scores, **run.tasks} for run in runs if run.tasks]
        summary = SizeSummary(
            samples=samples,
            loss=MeanStd.of([run.loss for run in runs]),
            scores=_summarise_metrics([run.scores for run in runs]),
            tasks=_summarise_tasks(by_task),
        )
        sizes.append(summary)
    return sizes


def _summarise_metrics(runs: Sequence[Mapping[str, float]]) -> dict[str, MeanStd]:
    summary = {}
    for metric in runs[0]:
        summary[metric] = MeanStd.of([run[metric] for run in runs])
    return summary


def summarise_untrained(results: Sequence[ScaleResult]) -> dict[str, dict[str, MeanStd]]:
    """Return the base model's scores by task over the seeds; empty in studies of a persona."""
    by_seed = {result.seed: result.untrained for result in results if result.untrained}
    return _summarise_tasks(list(by_seed.values()))


def _summarise_tasks(runs: Sequence[TaskScores]) -> dict[str, dict[str, MeanStd]]:
    """Return mean and standard deviation over runs by task and metric, and of each run's mean over
    the tasks.
    """
    if not runs:
        return {}
    summary = {}
    for task in runs[0]:
        summary[task] = _summarise_metrics([run[task] for run in runs])
    means = []
    for run in runs:
        of_run = {}
        for name in CHARTED_METRICS:
            of_run[name] = fmean(scores[name] for scores in run.values())
        means.append(of_run)
    summary[ALL_TASKS] = _summarise_metrics(means)
    return summary


def write_study(out: Path, persona: str | None, results: Sequence[ScaleResult]) -> None:
    """Write table, JSON and chart. Raises `OSError`."""
    sizes = summarise_sizes(results)
    untrained = summarise_untrained(results)
    size_rows = []
    for size in sizes:
        row = {
            "samples": size.samples,
            "loss": size.loss.model_dump(),
            "scores": _scores_as_json(size.scores),
            "tasks": _tasks_as_json(size.tasks),
        }
        size_rows.append(row)
    study = {
        "persona": persona,
        "loss_base": results[0].loss_base,
        "prompts": results[0].prompts,
        "sizes": size_rows,
        "untrained": _tasks_as_json(untrained),
        "runs": [asdict(result) for result in results],
    }
    write_private_file(out / STUDY_FILE, json.dumps(study, indent=2).encode() + b"\n")
    write_private_file(out / "study.md", f"{study_markdown(persona, results)}\n".encode())
    draw_study(out, sizes, results[0].loss_base, untrained)


def _tasks_as_json(tasks: Mapping[str, Mapping[str, MeanStd]]) -> dict[str, object]:
    return {task: _scores_as_json(scores) for task, scores in tasks.items()}


def _scores_as_json(scores: Mapping[str, MeanStd]) -> dict[str, object]:
    return {name: score.model_dump() for name, score in scores.items()}


def study_markdown(persona: str | None, results: Sequence[ScaleResult]) -> str:
    """Render the table with notes."""
    sizes = summarise_sizes(results)
    first = results[0]
    head = ("samples", "runs", "held-out loss", *METRIC_LABELS.values())
    rows = []
    for size in sizes:
        scores = [size.scores[name].format() for name in METRIC_LABELS]
        rows.append((f"{size.samples:,}", str(size.loss.runs), size.loss.format(4), *scores))
    note = (
        "Mean ± standard deviation over the runs of a size. The held-out loss is in nats per token "
        f"(untrained: {first.loss_base:.4f}); the scores compare replies to {first.prompts} "
        "held-out prompts with those that were really given, and length is that of these replies "
        "for each word of those."
    )
    parts = [f"# Growing data: {persona or 'dialogue'}", markdown_table(head, rows), note]
    for result in results:
        if result.trained < result.samples:
            parts.append(
                f"With {result.samples:,} asked for there were {result.trained:,} samples "
                f"(seed {result.seed})."
            )
    if sizes[0].tasks:
        parts.append(_tasks_markdown(sizes, results))
    return "\n\n".join(parts)


def _tasks_markdown(sizes: Sequence[SizeSummary], results: Sequence[ScaleResult]) -> str:
    """Render the table by task, with the untrained model first."""
    untrained = summarise_untrained(results)
    first = results[0]
    prompts = {HELDOUT_REPLIES: first.prompts, **first.task_prompts}
    rows = []
    for task in sizes[0].tasks:
        lines = [(f"{size.samples:,}", size.tasks[task]) for size in sizes]
        if untrained:
            lines.insert(0, ("untrained", untrained[task]))
        label = task
        if task in prompts:
            label += f" ({prompts[task]} prompts)"
        for samples, scores in lines:
            rows.append((label, samples, *(scores[name].format() for name in CHARTED_METRICS)))
            label = ""  # the task is named once
    note = (
        "The same prompts for every run; mean ± standard deviation of F1 over the runs of a size."
    )
    table = markdown_table(("task", "samples", *CHARTED_METRICS.values()), rows)
    return "\n\n".join(["## By task", table, note])


def draw_study(
    out: Path,
    sizes: Sequence[SizeSummary],
    loss_base: float,
    untrained: Mapping[str, Mapping[str, MeanStd]] | None = None,
) -> None:
    """Draw `study.svg` and `.png`: loss and ROUGE by number of samples, with standard deviations.

    In studies of several tasks, each has a panel, with the untrained model's scores as dashed
    lines.
    """
    panels = {task: [size.tasks[task] for size in sizes] for task in sizes[0].tasks}
    if not panels:
        panels = {"ROUGE": [size.scores for size in sizes]}
    # One panel more, for the loss; several tasks stand in rows of three.
    rows = 1
    columns = 2
    height = 3.6
    if len(panels) > 1:
        rows = math.ceil((len(panels) + 1) / 3)
    if rows > 1:
        columns = 3
        height = 2.9 * rows
    figure, axes = new_figure(height=height)
    figure.delaxes(axes)
    left, *others = figure.subplots(rows, columns, squeeze=False).flat
    samples = [size.samples for size in sizes]
    _draw_line(left, samples, [size.loss for size in sizes], label="trained", colour=HELDOUT_COLOUR)
    left.axhline(loss_base, color="#777777", linestyle="--", linewidth=1.0, label="untrained")
    for axes, (task, scores) in zip(others, panels.items(), strict=False):
        for (name, label), colour in zip(CHARTED_METRICS.items(), SERIES_COLOURS, strict=False):
            values = [score[name] for score in scores]
            _draw_line(axes, samples, values, label=label, colour=colour)
            if untrained:
                mean = untrained[task][name].mean
                axes.axhline(mean, color=colour, linestyle="--", linewidth=1.0)
        axes.set(title=task.capitalize() if len(panels) > 1 else task, ylabel="F1")
        axes.set_ylim(bottom=0)
    left.set(title="Held-out loss", ylabel="nats per reply token")
    for axes in others[len(panels) :]:
        figure.delaxes(axes)
    for axes in (left, *others[: len(panels)]):
        axes.set(xlabel="samples trained on")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (left, others[0]):
        axes.legend(frameon=False, fontsize="small")
    text = "Held-out loss and ROUGE by the number of samples; study.md has the figures as a table"
    save_figure(figure, out / "study", text)


def _draw_line(
    axes: object, samples: Sequence[int], values: Sequence[MeanStd], label: str, colour: str
) -> None:
    means = [value.mean for value in values]
    deviations = [value.sd for value in values]
    axes.errorbar(  # type: ignore[attr-defined]
        samples,
        means,
        yerr=deviations,
        marker="o",
        capsize=3,
        linewidth=1.4,
        color=colour,
        label=label,
    )
