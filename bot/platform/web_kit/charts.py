"""SVG charts with an accessible data table: lines, bars and intervals."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

Point = tuple[float, float]
SERIES_COLOURS = 6
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 284, 66, 24, 12, 56
"""Size of the drawing and its margins, in units of the viewBox."""
BAR_HEIGHT, BAR_GAP, LABEL_WIDTH, CHARACTER_WIDTH = 20, 10, 190, 11
"""`CHARACTER_WIDTH` is the widest, on a phone."""
MAX_DRAWN_POINTS, MAX_TABLE_ROWS = 600, 200
"""Longer series are thinned out evenly."""
MAX_LABEL_CHARS = 28
"""Of a bar's label; the table has the whole text."""
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
        number = (place if self.colour is None else self.colour) % SERIES_COLOURS
        return f"s{number}" + (" faint" if self.faint else ""), "" if self.faint else DASHES[number]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    begin: float
    end: float
    is_log: bool = False
    is_whole: bool = False

    def at(self, value: float) -> float:
        low, high, value = (
            math.log10(v) if self.is_log else v for v in (self.low, self.high, value)
        )
        return self.begin + (value - low) / (high - low) * (self.end - self.begin)


def line_chart(
    title: str, x: str, y: str, series: Sequence[Series], *, log_y: bool = False
) -> Markup:
    """Lines over common axes named `x` and `y`. Values that are infinite or have no logarithm are
    left out.
    """
    shown = [replace(one, points=_drawable_points(one.points, log_y)) for one in series]
    points = [point for one in shown for point in one.points]
    if not points:
        return Markup('<p class="empty">{}: nothing has been measured yet.</p>').format(title)
    across = _fit_scale([point[0] for point in points], LEFT, WIDTH - RIGHT)
    up = _fit_scale([point[1] for point in points], HEIGHT - BOTTOM, TOP, log_y)
    drawn = [*_grid(across, up, x, y), *(_line(one, n, across, up) for n, one in enumerate(shown))]
    label = f"{title}. " + " ".join(_aria_label(one, x, y) for one in shown if one.points)
    legend = _legend(shown) if len(shown) > 1 else Markup("")
    return _figure(title, label, (WIDTH, HEIGHT), drawn, legend + _table(title, x, shown))


def bar_chart(title: str, rows: Sequence[tuple[str, float]], unit: str = "") -> Markup:
    """Bars from zero, one a row, each with its value."""
    if not rows:
        return Markup('<p class="empty">{}: there is nothing to show.</p>').format(title)
    most = max((value for _, value in rows if math.isfinite(value)), default=0) or 1
    texts = [f"{format_figure(value)} {unit}".strip() for _, value in rows]
    drawn = []
    room = max(0, WIDTH - LABEL_WIDTH - CHARACTER_WIDTH * max(map(len, texts)) - 6)
    bar = Markup(
        '<text x="{}" y="{y}" text-anchor="end">{}</text><rect class="bar" x="{}" y="{}" width="{:.1f}" height="{}" '
        'rx="2"/><text class="value" x="{:.1f}" y="{y}">{}</text>'
    )
    for n, (name, value) in enumerate(rows):
        top = n * (BAR_HEIGHT + BAR_GAP)
        width = max(0.0, value / most * room) if math.isfinite(value) else 0
        place = (LABEL_WIDTH - 8, _shorten_label(name), LABEL_WIDTH, top, width, BAR_HEIGHT)
        drawn.append(bar.format(*place, LABEL_WIDTH + width + 6, texts[n], y=top + 15))
    cells = Markup("").join(_table_row(name, (value,)) for name, value in rows)
    table = _details(title, (title, unit or "Value"), cells)
    label = (
        f"{title}. "
        + ", ".join(f"{name}: {text}" for (name, _), text in zip(rows[:12], texts, strict=False))
        + "."
    )
    return _figure(title, label, (WIDTH, len(rows) * (BAR_HEIGHT + BAR_GAP)), drawn, table)


@dataclass(frozen=True)
class IntervalEstimate:
    name: str
    estimate: float
    low: float
    high: float


