"""What a study says: `study.json`, the same as a table, `study.md`, and its chart, `study.svg` and `.png`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from personas.durable import put_private
from personas.scorecard import Spread
from trainer.building.data_sheet import table
from trainer.report.charts import HELDOUT_COLOUR, SERIES, figure_of, save
from trainer.study.scale import STUDY, Result, Size, sizes_of

SHOWN = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "chrf": "chrF", "length_ratio": "length"}
DRAWN = ("rouge1", "rouge2", "rougeL")


def write_study(out: Path, persona: str | None, results: Sequence[Result]) -> None:
    """Write all of it. Raises `OSError`."""
    sizes = sizes_of(results)
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
    put_private(out / STUDY, json.dumps(told, indent=2).encode() + b"\n")
    put_private(out / "study.md", f"{study_text(persona, results)}\n".encode())
    draw_study(out, sizes, results[0].loss_base)


def study_text(persona: str | None, results: Sequence[Result]) -> str:
    """The table, and what its figures mean."""
    sizes, first = sizes_of(results), results[0]
    head = ("samples", "runs", "held-out loss", *SHOWN.values())
    rows = [
        (f"{size.samples:,}", str(size.loss.runs), _shown(size.loss, 4), *(_shown(size.scores[it], 3) for it in SHOWN))
        for size in sizes
    ]
    fewer = [result for result in results if result.trained < result.samples]
    notes = [
        f"Mean ± standard deviation over the runs of a size. The held-out loss is in nats per token (untrained: "
        f"{first.loss_base:.4f}); the scores compare replies to {first.prompts} held-out prompts with those that were "
        "really given, and length is that of these replies for each word of those.",
        *(f"With {it.samples:,} asked for there were {it.trained:,} samples (seed {it.seed})." for it in fewer),
    ]
    return "\n\n".join([f"# Growing data: {persona or 'dialogue'}", table(head, rows), *notes])


def draw_study(out: Path, sizes: Sequence[Size], loss_base: float) -> None:
    """`study.svg` and `.png`: loss and ROUGE against the number of samples, with standard deviations."""
    figure, left = figure_of(height=3.6)
    figure.delaxes(left)
    left, right = figure.subplots(1, 2)
    samples = [size.samples for size in sizes]
    _line(left, samples, [size.loss for size in sizes], "this persona", HELDOUT_COLOUR)
    left.axhline(loss_base, color="#777777", linestyle="--", linewidth=1.0, label="untrained")
    for name, colour in zip(DRAWN, SERIES, strict=False):
        _line(right, samples, [size.scores[name] for size in sizes], SHOWN[name], colour)
    for axes, title, unit in ((left, "Held-out loss", "nats per reply token"), (right, "ROUGE", "F1")):
        axes.set(title=title, xlabel="samples trained on", ylabel=unit)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
    save(figure, out / "study", "Held-out loss and ROUGE by the number of samples; study.md has the figures as a table")


def _line(axes: object, samples: Sequence[int], values: Sequence[Spread], label: str, colour: str) -> None:
    means, deviations = [value.mean for value in values], [value.sd for value in values]
    axes.errorbar(samples, means, yerr=deviations, marker="o", capsize=3, linewidth=1.4, color=colour, label=label)  # type: ignore[attr-defined]


def _shown(value: Spread, digits: int) -> str:
    return f"{value.mean:.{digits}f} ± {value.sd:.{digits}f}"
