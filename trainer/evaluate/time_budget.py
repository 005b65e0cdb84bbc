"""The time that a part of an evaluation may take."""

from __future__ import annotations

import time
from collections.abc import Callable


class TimeBudget:
    """Seconds for a part of the evaluation, counted from construction.

    Sections reduce their number of prompts when little is left, but never to none, and report the
    number.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        # A run passes a clock that stands still while it is paused.
        self.clock = clock
        self.seconds = seconds
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Remaining seconds, at least 0."""
        return max(0.0, self._end - self.clock())

    @property
    def is_spent(self) -> bool:
        """True if no time is left."""
        return self.left <= 0

    def part(self, share: float) -> TimeBudget:
        """Return a budget of a share (0 to 1) of the remaining time, starting now."""
        return TimeBudget(self.left * share, self.clock)
