"""Draws charts as SVG and PNG: figure and save helpers, and a data set's composition and
lengths.
"""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Of bars: distinguishable with colour blindness, and in greyscale.
TRAIN_COLOUR = "#2f6fab"
EVAL_COLOUR = "#d98324"
# Of lines: the raw curve may be faint, the others have a contrast to white of at least 4.5 to 1.
RAW_COLOUR = "#7fa8cf"
SMOOTH_COLOUR = "#1d4f80"
HELDOUT_COLOUR = "#b35900"
SERIES_COLOURS = (SMOOTH_COLOUR, HELDOUT_COLOUR, "#4d7c0f", "#7e3f8f", "#555555")
"""Colours of equally important lines, equally dark."""


def draw_composition(folder: Path, by_source: Mapping[str, Mapping[str, int]]) -> None:
    """Draw `composition.svg` and `.png`: samples by source and side."""
    # matplotlib reads text between two of these as a formula.
    names = [name.replace("$", r"\$") for name in by_source]
    figure, axes = new_figure(height=1.6 + 0.45 * len(names))
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
    save_figure(figure, folder / "composition")


def draw_lengths(folder: Path, spread: Mapping[str, Any], limit: int) -> None:
    """Draw `lengths.svg` and `.png`: a histogram of sample lengths in tokens, with the maximum
    length `limit`.
    """
    edges: Sequence[int] = spread["edges"]
    figure, axes = new_figure(height=3.2)
    widths = [right - left for left, right in itertools.pairwise(edges)]
    axes.bar(
        edges[:-1],
        spread["counts"],
        widths,
        align="edge",
        color=TRAIN_COLOUR,
        edgecolor="white",
        linewidth=0.5,
    )
    axes.axvline(limit, color=EVAL_COLOUR, linestyle="--", label=f"limit: {limit} tokens")
    axes.set(title="Length", xlabel="tokens per sample, prompt and reply", ylabel="samples")
    axes.legend(frameon=False)
    save_figure(figure, folder / "lengths")


def new_figure(height: float) -> tuple[Any, Any]:
    """Create a figure of the standard width; return it with its axes."""
    # Importing takes half a second. Not pyplot, which keeps figures.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Any, path: Path, title: str = "") -> None:
    """Write the figure as SVG and PNG. Raises `OSError`."""
    from matplotlib import rc_context  # importing takes half a second

    with (
        warnings.catch_warnings(),
        rc_context({"svg.hashsalt": "understudy", "svg.fonttype": "none"}),
    ):
        # In a source's name, which the table has.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        # Without its date, the same figures give the same file.
        metadata: dict[str, str | None] = {"Date": None}
        if title:
            metadata["Title"] = title
        figure.savefig(path.with_suffix(".svg"), metadata=metadata)
        figure.savefig(path.with_suffix(".png"), dpi=150, metadata={"Software": None})
