"""Hours of the day in which a persona stays silent."""

import re
from dataclasses import dataclass
from datetime import datetime, time
from typing import Self

from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy

HOURS_PATTERN = re.compile(r"\s*(\d{1,2})(?::(\d{2}))?\s*(?:-|–|to)\s*(\d{1,2})(?::(\d{2}))?\s*")
ADVICE = gettext_lazy(
    "Write them like 22:00-07:00, in the time zone of the server (`/persona timezone`)."
)


@dataclass(frozen=True)
class QuietHours:
    """A span of each day, over midnight where it ends before it starts."""

    start: time
    end: time

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read hours such as "22:00-07:00" or "22-7". Raises `RefusedError`."""
        found = HOURS_PATTERN.fullmatch(text)
        if found is None:
            raise RefusedError(
                gettext_lazy("{text!r} is no span of hours.", text=text[:40]), ADVICE
            )
        hour, minute, end_hour, end_minute = (int(part or 0) for part in found.groups())
        try:
            hours = cls(_time(hour, minute), _time(end_hour, end_minute))
        except ValueError:
            raise RefusedError(
                gettext_lazy("{text!r} has a time that does not exist.", text=text[:40]), ADVICE
            ) from None
        if hours.start == hours.end:
            raise RefusedError(
                gettext_lazy("Quiet hours end at another time than they begin."),
                gettext_lazy("To silence a persona all day, use `/persona mute`."),
            )
        return hours

    def contain(self, moment: datetime) -> bool:
        """Report whether a moment lies in these hours by its own clock."""
        now = moment.time()
        if self.start < self.end:
            return self.start <= now < self.end
        return now >= self.start or now < self.end

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M}"


def _time(hour: int, minute: int) -> time:
    return time(0, minute) if hour == 24 and not minute else time(hour, minute)
