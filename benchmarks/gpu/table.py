"""Prints the figures: a line for each way, then tables, and how many times faster ours is."""

from collections.abc import Mapping, Sequence
from typing import Any

from personas.schemas.formatting import markdown_table

GIB = 2**30
Figures = Mapping[str, Any]
TRAINING_COLUMNS = (
    "way", "samples/s", "tokens/s", "a step", "busy", "peak", "micro-batches", "operators", "kernels",
    "synchronisations", "loss", "warm-up", "compiling",
)  # fmt: skip
SERVING_COLUMNS = (
    "way", "replies at once", "tokens/s", "a step", "busy", "peak", "operators", "kernels", "synchronisations",
    "warm-up", "compiling",
)  # fmt: skip


def format_line(row: Figures) -> str:
    """Format a way's figures in a line."""
    named = [f"{row['way']:12}"]
    if "rows" in row:
        named.append(f"{row['rows']:3} replies")
    if "error" in row:
        named.append(f"did not end: {row['error']}")
    if "step_s" in row:
        named += [f"{row['tokens_per_s']:9.1f} tokens/s", f"{1e3 * row['step_s']:9.1f} ms a step"]
    if "samples_per_s" in row:
        named.append(f"{row['samples_per_s']:7.2f} samples/s")
    named += [f"busy {_percent(row.get('busy_percent'))}", f"peak {_peak(row)}"]
    return "  ".join(named)


def format_tables(facts: Figures, rows: Sequence[Figures]) -> str:
    """Format all figures as Markdown. Counts are of one micro-batch or of one step of serving."""
    parts = [facts.get("machine", ""), f"Shape: {facts.get('shape', '')}."]
    training = [row for row in rows if "samples_per_s" in row]
    serving = [row for row in rows if "rows" in row and "step_s" in row]
    if training:
        parts.append(markdown_table(TRAINING_COLUMNS, [_training_cells(row) for row in training]))
    if serving:
        parts.append(markdown_table(SERVING_COLUMNS, [_serving_cells(row) for row in serving]))
    parts += _comparisons(training, serving)
    for row in rows:
        parts += [f"- {row['way']}: {note}" for note in row.get("notes", ())]
        if "error" in row:
            parts.append(f"- {row['way']} did not end: {row['error']}")
    return "\n\n".join(part for part in parts if part)


def _training_cells(row: Figures) -> tuple[str, ...]:
    losses = row["losses"]
    return (
        row["way"],
        f"{row['samples_per_s']:.2f}",
        f"{row['tokens_per_s']:.0f}",
        _milliseconds(row["step_s"]),
        _percent(row["busy_percent"]),
        _peak(row),
        str(row["micro_batches"]),
        *_counts(row),
        f"{sum(losses) / len(losses):.4f}" if losses else "–",
        f"{row['warm_up_s']:.1f} s",
        f"{row['compile_s']:.1f} s",
    )


def _serving_cells(row: Figures) -> tuple[str, ...]:
    return (
        row["way"],
        str(row["rows"]),
        f"{row['tokens_per_s']:.1f}",
        _milliseconds(row["step_s"]),
        _percent(row["busy_percent"]),
        _peak(row),
        *_counts(row),
        f"{row['warm_up_s']:.1f} s",
        f"{row['compile_s']:.1f} s",
    )


def _comparisons(training: Sequence[Figures], serving: Sequence[Figures]) -> list[str]:
    lines = []
    by_way = {row["way"]: row for row in training}
    if {"ours", "plain"} <= by_way.keys():
        ours = by_way["ours"]
        plain = by_way["plain"]
        line = f"Training: {ours['samples_per_s'] / plain['samples_per_s']:.1f} × plain"
        if ours["losses"] and plain["losses"]:
            line += f", losses {sum(ours['losses']) / sum(plain['losses']) - 1:+.2%}"
        lines.append(f"{line}.")
    generated = {row["rows"]: row["tokens_per_s"] for row in serving if row["way"] == "generate"}
    for row in serving:
        if row["way"] != "generate" and row["rows"] in generated:
            ratio = row["tokens_per_s"] / generated[row["rows"]]
            lines.append(f"Serving, {row['rows']} at once: {ratio:.1f} × generate.")
    return lines


def _counts(row: Figures) -> tuple[str, str, str]:
    """Format the counts; a run that was cut off has none."""
    names = ("operators", "kernels", "synchronisations")
    first, second, third = (f"{row[name]:,}" if name in row else "–" for name in names)
    return first, second, third


def _peak(row: Figures) -> str:
    size = row.get("peak_reserved_bytes")
    return "–" if size is None else f"{size / GIB:.2f} GiB"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} %"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"
