"""Formats times, durations, sizes, shares and commands for people; most of it as template filters."""

import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from personas.schemas.formatting import format_size

DAY_S, HOUR_S, MINUTE_S = 86_400, 3_600, 60
BYTE_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def format_time(at: float | None) -> Markup:
    """Seconds since 1970 as "20 Nov 2026, 14:02 UTC"; a dash for None. Scripts turn it into the reader's own time."""
    if at is None:
        return Markup("–")
    moment = datetime.fromtimestamp(at, UTC)
    shown = f"{moment.day} {moment:%b %Y, %H:%M} UTC"
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(timespec="seconds"), shown)


def format_seconds(seconds: float | None) -> str:
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


def format_bytes(number_bytes: float | None) -> str:
    """Bytes as "1.5 GiB"; a dash for None."""
    if number_bytes is None:
        return "–"
    value, unit = float(number_bytes), 0
    while value >= 1024 and unit < len(BYTE_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {BYTE_UNITS[unit]}" if unit == 0 or value >= 100 else f"{value:.1f} {BYTE_UNITS[unit]}"


def format_count(number: float) -> str:
    """A whole number with thousands separators: "12,345"."""
    return f"{number:,.0f}"


def format_percent(share: float | None, digits: int = 0) -> str:
    """A share of 1 as "42 %"; a dash for None."""
    return "–" if share is None else f"{share * 100:.{digits}f} %"


def today_iso() -> str:
    return datetime.now().astimezone().date().isoformat()


FILTERS: dict[str, Callable[..., Any]] = {
    "when": format_time,
    "duration": format_seconds,
    "size": format_bytes,
    "decimal_size": format_size,
    "count_of": format_count,
    "percent": format_percent,
}


def iso_timestamp(at: float | None) -> str | None:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at is not None else None


def shell_command(command: str, home: Path) -> str:
    """A command for a terminal, with the bot's home set if it is not the default."""
    if home.absolute() == Path.home() / ".understudy":
        return command
    return f"UNDERSTUDY_HOME={shlex.quote(str(home.absolute()))} {command}"