def interval_chart(title: str, rows: Sequence[IntervalEstimate]) -> Markup:
    """Estimates with their intervals, one a row, over a common axis with a mark at 0."""
    if not rows:
        return Markup('<p class="empty">{}: there is nothing to show.</p>').format(title)
    scale = _fit_scale(
        [0.0, *(value for one in rows for value in (one.low, one.high))],
        LABEL_WIDTH + 10,
        WIDTH - 70,
    )
    bottom = len(rows) * (BAR_HEIGHT + BAR_GAP)
    zero = Markup(
        '<line class="rule" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}"/>'
        '<text x="{0:.1f}" y="{2}" text-anchor="middle">0</text>'
    ).format(scale.at(0), bottom, bottom + 14)
    cells = Markup("").join(_table_row(one.name, (one.estimate, one.low, one.high)) for one in rows)
    spoken = ", ".join(
        f"{one.name}: {format_figure(one.estimate)} ({format_figure(one.low)} to "
        f"{format_figure(one.high)})"
        for one in rows
    )
    table = _details(title, ("", "Estimate", "From", "To"), cells)
    drawn = [zero, *(_interval_mark(one, n, scale) for n, one in enumerate(rows))]
    return _figure(title, f"{title}. {spoken}.", (WIDTH, bottom + 18), drawn, table)


def _interval_mark(one: IntervalEstimate, number: int, scale: _Scale) -> Markup:
    y = number * (BAR_HEIGHT + BAR_GAP) + BAR_HEIGHT / 2
    low, middle, high = (scale.at(value) for value in (one.low, one.estimate, one.high))
    return Markup(
        '<text x="{}" y="{y}" dy="4" text-anchor="end">{}</text>'
        '<line class="line s0" x1="{:.1f}" x2="{:.1f}" y1="{y}" y2="{y}"/>'
        '<circle class="dot s0" cx="{:.1f}" cy="{y}" r="4"/><text class="value" x="{}" y="{y}" dy="4">{}</text>'
    ).format(
        LABEL_WIDTH - 8,
        _shorten_label(one.name),
        low,
        high,
        middle,
        WIDTH - 60,
        format_figure(one.estimate),
        y=y,
    )


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


def _drawable_points(points: Sequence[Point], log_y: bool) -> list[Point]:
    return [
        (a, b) for a, b in points if math.isfinite(a) and math.isfinite(b) and (b > 0 or not log_y)
    ]


def _fit_scale(values: Sequence[float], begin: float, end: float, is_log: bool = False) -> _Scale:
    """Scale an axis to the values; a single value is centred on an axis from 0."""
    low = min(values)
    high = max(values)
    if low == high:
        low, high = (low / 2, high * 2) if is_log else sorted((0.0, 2 * low or 1.0))
    return _Scale(low, high, begin, end, is_log, all(value == int(value) for value in values))


def _grid(across: _Scale, up: _Scale, x: str, y: str) -> Iterator[Markup]:
    right = WIDTH - RIGHT
    bottom = HEIGHT - BOTTOM
    heights = _log_ticks(up) if up.is_log else axis_ticks(up.low, up.high, least=float(up.is_whole))
    for value, label in _tick_labels(heights):
        yield Markup(
            '<line class="rule" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text x="{}" y="{y:.1f}" dy="4" text-anchor="end">{}</text>'
        ).format(LEFT, right, LEFT - 6, label, y=up.at(value))
    for value, label in _tick_labels(
        axis_ticks(across.low, across.high, 7, least=float(across.is_whole))
    ):
        x_place = across.at(value)
        yield Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            x_place, bottom + 20, label
        )
    yield Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        LEFT, right, bottom, bottom
    )
    yield Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(right, HEIGHT - 7, x)
    yield Markup('<text x="{}" y="{}">{}</text>').format(LEFT, HEIGHT - 7, f"↑ {y}")


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
    return format_figure(value) if value == int(value) else f"{value:.{digits + 2}g}"


