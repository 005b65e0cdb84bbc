"""How pages write times, durations, sizes and shares: filters of the templates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

DAY_S, HOUR_S, MINUTE_S = 86_400, 3_600, 60
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def when(at: float | None) -> Markup:
    """Seconds since 1970 as "20 Nov 2026, 14:02 UTC"; a dash for None. Scripts turn it into the reader's own time."""
    if at is None:
        return Markup("–")
    moment = datetime.fromtimestamp(at, UTC)
    shown = f"{moment.day} {moment:%b %Y, %H:%M} UTC"
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(timespec="seconds"), shown)


def duration(seconds: float | None) -> str:
    """Seconds as the two largest units: "1 h 20 min", "2 min 5 s", "0.4 s"; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S} s"
    if whole < DAY_S:
        return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S} min"
    return f"{whole // DAY_S} d {whole % DAY_S // HOUR_S} h"


def size(number_bytes: float | None) -> str:
    """Bytes as "1.5 GiB"; a dash for None."""
    if number_bytes is None:
        return "–"
    value, unit = float(number_bytes), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {UNITS[unit]}" if unit == 0 or value >= 100 else f"{value:.1f} {UNITS[unit]}"


def count(number: float) -> str:
    """A whole number with its thousands apart: "12,345"."""
    return f"{number:,.0f}"


def percent(share: float | None, digits: int = 0) -> str:
    """A share of 1 as "42 %"; a dash for None."""
    return "–" if share is None else f"{share * 100:.{digits}f} %"


def today() -> str:
    """The date here, as a statement of a right has it."""
    return datetime.now().astimezone().date().isoformat()


FILTERS: dict[str, Callable[..., Any]] = {
    "when": when, "duration": duration, "size": size, "count_of": count, "percent": percent,
}  # fmt: skip
