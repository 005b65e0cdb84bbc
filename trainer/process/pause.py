"""Pauses a run between batches while the parent process needs the machine, within limits."""

from __future__ import annotations

import os
import threading
from threading import Event
from time import monotonic

from trainer.process.cancellation import CancelToken

MAX_PAUSE_S = 15.0
MAX_PAUSE_SHARE, MIN_PAUSE_SHARE = 3 / 4, 1 / 4  # maximum share of time that a run waits, for short and for long steps
TARGET_STEP_INTERVAL_S = 45.0  # interval between steps that a saved-up pause of `MAX_PAUSE_S` stretches to a minute
PAUSE_POLL_INTERVAL_S = 0.1
STDIN_CHUNK_BYTES = 4096
STDIN_FD = 0


class PauseControl:
    """Asked for and let go from any thread; waited for in the thread that trains.

    `waited_s` is how long it has been waited for in all.
    """

    def __init__(self, stop: CancelToken | None = None) -> None:
        """A run that is to stop waits no longer."""
        self._stop, self._free = stop or CancelToken(), Event()
        self._free.set()
        self._share, self._saved_s = MAX_PAUSE_SHARE, MAX_PAUSE_S
        self._worked_from = self._step_began = monotonic()
        self._waited_before_step_s = 0.0
        self.waited_s = 0.0

    def ask(self) -> None:
        """Others need the machine."""
        self._free.clear()

    def let_go(self) -> None:
        """They do no longer."""
        self._free.set()

    @property
    def is_asked(self) -> bool:
        """Tells whether a pause is requested."""
        return not self._free.is_set()

    def begin_step(self) -> None:
        """An optimiser step begins."""
        self._step_began, self._waited_before_step_s = monotonic(), self.waited_s

    def end_step(self) -> None:
        """It has been computed: by how long that took it is decided how much may be waited from now on."""
        took_s = monotonic() - self._step_began - (self.waited_s - self._waited_before_step_s)
        self._share = min(MAX_PAUSE_SHARE, max(MIN_PAUSE_SHARE, 1 - took_s / TARGET_STEP_INTERVAL_S))

    def wait(self) -> float:
        """Wait while asked to, as long as is allowed now. Gives how many seconds that took."""
        began = monotonic()
        earned_s = (began - self._worked_from) * self._share / (1 - self._share)
        self._saved_s = min(MAX_PAUSE_S, self._saved_s + earned_s)
        self._wait_until(began + self._saved_s)
        self._worked_from = monotonic()
        waited_s = self._worked_from - began
        self._saved_s = max(0.0, self._saved_s - waited_s)
        self.waited_s += waited_s
        return waited_s

    def _wait_until(self, end: float) -> None:
        while self.is_asked and not self._stop.asked and (left_s := end - monotonic()) > 0:
            self._free.wait(min(left_s, PAUSE_POLL_INTERVAL_S))


def listen_to_parent(stop: CancelToken, hold: PauseControl) -> None:
    """Hold and let go as the lines say; request a stop when standard input ends: whoever held its other end is gone."""

    def listen() -> None:
        rest = b""
        while chunk := os.read(STDIN_FD, STDIN_CHUNK_BYTES):
            *lines, rest = (rest + chunk)[-STDIN_CHUNK_BYTES:].split(b"\n")
            for line in lines:
                _handle_command(line.strip(), hold)
        stop.request("the process that started this run is gone")

    threading.Thread(target=listen, name="starter", daemon=True).start()


def _handle_command(word: bytes, hold: PauseControl) -> None:
    match word:
        case b"hold":
            hold.ask()
        case b"go":
            hold.let_go()
