"""Events of Discord whose rows the database does not take yet: they are held in memory, in their
order.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from bot.platform.clock import BackgroundTask
from bot.store import StoreError

T = TypeVar("T")
log = logging.getLogger(__name__)
MAX_HELD_EVENTS = 5_000
"""Events that are held at most, some 2 KB each."""
RETRY_DELAY_S, MAX_RETRY_DELAY_S = 1.0, 5.0
"""Pause before held events are tried again, at first and at most."""


class EventDroppedError(StoreError):
    """As many events are held as may be: this one is lost."""


class HeldEvents:
    """Stores the rows of events in the order in which the events came; one that fails holds those
    after it.

    `task` has to run; its `error` says why events are held.
    """

    def __init__(self) -> None:
        self._held: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._outcomes: list[tuple[asyncio.Future[Any], Any, Exception | None]] = []
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
        stored: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._held.append((store_it, stored))
        self._has_held.set()
        return await stored

    async def store_held(self) -> None:
        """Store what is held, then let those go on who wait for it.

        They all wait for the last one: a prompt must not show what a later event edits or deletes.
        Raises `StoreError` or `OSError`; what comes after it stays held, and nobody goes on.
        """
        self._has_held.clear()
        while self._held:
            store_it, stored = self._held[0]
            try:
                outcome: tuple[asyncio.Future[Any], Any, Exception | None] = (
                    stored,
                    store_it(),
                    None,
                )
            except (StoreError, OSError):
                raise
            except Exception as error:  # whoever waits for the result gets it
                outcome = stored, None, error
            self._held.popleft()
            self._outcomes.append(outcome)
            await asyncio.sleep(0)  # thousands may be held
        self._tell_outcomes()
        if self._dropped:
            log.error(
                "%d events of Discord were lost while the database could not be used", self._dropped
            )
            self._dropped = 0

    def _tell_outcomes(self) -> None:
        outcomes = self._outcomes
        self._outcomes = []
        for stored, result, error in outcomes:
            if stored.done():  # whoever waited was cancelled
                continue
            if error:
                stored.set_exception(error)
            else:
                stored.set_result(result)