def _log_ticks(scale: _Scale) -> list[float]:
    powers = range(math.ceil(math.log10(scale.low)), math.floor(math.log10(scale.high)) + 1)
    return [10.0**power for power in powers] if len(powers) > 1 else [scale.low, scale.high]


def _line(one: Series, number: int, across: _Scale, up: _Scale) -> Markup:
    kind, dashes = one.style(number)
    places = [(across.at(a), up.at(b)) for a, b in thin_points(one.points, MAX_DRAWN_POINTS)]
    if len(places) == 1:
        return Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(
            kind, *places[0]
        )
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    return Markup('<polyline class="line {}" points="{}"{}/>').format(
        kind, path, _dash_attribute(dashes)
    )


def _dash_attribute(dashes: str) -> Markup:
    return Markup(' stroke-dasharray="{}"').format(dashes) if dashes else Markup("")


def thin_points(points: Sequence[Point], most: int) -> Sequence[Point]:
    """At most so many of the points, evenly spaced, with the first and the last."""
    if len(points) <= most:
        return points
    return [points[round(n * (len(points) - 1) / (most - 1))] for n in range(most)]


def _aria_label(one: Series, x: str, y: str) -> str:
    (first_x, first_y), (last_x, last_y) = one.points[0], one.points[-1]
    if len(one.points) == 1:
        return f"{one.name}: {y} {format_figure(first_y)} at {x} {format_figure(first_x)}."
    first = f"{format_figure(first_y)} at {x} {format_figure(first_x)}"
    last = f"{format_figure(last_y)} at {format_figure(last_x)}"
    return f"{one.name}: {y} from {first} to {last}."


def _legend(shown: Sequence[Series]) -> Markup:
    entry = Markup(
        '<li><svg viewBox="0 0 24 12" aria-hidden="true"><line class="line {}" x1="0" x2="24" y1="6" y2="6"{}/>'
        "</svg>{}</li>"
    )
    styles = [one.style(n) for n, one in enumerate(shown)]
    entries = (
        entry.format(kind, _dash_attribute(dashes), one.name)
        for one, (kind, dashes) in zip(shown, styles, strict=True)
    )
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(entries))


def _table(title: str, x: str, shown: Sequence[Series]) -> Markup:
    by_x = [dict(one.points) for one in shown]
    every = sorted({at for one in by_x for at in one})
    rows = [at for at, _ in thin_points([(at, 0.0) for at in every], MAX_TABLE_ROWS)]
    cells = Markup("").join(
        _table_row(format_figure(at), [one.get(at) for one in by_x]) for at in rows
    )
    left_out = f" ({len(rows)} of {len(every):,} rows)" if len(rows) < len(every) else ""
    return _details(title + left_out, (x, *(one.name for one in shown)), cells)


def _table_row(head: str, values: Sequence[float | None]) -> Markup:
    texts = ("" if value is None else format_figure(value) for value in values)
    cells = Markup("").join(Markup('<td class="number">{}</td>').format(text) for text in texts)
    return Markup('<tr><th scope="row">{}</th>{}</tr>').format(head, cells)


def _details(caption: str, heads: Sequence[str], rows: Markup) -> Markup:
    columns = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(Markup(' class="number"') if n else "", head)
        for n, head in enumerate(heads)
    )
    return Markup(
        '<details><summary>Figures</summary><div class="scroll" tabindex="0" role="region" aria-label="{}"><table>'
        "<caption>{}</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div></details>"
    ).format(f"Figures: {caption}", caption, columns, rows)


def _figure(
    title: str, label: str, size: tuple[int, int], drawn: Sequence[Markup], below: Markup
) -> Markup:
    return Markup(
        '<figure class="chart"><figcaption>{}</figcaption><svg role="img" aria-label="{}" viewBox="0 0 {} {}">{}</svg>'
        "{}</figure>"
    ).format(title, label, *size, Markup("").join(drawn), below)


def _shorten_label(text: str) -> str:
    return text if len(text) <= MAX_LABEL_CHARS else f"{text[: MAX_LABEL_CHARS - 1]}…"
