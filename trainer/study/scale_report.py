"""Scores the replies of a study's runs, and writes its table and chart."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from personas.home.atomic_files import write_private_file
from personas.prompt import Renderer
from personas.schemas.formatting import markdown_table
from personas.schemas.scorecard import MeanStd
from trainer.data.charts import HELDOUT_COLOUR, SERIES_COLOURS
from trainer.data.dataset_charts import new_figure, save_figure
from trainer.data.job_inputs import read_spec
from trainer.evaluate.candidates import NEW, Candidate, Candidates
from trainer.evaluate.generation.evaluation_prompts import PromptBuilder, heldout_prompts
from trainer.evaluate.generation.reply_generator import ReplyGenerator
from trainer.evaluate.generation.text_metrics import score_texts
from trainer.evaluate.paired_losses import TimeBudget
from trainer.study.scale import STUDY_FILE, ScaleResult, SizeSummary, summarise_sizes
from trainer.train.job import prepare_job

METRIC_LABELS = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "chrf": "chrF",
    "length_ratio": "length",
}


CHARTED_METRICS = ("rouge1", "rouge2", "rougeL")


def write_study(out: Path, persona: str | None, results: Sequence[ScaleResult]) -> None:
    """Write all of it. Raises `OSError`."""
    sizes = summarise_sizes(results)
    told = {
        "persona": persona,
        "loss_base": results[0].loss_base,
        "prompts": results[0].prompts,
        "sizes": [
            {"samples": size.samples, "loss": size.loss.model_dump()}
            | {"scores": {name: of.model_dump() for name, of in size.scores.items()}}
            for size in sizes
        ],
        "runs": [asdict(result) for result in results],
    }
    write_private_file(out / STUDY_FILE, json.dumps(told, indent=2).encode() + b"\n")
    write_private_file(out / "study.md", f"{study_markdown(persona, results)}\n".encode())
    draw_study(out, sizes, results[0].loss_base)


def study_markdown(persona: str | None, results: Sequence[ScaleResult]) -> str:
    """The table, and what its figures mean."""
    sizes, first = summarise_sizes(results), results[0]
    head = ("samples", "runs", "held-out loss", *METRIC_LABELS.values())
    rows = [
        (
            f"{size.samples:,}",
            str(size.loss.runs),
            _format_mean_std(size.loss, 4),
            *(_format_mean_std(size.scores[it], 3) for it in METRIC_LABELS),
        )
        for size in sizes
    ]
    fewer = [result for result in results if result.trained < result.samples]
    notes = [
        f"Mean ± standard deviation over the runs of a size. The held-out loss is in nats per token (untrained: "
        f"{first.loss_base:.4f}); the scores compare replies to {first.prompts} held-out prompts with those that were "
        "really given, and length is that of these replies for each word of those.",
        *(f"With {it.samples:,} asked for there were {it.trained:,} samples (seed {it.seed})." for it in fewer),
    ]
    return "\n\n".join([f"# Growing data: {persona or 'dialogue'}", markdown_table(head, rows), *notes])


def draw_study(out: Path, sizes: Sequence[SizeSummary], loss_base: float) -> None:
    """`study.svg` and `.png`: loss and ROUGE against the number of samples, with standard deviations."""
    figure, left = new_figure(height=3.6)
    figure.delaxes(left)
    left, right = figure.subplots(1, 2)
    samples = [size.samples for size in sizes]
    _draw_line(left, samples, [size.loss for size in sizes], "this persona", HELDOUT_COLOUR)
    left.axhline(loss_base, color="#777777", linestyle="--", linewidth=1.0, label="untrained")
    for name, colour in zip(CHARTED_METRICS, SERIES_COLOURS, strict=False):
        _draw_line(right, samples, [size.scores[name] for size in sizes], METRIC_LABELS[name], colour)
    for axes, title, unit in ((left, "Held-out loss", "nats per reply token"), (right, "ROUGE", "F1")):
        axes.set(title=title, xlabel="samples trained on", ylabel=unit)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
    save_figure(
        figure, out / "study", "Held-out loss and ROUGE by the number of samples; study.md has the figures as a table"
    )


def _draw_line(axes: object, samples: Sequence[int], values: Sequence[MeanStd], label: str, colour: str) -> None:
    means, deviations = [value.mean for value in values], [value.sd for value in values]
    axes.errorbar(samples, means, yerr=deviations, marker="o", capsize=3, linewidth=1.4, color=colour, label=label)  # type: ignore[attr-defined]


def _format_mean_std(value: MeanStd, digits: int) -> str:
    return f"{value.mean:.{digits}f} ± {value.sd:.{digits}f}"


def score_adapter(folder: Path) -> tuple[dict[str, float], int]:
    """Scores of the replies that the adapter in a job folder makes, drawn with the run's seed, and how many there are.

    Raises `UnderstudyError` where the job or its adapter cannot be used.
    """
    spec = read_spec(folder)
    job = prepare_job(folder, spec)
    data, renderer = job.data, Renderer(job.tokenizer)
    asked = heldout_prompts(PromptBuilder(renderer, data.persona, data.lore), data)
    sides = Candidates.load(job.base, job.tokenizer, spec.serving_precision, asked[0].ids)
    sides.add(NEW, Candidate.sealed(folder / "adapter"))
    assert sides.parts  # they were loaded to speak
    speakers = ReplyGenerator(sides.parts, renderer, {NEW: sides.ref(NEW)}, (job.recipe.seed,))
    answers = speakers.answers(asked, TimeBudget(math.inf))
    references = [data.heldout_prompt_replies[it.asked.number].reply for it in answers]
    return score_texts(references, [it.text for it in answers]), len(answers)
