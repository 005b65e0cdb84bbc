"""Charts, as SVG and PNG: of a data set, what it is composed of and how long its samples are; of a run, its curves.

Each stands beside its figures as a table, for whoever cannot see it. The ground is white and opaque, to be read on dark
pages too.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.report.curves import FORMULA, Curves, smoothed

TRAIN_COLOUR, EVAL_COLOUR = "#2f6fab", "#d98324"
"""Told apart by people who see few colours, and in grey."""

RAW_COLOUR, SMOOTH_COLOUR, HELDOUT_COLOUR = "#7fa8cf", "#1d4f80", "#b35900"
"""Of lines, which are thinner: the raw curve may be faint, the others stand out from white by 4.5 to 1 and more."""

SERIES = (SMOOTH_COLOUR, HELDOUT_COLOUR, "#4d7c0f", "#7e3f8f", "#555555")
"""Of lines that are alike: as dark as these."""


def draw_composition(folder: Path, by_source: Mapping[str, Mapping[str, int]]) -> None:
    """`composition.svg` and `.png`: samples by source, those held out apart."""
    names = [name.replace("$", r"\$") for name in by_source]  # between two of these would stand a formula
    figure, axes = figure_of(height=1.6 + 0.45 * len(names))
    train = [of["train"] for of in by_source.values()]
    held_out = [of["eval"] for of in by_source.values()]
    axes.barh(names, train, color=TRAIN_COLOUR, label="train")
    bars = axes.barh(names, held_out, left=train, color=EVAL_COLOUR, label="eval")
    total = max(sum(train) + sum(held_out), 1)
    sums = [left + right for left, right in zip(train, held_out, strict=True)]
    axes.bar_label(bars, [f" {count:,} ({count / total:.0%})" for count in sums])
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set(title="Composition", xlabel="samples")
    axes.legend(loc="lower right", frameon=False)
    save(figure, folder / "composition")


def draw_lengths(folder: Path, spread: Mapping[str, Any], limit: int) -> None:
    """`lengths.svg` and `.png`: how many samples have how many tokens; `limit` is the most that a sample may have."""
    edges: Sequence[int] = spread["edges"]
    figure, axes = figure_of(height=3.2)
    widths = [right - left for left, right in itertools.pairwise(edges)]
    axes.bar(edges[:-1], spread["counts"], widths, align="edge", color=TRAIN_COLOUR, edgecolor="white", linewidth=0.5)
    axes.axvline(limit, color=EVAL_COLOUR, linestyle="--", label=f"limit: {limit} tokens")
    axes.set(title="Length", xlabel="tokens per sample, prompt and reply", ylabel="samples")
    axes.legend(frameon=False)
    save(figure, folder / "lengths")


def draw_loss(folder: Path, curves: Curves) -> None:
    """`loss.svg` and `.png`: the training loss raw and smoothed, and that of the held-out replies."""
    figure, axes = figure_of(height=3.8)
    axes.plot(curves.steps, curves.losses, color=RAW_COLOUR, linewidth=0.9, label="training")
    even = list(smoothed(curves.losses))
    axes.plot(curves.steps, even, color=SMOOTH_COLOUR, linewidth=1.8, label=f"training, smoothed: {FORMULA}")
    if curves.heldout:
        steps, losses = zip(*curves.heldout, strict=True)
        axes.plot(steps, losses, color=HELDOUT_COLOUR, linewidth=1.4, marker="o", markersize=4, label="held out")
    axes.set(title="Loss", xlabel="optimiser step", ylabel="nats per reply token")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    save(figure, folder / "loss", "Loss by optimiser step; README.md has the figures as a table")


def draw_learning_rate(folder: Path, curves: Curves) -> None:
    """`learning_rate.svg` and `.png`: the rate of each step."""
    figure, axes = figure_of(height=2.6)
    axes.plot(curves.steps, curves.rates, color=SMOOTH_COLOUR, linewidth=1.8)
    axes.set(title="Learning rate", xlabel="optimiser step", ylabel="rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    axes.set_ylim(bottom=0)
    save(figure, folder / "learning_rate", "Learning rate by optimiser step; README.md has the figures as a table")


def figure_of(height: float) -> tuple[Any, Any]:
    """A figure of our width, and its axes."""
    from matplotlib.figure import Figure  # half a second; no pyplot, which keeps figures and may look for a screen

    figure = Figure(figsize=(7.5, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Any, path: Path, title: str = "") -> None:
    """Write it as SVG and PNG. Raises `OSError`."""
    from matplotlib import rc_context

    with warnings.catch_warnings(), rc_context({"svg.hashsalt": "understudy", "svg.fonttype": "none"}):
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a source's name; the table has it
        # Without its date, the same figures give the same file.
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None} | ({"Title": title} if title else {}))
        figure.savefig(path.with_suffix(".png"), dpi=150, metadata={"Software": None})
