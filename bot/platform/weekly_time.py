"""Times of day on days of the week, in a time zone."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from bot.platform.errors import RefusedError
from bot.platform.localisation import LocalisableText, gettext_lazy, join_texts

WEEKDAYS = (
    gettext_lazy("Monday"),
    gettext_lazy("Tuesday"),
    gettext_lazy("Wednesday"),
    gettext_lazy("Thursday"),
    gettext_lazy("Friday"),
    gettext_lazy("Saturday"),
    gettext_lazy("Sunday"),
)
DAY_SETS: dict[str, Iterable[int]] = {
    gettext_lazy("every day"): range(7),
    gettext_lazy("Monday to Friday"): range(5),
    gettext_lazy("Saturday and Sunday"): range(5, 7),
    **{name: (number,) for number, name in enumerate(WEEKDAYS)},
}
"""Days of the week by the names that members choose from; 0 is Monday."""
TIME_PATTERN = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True)
class WeeklyTime:
    """A time of day, in minutes, on some days of the week; bit 0 of `weekdays` is Monday."""

    weekdays: int
    minute: int

    @classmethod
    def on(cls, days: Iterable[int], text: str) -> "WeeklyTime":
        """Make a time from days of the week (0 is Monday) and a time such as `08:30`. Raises
        `RefusedError`.
        """
        match = TIME_PATTERN.fullmatch(text.strip())
        if match is None:
            raise RefusedError(
                gettext_lazy("{text!r} is no time of day.", text=text[:20]),
                gettext_lazy("Write hours and minutes, such as 08:30."),
            )
        return cls(sum(1 << day for day in set(days)), int(match[1]) * 60 + int(match[2]))

    def latest(self, now: float, zone: ZoneInfo) -> float:
        """Return the latest such moment up to `now`, in seconds since 1970."""
        return self._nearest(now, zone, step=-1)

    def next(self, now: float, zone: ZoneInfo) -> float:
        """Return the first such moment after `now`, in seconds since 1970."""
        return self._nearest(now, zone, step=1)

    def _nearest(self, now: float, zone: ZoneInfo, *, step: int) -> float:
        today = datetime.fromtimestamp(now, zone).date()
        for days in range(9):  # from the day before or after, where the time is in no hour of today
            date = today + timedelta(days=step * (days - 1))
            if not self.weekdays >> date.weekday() & 1:
                continue
            # A time that the clocks skip in spring is an hour later; of one that comes twice in
            # autumn, the first one counts.
            moment = datetime.combine(date, time(*divmod(self.minute, 60)), zone).timestamp()
            if moment <= now if step < 0 else moment > now:
                return moment
        raise AssertionError("a weekly time has a day of the week")

    def __str__(self) -> str:
        return str(self.text())

    def text(self) -> LocalisableText:
        """Return the days and the time of day for people."""
        hours, minutes = divmod(self.minute, 60)
        return gettext_lazy("{days} at {time}", days=self._days(), time=f"{hours:02}:{minutes:02}")

    def _days(self) -> str:
        for name, days in DAY_SETS.items():
            if self.weekdays == sum(1 << day for day in days):
                return name
        named = [name for day, name in enumerate(WEEKDAYS) if self.weekdays >> day & 1]
        return join_texts(*named, separator=", ")
