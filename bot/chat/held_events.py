"""Holds events of Discord in memory, in their order, while the database cannot take their rows."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from bot.platform.clock import BackgroundTask
from bot.store import StoreError

T = TypeVar("T")
log = logging.getLogger(__name__)
MAX_HELD_EVENTS = 5_000
"""Events that are held at most, some 2 KB each."""
RETRY_DELAY_S = 1.0
MAX_RETRY_DELAY_S = 5.0
"""Pause before held events are tried again, at first and at most."""


@dataclass(frozen=True)
class Outcome:
    """The result or the error of a stored event, and the future of its waiter."""

    waiter: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class EventDroppedError(StoreError):
    """An event is lost, because as many are held as may be."""


class HeldEvents:
    """Stores the rows of events in the order in which the events came; one that fails holds those
    after it.

    `task` has to run; its `error` says why events are held. Nobody who waits goes on before the last
    row is stored: a prompt must not show a message that a later event edits or deletes.
    """

    def __init__(self) -> None:
        self._held: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._outcomes: list[Outcome] = []
        self._has_held = asyncio.Event()
        self._dropped = 0
        self.task = BackgroundTask(
            "events of Discord",
            self.store_held,
            self._has_held.wait,
            retry_delay_s=RETRY_DELAY_S,
            max_retry_delay_s=MAX_RETRY_DELAY_S,
        )

    def __len__(self) -> int:
        return len(self._held)

    async def read(self, read_it: Callable[[], T]) -> T:
        """Call `read_it`, which changes nothing and so waits for no other event, or else as `store`
        does.
        """
        try:
            return read_it()
        except (StoreError, OSError) as error:
            log.warning("an event of Discord is held until the database can be read: %s", error)
        return await self._hold(read_it)

    async def store(self, store_it: Callable[[], T]) -> T:
        """Call `store_it`, a transaction, now or as soon as the database can be used, and return
        its result.

        Raises its other errors, and `EventDroppedError`.
        """
        if not self._held:
            try:
                return store_it()
            except (StoreError, OSError) as error:
                log.warning("an event of Discord is held until it can be stored: %s", error)
        return await self._hold(store_it)

    async def _hold(self, store_it: Callable[[], T]) -> T:
        if len(self._held) >= MAX_HELD_EVENTS:
            self._dropped += 1
            raise EventDroppedError(f"{MAX_HELD_EVENTS} events are held already: this one is lost.")
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._held.append((store_it, waiter))
        self._has_held.set()
        return await waiter

    async def store_held(self) -> None:
        """Store the held events, then let their waiters go on.

        Raises `StoreError` or `OSError`; then the later events stay held, and nobody goes on.
        """
        self._has_held.clear()
        while self._held:
            store_it, waiter = self._held[0]
            try:
                outcome = Outcome(waiter, result=store_it())
            except (StoreError, OSError):
                raise
            except Exception as error:  # its waiter gets it
                outcome = Outcome(waiter, error=error)
            self._held.popleft()
            self._outcomes.append(outcome)
            await asyncio.sleep(0)  # thousands may be held
        # Only now: who waits builds a prompt, which must not show what a later event has edited.
        outcomes = self._outcomes
        self._outcomes = []
        for outcome in outcomes:
            if outcome.waiter.done():  # it was cancelled
                continue
            if outcome.error:
                outcome.waiter.set_exception(outcome.error)
            else:
                outcome.waiter.set_result(outcome.result)
        if self._dropped:
            log.error(
                "%d events of Discord were lost while the database could not be used", self._dropped
            )
            self._dropped = 0
