"""Formats values, counts and tables for reports and pages."""

from collections.abc import Iterable, Mapping

UNKNOWN_VALUE = "–"
OPPOSITE_UNITS = {"share more": "share fewer", "share fewer": "share more"}


def model_label(name: str) -> str:
    """Return what people read in place of the name of a base model or teacher."""
    return "the bundled model" if name == "embedded" else name


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
    if unit.startswith("share"):
        return f"{value:.1%}{unit.removeprefix('share')}"
    return f"{value:.3g} {unit}".strip()


def format_size(number_bytes: float) -> str:
    """Format a size as hubs do, in powers of 1,000: `54.4 MB`."""
    if number_bytes < 999.95:
        return f"{number_bytes:.0f} B"
    for unit in ("kB", "MB"):
        number_bytes /= 1000
        if number_bytes < 999.95:  # which would be rounded to 1000.0
            return f"{number_bytes:.1f} {unit}"
    number_bytes /= 1000
    return f"{number_bytes:.2f} GB"


def format_gib(number_bytes: float) -> str:
    """Format a size as memory, in powers of 1,024: `1.9 GiB`."""
    return f"{number_bytes / 2**30:.1f} GiB"


def format_time_left(seconds: float, most_s: float | None = None) -> str:
    """Format a time that is left, no finer than it is known: `40 s`, `12 min`, `2 h 10 min`; with the
    most that it may be, a range: `4–7 min`, `50 s – 2 min`.
    """
    least = _format_one_time_left(seconds)
    most = least if most_s is None else _format_one_time_left(most_s)
    if least == most:
        return least
    number, _, unit = least.partition(" ")
    if unit in ("s", "min") and unit == most.partition(" ")[2]:
        return f"{number}–{most}"
    return f"{least} – {most}"


def _format_one_time_left(seconds: float) -> str:
    if seconds < 95:
        return f"{max(10, round(seconds / 10) * 10)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(round(minutes / 10) * 10, 60)
    return f"{hours} h {minutes} min"


def count_of(number: int, noun: str) -> str:
    """Format a number with its noun, whose plural ends in `s`: `1 prompt`, `2,500 prompts`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_counts(counts: Mapping[str, int]) -> str:
    """Format counts by kind, such as kinds of personal data: `2 × ip address, 1 × secret`."""
    parts = []
    for kind, count in counts.items():
        parts.append(f"{count} × {kind.lower().replace('_', ' ')}")
    return ", ".join(parts) or "none"


def markdown_table(
    head: Iterable[str], rows: Iterable[Iterable[object]], *, numbers: bool = True
) -> str:
    """Build a markdown table. The first column is left-aligned, the others right-aligned if they
    are `numbers`.
    """
    head = list(head)
    other_columns = "---:" if numbers else "---"
    rule = ["---", *[other_columns] * (len(head) - 1)]
    lines = []
    for row in (head, rule, *rows):
        cells = [str(cell).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
