"""How much is measured, and how long that may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

Extent = Literal["full", "quick", "losses"]
"""All sections; all of them in a fifth of the time; the losses on held-out replies and general dialogue alone."""


class Budget:
    """Seconds for a part of the card, which count from when it is made.

    Who has some takes fewer prompts where there is little left, but never none, and says how many.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.seconds = seconds
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left, 0 at least."""
        return max(0.0, self._end - self._clock())

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.left <= 0

    def part(self, share: float) -> Budget:
        """A share (0 to 1) of what is left, which counts from now."""
        return Budget(self.left * share, self._clock)
