"""Takes up the state that other processes of the same application write."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress

from bot.operations.shards.shared_log import Session, SharedRow
from bot.operations.shards.shared_state import SharedConnection

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
WAIT_S = 0.5


class StateFollower:
    """Takes up what other processes write, in a thread of its own; `on_rows` is called with it in
    the event loop.

    `on_fenced` is called when another process has taken over these shards.
    """

    def __init__(
        self,
        mirror: SharedConnection,
        on_rows: Callable[[Sequence[SharedRow]], None],
        on_fenced: Callable[[], Coroutine[None, None, None]],
    ) -> None:
        self._mirror = mirror
        self._on_rows = on_rows
        self._on_fenced = on_fenced
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shared state", daemon=True)
        self.is_connected = True

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        self._stopped.set()
        await asyncio.to_thread(self._thread.join, HEARTBEAT_S + 1)

    def _run(self) -> None:
        session: Session | None = None
        while not self._stopped.is_set():
            try:
                session = session or self._mirror.log.database.open()
                self._follow(session)
            except Exception as error:  # the driver's
                if self.is_connected:
                    log.error(
                        "The shared database is away; chat goes on with the last state: %s", error
                    )
                self.is_connected = False
                if session is not None:
                    with suppress(Exception):
                        session.close()
                session = None
                self._stopped.wait(1.0)
        if session is not None:
            session.close()

    def _follow(self, session: Session) -> None:
        shared = self._mirror.log
        seen_at = 0.0
        acknowledged = -1
        while not self._stopped.is_set():
            rows = shared.read(session, self._mirror.applied)
            if rows or self._mirror.unnoticed:
                self._deliver(rows)
            applied = self._mirror.applied
            if applied != acknowledged or time.monotonic() - seen_at > HEARTBEAT_S:
                shared.seen(session, applied)
                seen_at = time.monotonic()
                acknowledged = applied
            if shared.is_fenced:
                log.error("Another process serves these shards now; this one ends.")
                asyncio.run_coroutine_threadsafe(self._on_fenced(), self._loop)
                self._stopped.set()
            elif not self.is_connected:
                self.is_connected = True
                log.warning("The shared database is back.")
            session.wait(WAIT_S)

    def _deliver(self, rows: Sequence[SharedRow]) -> None:
        done = threading.Event()

        def take_up() -> None:
            try:
                self._on_rows(self._mirror.take_up(rows))
            except Exception:  # it is tried again
                log.exception("changes of other processes could not be taken up")
            finally:
                done.set()

        self._loop.call_soon_threadsafe(take_up)
        # No longer: others would take this process for dead while its event loop is busy.
        done.wait(HEARTBEAT_S)
