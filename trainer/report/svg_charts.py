"""SVG bar and interval charts with text alternatives for the score card page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

CHART_WIDTH_PX, LABEL_WIDTH_PX, ROW_HEIGHT_PX, PADDING_PX = 680, 235, 34, 14
"""Of a plot, of the room for names, of one row, and at the edges, in the SVG's own units."""


@dataclass(frozen=True)
class ChartRow:
    """A value with its name; from `low` to `high` is how far it may be off. `kind` colours it: base, live, new."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    kind: str = "new"


@dataclass(frozen=True)
class ReferenceLine:
    """A value that all rows are seen against, such as a ceiling."""

    name: str
    value: float


def bar_chart(title: str, rows: Sequence[ChartRow], lines: Sequence[ReferenceLine] = (), shown: str = "{:.3f}") -> str:
    """Bars from zero on."""
    most = max([0.0, *(row.high or row.value for row in rows), *(line.value for line in lines)]) or 1.0
    scale = _Scale(0.0, most)
    parts = []
    for place, row in enumerate(rows):
        top = PADDING_PX + place * ROW_HEIGHT_PX
        end = scale.at(max(0.0, row.value))
        parts.append(
            f'<rect class="{row.kind}" x="{LABEL_WIDTH_PX}" y="{top + 6}" width="{end - LABEL_WIDTH_PX:.1f}" height="20" rx="2"/>'
        )
        parts.append(_whisker(row, scale, top + 16))
        parts.append(_row_label(row, top + 21, shown, max(end, scale.at(row.high) if row.high else 0)))
    return _svg(title, rows, parts, _reference_lines(lines, scale, len(rows)), len(lines) > 0, shown)


def interval_chart(title: str, rows: Sequence[ChartRow], lines: Sequence[ReferenceLine], shown: str = "{:+.3f}") -> str:
    """Points with their intervals, around zero."""
    values = [value for row in rows for value in (row.low, row.high, row.value) if value is not None]
    values += [0.0, *(line.value for line in lines)]
    scale = _Scale(min(values), max(values))
    parts = []
    for place, row in enumerate(rows):
        top = PADDING_PX + place * ROW_HEIGHT_PX
        parts.append(_whisker(row, scale, top + 16))
        parts.append(f'<circle class="{row.kind}" cx="{scale.at(row.value):.1f}" cy="{top + 16}" r="6"/>')
        parts.append(_row_label(row, top + 21, shown, scale.at(row.high if row.high is not None else row.value)))
    return _svg(title, rows, parts, _reference_lines([ReferenceLine("0", 0.0), *lines], scale, len(rows)), True, shown)


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    def at(self, value: float) -> float:
        room = CHART_WIDTH_PX - LABEL_WIDTH_PX - 90
        return LABEL_WIDTH_PX + room * (value - self.low) / ((self.high - self.low) or 1.0)


def _whisker(row: ChartRow, scale: _Scale, middle: float) -> str:
    if row.low is None or row.high is None:
        return ""
    left, right = scale.at(row.low), scale.at(row.high)
    return (
        f'<path class="whisker" d="M{left:.1f} {middle}H{right:.1f}M{left:.1f} {middle - 5}v10'
        f'M{right:.1f} {middle - 5}v10"/>'
    )


def _row_label(row: ChartRow, baseline: float, shown: str, end: float) -> str:
    name = f'<text x="{LABEL_WIDTH_PX - 10}" y="{baseline}" text-anchor="end">{escape(row.name)}</text>'
    return f'{name}<text x="{end + 8:.1f}" y="{baseline}" class="value">{escape(shown.format(row.value))}</text>'


def _reference_lines(lines: Sequence[ReferenceLine], scale: _Scale, rows: int) -> list[str]:
    bottom = PADDING_PX + rows * ROW_HEIGHT_PX
    found = []
    for line in lines:
        x = scale.at(line.value)
        found.append(f'<path class="line" d="M{x:.1f} {PADDING_PX - 6}V{bottom + 2}"/>')
        found.append(
            f'<text class="small" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(line.name)}</text>'
        )
    return found


def _svg(title: str, rows: Sequence[ChartRow], parts: list[str], lines: list[str], has_lines: bool, shown: str) -> str:
    height = PADDING_PX * 2 + len(rows) * ROW_HEIGHT_PX + (14 if has_lines else 0)
    said = "; ".join(f"{row.name} {shown.format(row.value)}" for row in rows)
    return (
        f'<svg viewBox="0 0 {CHART_WIDTH_PX} {height}" role="img" aria-label="{escape(f"{title}: {said}", quote=True)}">'
        f"{''.join(parts)}{''.join(lines)}</svg>"
    )
