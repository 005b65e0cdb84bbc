"""Macros of the present moment in cards, greetings and lore: `{{time}}`, `{{date}}` and others of
SillyTavern. (The specifications of V2 and V3 cards define none.)

All prompts of a persona begin with its card, so there a phrase stands for each of them, in training
and in serving (`time_phrase`); a served prompt has the values beside its last message
(`Moment.value`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

TIMES: dict[str, Callable[[datetime], str]] = {
    "time": lambda now: f"{now:%H:%M} {zone_label(now)}",
    "isotime": lambda now: f"{now:%H:%M}",
    "date": lambda now: f"{now.day} {now:%B %Y}",
    "isodate": lambda now: f"{now:%Y-%m-%d}",
    "weekday": lambda now: f"{now:%A}",
}
IDLE = "idle_duration"
PHRASES = {
    "time": "the present time",
    "isotime": "the present time",
    "date": "today's date",
    "isodate": "today's date",
    "weekday": "the present weekday",
    IDLE: "the time since the last message",
}
ALIASES = {"idleduration": IDLE}
JUST_NOW = "just now"
"""Time since the last message where there is none, as in SillyTavern."""
UTC_OFFSET_PATTERN = re.compile(r"time(?:_|::)\s*utc\s*([+-]\d{1,2})\s*", re.IGNORECASE)
UTC_MACRO_PATTERN = re.compile(r"time_utc([+-]\d{1,2})")
TIME_MACRO_PATTERN = re.compile(r"\{\{\s*(?P<name>[a-z_][\w.+-]*+)(?P<rest>[^{}]*+)\}\}", re.I)
MINUTE_S = 60
HOUR_S = 60 * MINUTE_S
DAY_S = 24 * HOUR_S
UNITS = (
    (365 * DAY_S, "year"),
    (30 * DAY_S, "month"),
    (DAY_S, "day"),
    (HOUR_S, "hour"),
    (MINUTE_S, "minute"),
)


@dataclass(frozen=True)
class Moment:
    """The moment of a reply or a greeting in a time zone; `idle_s` is the time since the message
    before the last one, None where there is none.
    """

    now: datetime
    idle_s: float | None = None

    def value(self, macro: str) -> str:
        """Return the value of a macro that `find_time_macro` returned."""
        if macro == IDLE:
            return JUST_NOW if self.idle_s is None else duration_text(self.idle_s)
        if macro in TIMES:
            return TIMES[macro](self.now)
        offset = timedelta(hours=int(macro.removeprefix("time_utc")))
        return f"{self.now.astimezone(UTC) + offset:%H:%M}"


def find_time_macro(name: str, rest: str = "") -> str | None:
    """Return the canonical name of a macro of the present moment; None for any other."""
    name = name.lower()
    if offset := UTC_OFFSET_PATTERN.fullmatch(name + rest):
        return f"time_utc{int(offset[1]):+d}"
    name = ALIASES.get(name, name)
    return name if name in PHRASES else None


def time_phrase(macro: str) -> str:
    """Return the words that stand for a macro where all prompts are alike."""
    if match := UTC_MACRO_PATTERN.fullmatch(macro):
        return f"the present time in UTC{match[1]}"
    return PHRASES[macro]


def fill_time_macros(text: str, value_of: Callable[[str], str]) -> str:
    """Replace the macros of the present moment in a text, and no others."""

    def replace(match: re.Match[str]) -> str:
        macro = find_time_macro(match["name"], match["rest"])
        return match[0] if macro is None else value_of(macro)

    return TIME_MACRO_PATTERN.sub(replace, text)


def zone_label(now: datetime) -> str:
    """Return the short name of a time's zone: `CET`, or `UTC+07` where it has only a number."""
    name = now.tzname() or "UTC"
    return f"UTC{name}" if name[0] in "+-" else name


def duration_text(seconds: float) -> str:
    """Return a duration in words, to its largest unit: `3 hours`."""
    for unit_s, unit in UNITS:
        if seconds >= unit_s:
            count = int(seconds // unit_s)
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return "less than a minute"
