"""Wall-clock time and sleeping, replaceable in tests, and background tasks that survive errors."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from personas.errors import UnderstudyError

log = logging.getLogger(__name__)
RETRY_DELAY_S = 30.0
"""Pause after the first error of a background task, doubled after each further one."""
MAX_RETRY_DELAY_S = 600.0


class Clock(Protocol):
    """Wall-clock time and waiting."""

    def now(self) -> float:
        """Seconds since 1970 (UTC)."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class BackgroundTask:
    """Works whenever there is something to do, until stopped; an error is logged once, and the work
    tried again.

    `work` does all that is due, `wait` returns when more may be. `error` is the latest error until
    the work succeeds, `advice` the end of it that says what to do, if it has one.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        wait: Callable[[], Awaitable[object]],
        clock: Clock | None = None,
        *,
        retry_delay_s: float = RETRY_DELAY_S,
        max_retry_delay_s: float = MAX_RETRY_DELAY_S,
    ) -> None:
        self.name = name
        self.error = ""
        self.advice = ""
        self._work, self._wait, self._clock = work, wait, clock or SystemClock()
        self._retry_delay_s = retry_delay_s
        self._max_retry_delay_s = max_retry_delay_s
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        return self._task is not None

    def start(self) -> None:
        """Start. Does nothing when started."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Stop; what is in progress is cancelled. May be called twice."""
        if self._task:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def _run(self) -> None:
        delay_s = self._retry_delay_s
        while True:
            try:
                await self._work()
                if self.error:
                    log.warning("%s: works again", self.name)
                self.error = ""
                delay_s = self._retry_delay_s
                await self._wait()
            except Exception as error:  # mostly a full disk or a locked database
                self._record(error)
                await self._clock.sleep(delay_s)
                delay_s = min(2 * delay_s, self._max_retry_delay_s)

    def _record(self, error: Exception) -> None:
        words = f"{type(error).__name__}: {error}"
        traceback: Exception | None = error
        if isinstance(error, UnderstudyError | OSError):
            words = str(error)
            traceback = None  # its message says all
        self.advice = error.advice if isinstance(error, UnderstudyError) else ""
        # Once, although the work fails again and again.
        if words != self.error:
            log.error("%s: failed, to be tried again: %s", self.name, words, exc_info=traceback)
        self.error = words
