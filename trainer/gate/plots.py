"""Plots as SVG for the score card's page: bars and intervals. Each says in words what it shows; figures stand beside it
as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LABEL, ROW, PAD = 680, 235, 34, 14
"""Of a plot, of the room for names, of one row, and at the edges, in the SVG's own units."""


@dataclass(frozen=True)
class Row:
    """A value with its name; from `low` to `high` is how far it may be off. `kind` colours it: base, live, new."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    kind: str = "new"


@dataclass(frozen=True)
class Line:
    """A value that all rows are seen against, such as a ceiling."""

    name: str
    value: float


def bars(title: str, rows: Sequence[Row], lines: Sequence[Line] = (), shown: str = "{:.3f}") -> str:
    """Bars from zero on."""
    most = max([0.0, *(row.high or row.value for row in rows), *(line.value for line in lines)]) or 1.0
    scale = _Scale(0.0, most)
    parts = []
    for place, row in enumerate(rows):
        top = PAD + place * ROW
        end = scale.at(max(0.0, row.value))
        parts.append(
            f'<rect class="{row.kind}" x="{LABEL}" y="{top + 6}" width="{end - LABEL:.1f}" height="20" rx="2"/>'
        )
        parts.append(_whisker(row, scale, top + 16))
        parts.append(_named(row, top + 21, shown, max(end, scale.at(row.high) if row.high else 0)))
    return _svg(title, rows, parts, _against(lines, scale, len(rows)), len(lines) > 0, shown)


def intervals(title: str, rows: Sequence[Row], lines: Sequence[Line], shown: str = "{:+.3f}") -> str:
    """Points with their intervals, around zero."""
    values = [value for row in rows for value in (row.low, row.high, row.value) if value is not None]
    values += [0.0, *(line.value for line in lines)]
    scale = _Scale(min(values), max(values))
    parts = []
    for place, row in enumerate(rows):
        top = PAD + place * ROW
        parts.append(_whisker(row, scale, top + 16))
        parts.append(f'<circle class="{row.kind}" cx="{scale.at(row.value):.1f}" cy="{top + 16}" r="6"/>')
        parts.append(_named(row, top + 21, shown, scale.at(row.high if row.high is not None else row.value)))
    return _svg(title, rows, parts, _against([Line("0", 0.0), *lines], scale, len(rows)), True, shown)


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    def at(self, value: float) -> float:
        room = WIDTH - LABEL - 90
        return LABEL + room * (value - self.low) / ((self.high - self.low) or 1.0)


def _whisker(row: Row, scale: _Scale, middle: float) -> str:
    if row.low is None or row.high is None:
        return ""
    left, right = scale.at(row.low), scale.at(row.high)
    return (
        f'<path class="whisker" d="M{left:.1f} {middle}H{right:.1f}M{left:.1f} {middle - 5}v10'
        f'M{right:.1f} {middle - 5}v10"/>'
    )


def _named(row: Row, baseline: float, shown: str, end: float) -> str:
    name = f'<text x="{LABEL - 10}" y="{baseline}" text-anchor="end">{escape(row.name)}</text>'
    return f'{name}<text x="{end + 8:.1f}" y="{baseline}" class="value">{escape(shown.format(row.value))}</text>'


def _against(lines: Sequence[Line], scale: _Scale, rows: int) -> list[str]:
    bottom = PAD + rows * ROW
    found = []
    for line in lines:
        x = scale.at(line.value)
        found.append(f'<path class="line" d="M{x:.1f} {PAD - 6}V{bottom + 2}"/>')
        found.append(
            f'<text class="small" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(line.name)}</text>'
        )
    return found


def _svg(title: str, rows: Sequence[Row], parts: list[str], lines: list[str], has_lines: bool, shown: str) -> str:
    height = PAD * 2 + len(rows) * ROW + (14 if has_lines else 0)
    said = "; ".join(f"{row.name} {shown.format(row.value)}" for row in rows)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(f"{title}: {said}", quote=True)}">'
        f"{''.join(parts)}{''.join(lines)}</svg>"
    )
