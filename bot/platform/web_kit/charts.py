"""SVG charts with an accessible data table: lines, bars and intervals."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

Point = tuple[float, float]
SERIES_COLOURS = 6
# Size of the drawing and its margins, in units of the viewBox
WIDTH = 720
HEIGHT = 304
LEFT = 80  # six characters on a phone, where the letters are largest
RIGHT = 24
TOP = 36
BOTTOM = 56
# Longer series are thinned out evenly.
MAX_DRAWN_POINTS = 600
MAX_TABLE_ROWS = 200
MAX_DESCRIBED_BARS = 12  # in the label that screen readers read out
DASHES = ("", "7 4", "2 4", "10 3 2 3", "4 2", "1 3")
"""Lines are distinguishable without their colours."""


@dataclass(frozen=True)
class Series:
    """A line: its name and its points (x, y), by ascending x. A faint line shows raw values behind
    a smoothed one.

    `colour` is the index of its colour; by default its position.
    """

    name: str
    points: Sequence[Point]
    faint: bool = False
    colour: int | None = None

    def style(self, place: int) -> tuple[str, str]:
        """CSS class and dashes at a position; a faint line is solid, as dashes would hide it."""
        colour = place if self.colour is None else self.colour
        number = colour % SERIES_COLOURS
        if self.faint:
            return f"s{number} faint", ""
        return f"s{number}", DASHES[number]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    begin: float
    end: float
    is_whole: bool = False

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)


def line_chart(title: str, x: str, y: str, series: Sequence[Series]) -> Markup:
    """Lines over common axes named `x` and `y`. Values that are not finite are left out."""
    shown = [replace(line, points=_drawable_points(line.points)) for line in series]
    x_values = []
    y_values = []
    for line in shown:
        for x_value, y_value in line.points:
            x_values.append(x_value)
            y_values.append(y_value)
    if not x_values:
        return Markup('<p class="empty">{}: no values are recorded.</p>').format(title)
    across = _fit_scale(x_values, LEFT, WIDTH - RIGHT)
    up = _fit_scale(y_values, HEIGHT - BOTTOM, TOP)
    drawn = list(_grid(across, up, x, y))
    descriptions = []
    for number, line in enumerate(shown):
        drawn.append(_line(line, number, across, up))
        if line.points:
            descriptions.append(_aria_label(line, x, y))
    below = _table(title, x, shown)
    if len(shown) > 1:
        below = _legend(shown) + below
    label = f"{title}. {' '.join(descriptions)}"
    return _figure(title, label, size=(WIDTH, HEIGHT), drawn=drawn, below=below)


def bar_chart(title: str, rows: Sequence[tuple[str, float]], unit: str = "") -> Markup:
    """Bars from zero, one a row, each with its value."""
    if not rows:
        return _nothing_to_show(title)
    most = max((value for _, value in rows if math.isfinite(value)), default=0) or 1
    bar = Markup('<rect class="bar" y="20%" width="{:.2f}%" height="60%" rx="2"/>')
    drawn = []
    descriptions = []
    cells = Markup("")
    for name, value in rows:
        width = 0.0
        if math.isfinite(value):
            width = max(0.0, value / most * 100)
        text = _with_unit(value, unit)
        drawn.append(_row(name, bar.format(width), text))
        descriptions.append(f"{name}: {text}")
        cells += _table_row(name, (value,))
    label = _row_label(title, descriptions[:MAX_DESCRIBED_BARS])
    table = _details(title, (title, unit or "Value"), cells)
    return _row_figure(title, label, drawn=drawn, below=table)


def _nothing_to_show(title: str) -> Markup:
    return Markup('<p class="empty">{}: there is nothing to show.</p>').format(title)


def _row_label(title: str, descriptions: Sequence[str]) -> str:
    return f"{title}. {', '.join(descriptions)}."


def _with_unit(value: float, unit: str) -> str:
    figure = format_figure(value)
    return f"{figure} {unit}" if unit else figure


def _row(name: str, marks: Markup, value: str) -> Markup:
    """A row of a chart. Its texts are the page's own, so that they wrap and keep their size; the
    drawing between them takes the rest of the width.
    """
    return Markup(
        '<span class="row-name">{}</span><svg class="plot">{}</svg><span class="row-value">{}</span>'
    ).format(name, marks, value)


def _row_figure(title: str, label: str, *, drawn: Sequence[Markup], below: Markup) -> Markup:
    return Markup(
        '<figure class="chart"><figcaption>{}</figcaption>'
        '<div class="chart-rows" role="img" aria-label="{}">{}</div>{}</figure>'
    ).format(title, label, Markup("").join(drawn), below)


def format_figure(value: float) -> str:
    """A figure with 4 significant digits; whole numbers as they are, with thousands separators."""
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e12:
        return f"{value:,.0f}"
    return f"{value:,.4g}"


def axis_ticks(low: float, high: float, about: int = 5, *, least: float = 0.0) -> list[float]:
    """About so many round values between two others, at least `least` apart."""
    raw = max((high - low) / about, least)
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _drawable_points(points: Sequence[Point]) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _fit_scale(values: Sequence[float], begin: float, end: float) -> _Scale:
    """Scale an axis to the values; a single value is centred on an axis from 0."""
    low = min(values)
    high = max(values)
    if low == high:
        low, high = sorted((0.0, 2 * low or 1.0))
    is_whole = all(value == int(value) for value in values)
    return _Scale(low, high, begin, end, is_whole=is_whole)


def _grid(across: _Scale, up: _Scale, x: str, y: str) -> Iterator[Markup]:
    right = WIDTH - RIGHT
    bottom = HEIGHT - BOTTOM
    heights = axis_ticks(up.low, up.high, least=float(up.is_whole))
    for value, label in _tick_labels(heights):
        yield Markup(
            '<line class="rule" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text x="{}" y="{y:.1f}" dy="4" text-anchor="end">{}</text>'
        ).format(LEFT, right, LEFT - 6, label, y=up.at(value))
    widths = axis_ticks(across.low, across.high, about=7, least=float(across.is_whole))
    for value, label in _tick_labels(widths):
        yield Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            across.at(value), bottom + 20, label
        )
    yield Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        LEFT, right, bottom, bottom
    )
    yield Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(right, HEIGHT - 7, x)
    yield Markup('<text x="0" y="{}">{}</text>').format(TOP - 16, f"↑ {y}")


def _tick_labels(values: Sequence[float]) -> list[tuple[float, str]]:
    """Values with labels of as few digits as tell them apart."""
    for digits in range(2, 16):
        labels = [_tick_label(value, digits) for value in values]
        if len(set(labels)) == len(labels):
            break
    return list(zip(values, labels, strict=True))


def _tick_label(value: float, digits: int) -> str:
    """A short label with so many digits: "0.25", "2e-4", "1.5e6"."""
    if value and not 1e-2 <= abs(value) < 1e5:
        figures, _, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{figures.rstrip('0').removesuffix('.')}e{int(power)}"
    if value == int(value):
        return format_figure(value)
    return f"{value:.{digits + 2}g}"


def _line(line: Series, number: int, across: _Scale, up: _Scale) -> Markup:
    kind, dashes = line.style(number)
    points = thin_points(line.points, MAX_DRAWN_POINTS)
    if len(points) == 1:
        ((x, y),) = points
        return Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(
            kind, across.at(x), up.at(y)
        )
    path = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in points)
    return Markup('<polyline class="line {}" points="{}"{}/>').format(
        kind, path, _dash_attribute(dashes)
    )


def _dash_attribute(dashes: str) -> Markup:
    if dashes:
        return Markup(' stroke-dasharray="{}"').format(dashes)
    return Markup("")


def thin_points(points: Sequence[Point], most: int) -> Sequence[Point]:
    """At most so many of the points, evenly spaced, with the first and the last."""
    if len(points) <= most:
        return points
    return [points[round(n * (len(points) - 1) / (most - 1))] for n in range(most)]


def _aria_label(line: Series, x: str, y: str) -> str:
    first_x, first_y = line.points[0]
    last_x, last_y = line.points[-1]
    first = f"{format_figure(first_y)} at {x} {format_figure(first_x)}"
    if len(line.points) == 1:
        return f"{line.name}: {y} {first}."
    last = f"{format_figure(last_y)} at {format_figure(last_x)}"
    return f"{line.name}: {y} from {first} to {last}."


def _legend(shown: Sequence[Series]) -> Markup:
    entry = Markup(
        '<li><svg viewBox="0 0 24 12" aria-hidden="true"><line class="line {}" x1="0" x2="24" y1="6" y2="6"{}/>'
        "</svg>{}</li>"
    )
    entries = Markup("")
    for number, line in enumerate(shown):
        kind, dashes = line.style(number)
        entries += entry.format(kind, _dash_attribute(dashes), line.name)
    return Markup('<ul class="legend">{}</ul>').format(entries)


def _table(title: str, x: str, shown: Sequence[Series]) -> Markup:
    columns = [dict(line.points) for line in shown]
    x_values = sorted(set().union(*columns))
    rows = thin_points([(x_value, 0.0) for x_value in x_values], MAX_TABLE_ROWS)
    cells = Markup("")
    for x_value, _ in rows:
        head = format_figure(x_value)
        cells += _table_row(head, [column.get(x_value) for column in columns])
    if len(rows) < len(x_values):
        title = f"{title} ({len(rows)} of {len(x_values):,} rows)"
    return _details(title, [x, *(line.name for line in shown)], cells)


def _table_row(head: str, values: Sequence[float | None]) -> Markup:
    cells = Markup("")
    for value in values:
        text = ""
        if value is not None:
            text = format_figure(value)
        cells += Markup('<td class="number">{}</td>').format(text)
    return Markup('<tr><th scope="row">{}</th>{}</tr>').format(head, cells)


def _details(caption: str, heads: Sequence[str], rows: Markup) -> Markup:
    columns = Markup('<th scope="col">{}</th>').format(heads[0])
    for head in heads[1:]:
        columns += Markup('<th scope="col" class="number">{}</th>').format(head)
    label = f"Figures: {caption}"
    return Markup(
        "<details><summary>{summary}</summary>"
        '<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>'
        "<caption>{caption}</caption><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    ).format(
        summary="Figures",
        label=label,
        caption=caption,
        columns=columns,
        rows=rows,
    )


def _figure(
    title: str, label: str, *, size: tuple[int, int], drawn: Sequence[Markup], below: Markup
) -> Markup:
    width, height = size
    return Markup(
        '<figure class="chart"><figcaption>{title}</figcaption>'
        '<svg role="img" aria-label="{label}" viewBox="0 0 {width} {height}">{drawn}</svg>'
        "{below}</figure>"
    ).format(
        title=title,
        label=label,
        width=width,
        height=height,
        drawn=Markup("").join(drawn),
        below=below,
    )
