"""Progress where nobody sees a bar."""

from __future__ import annotations

import sys
import time

PLAIN_EVERY_S = 10.0


class Plain:
    """Lines on standard error for a log or a pipe; none before it takes long, none where a bar is seen."""

    def __init__(self, every_s: float = PLAIN_EVERY_S) -> None:
        self._every_s, self._said = every_s, time.monotonic()

    def say(self, line: str) -> None:
        """Print the line unless it is too soon, or standard error is a terminal."""
        now = time.monotonic()
        if now - self._said >= self._every_s and not sys.stderr.isatty():
            self._said = now
            print(line, file=sys.stderr, flush=True)
