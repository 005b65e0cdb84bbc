"""Formats values, counts and tables for reports and pages."""

from collections.abc import Iterable, Mapping

UNKNOWN_VALUE = "–"
OPPOSITE_UNITS = {"share more": "share fewer", "share fewer": "share more"}


def format_value(value: float | None, unit: str) -> str:
    """Format a value with its unit. Of a share the words that follow are appended: `share more`
    gives `3.0% more`.

    If the share is below 0, its word is the opposite one: `3.0% fewer`.
    """
    if value is None:
        return UNKNOWN_VALUE
    if value < 0 and unit in OPPOSITE_UNITS:
        value = -value
        unit = OPPOSITE_UNITS[unit]
    if unit.startswith("of "):
        return f"{value:.1%} {unit}"
    if unit == "times":
        return f"{value:.2f} times"
    return (
        f"{value:.1%}{unit.removeprefix('share')}"
        if unit.startswith("share")
        else f"{value:.3g} {unit}".strip()
    )


def format_size(number_bytes: float) -> str:
    """Format a size as hubs do, in powers of 1,000: `54.4 MB`."""
    for unit in ("B", "kB", "MB"):
        if number_bytes < 999.95:
            return f"{number_bytes:.0f} B" if unit == "B" else f"{number_bytes:.1f} {unit}"
        number_bytes /= 1000
    return f"{number_bytes:.2f} GB"


def format_gib(number_bytes: float) -> str:
    """Format a size as memory, in powers of 1,024: `1.9 GiB`."""
    return f"{number_bytes / 2**30:.1f} GiB"


def count_of(number: int, noun: str) -> str:
    """Format a number with its noun, whose plural ends in `s`: `1 prompt`, `2,500 prompts`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_counts(counts: Mapping[str, int]) -> str:
    """Format counts by kind, such as kinds of personal data: `2 × ip address, 1 × secret`."""
    return (
        ", ".join(f"{count} × {kind.lower().replace('_', ' ')}" for kind, count in counts.items())
        or "none"
    )


def markdown_table(
    head: Iterable[str], rows: Iterable[Iterable[object]], *, numbers: bool = True
) -> str:
    """Build a markdown table. The first column is left-aligned, the others right-aligned if they
    are `numbers`.
    """
    head = list(head)
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    lines = [head, rule, *([str(cell) for cell in row] for row in rows)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
