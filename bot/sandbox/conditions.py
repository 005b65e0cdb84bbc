"""The sandbox's time, and what a test bench can make of the weather between the bot and its guild."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass


class Clock:
    """The machine's time and what was added to it; whatever ends after a while here asks this clock."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self._waits: set[asyncio.Timeout] = set()

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time() + self.ahead_s

    def advance(self, seconds: float) -> None:
        """Move on; waits that end within these seconds end now."""
        self.ahead_s += seconds
        for wait in (one for one in self._waits if not one.expired()):
            wait.reschedule((wait.when() or 0.0) - seconds)

    async def within(self, event: asyncio.Event, seconds: float) -> bool:
        """Whether the event comes within so many seconds."""
        try:
            async with asyncio.timeout(seconds) as wait:
                self._waits.add(wait)
                await event.wait()
        except TimeoutError:
            return False
        finally:
            self._waits.discard(wait)
        return True


@dataclass
class Conditions:
    """`on_change` is told by whoever changes one of them.

    `delay_s` is how late the bot hears anything, `rate_limited` how many of its next requests are refused,
    `message_content` the developer portal's switch for that intent.
    """

    message_content: bool
    delay_s: float = 0.0
    rate_limited: int = 0
    on_change: Callable[[], None] = lambda: None
