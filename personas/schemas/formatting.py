"""Formats values, counts and tables for reports and pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

UNKNOWN_VALUE = "–"


def format_value(value: float | None, unit: str) -> str:
    """A value with its unit. Of a share what follows the word is told too: `share more` is `3.0% more`."""
    if value is None:
        return UNKNOWN_VALUE
    if unit.startswith("of "):
        return f"{value:.1%}"
    return f"{value:.1%}{unit.removeprefix('share')}" if unit.startswith("share") else f"{value:.3g} {unit}".strip()


def format_counts(counted: Mapping[str, int]) -> str:
    """How often what was found, such as kinds of personal data: `2 × ip address, 1 × secret`."""
    return ", ".join(f"{count} × {kind.lower().replace('_', ' ')}" for kind, count in counted.items()) or "none"


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[object]], *, numbers: bool = True) -> str:
    """A markdown table; the first column is text, the others are numbers unless all are text."""
    head = list(head)
    lines = [
        head,
        ["---", *["---:" if numbers else "---"] * (len(head) - 1)],
        *([str(cell) for cell in row] for row in rows),
    ]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
