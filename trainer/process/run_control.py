"""Stops and pauses a run between two steps: on a signal, when its job folder is gone, or as its
parent process asks.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic
from types import FrameType
from typing import Any, cast, get_args

from personas.errors import TrainingError
from personas.home.job_attempt import read_attempt
from personas.schemas.training_events import PauseDemand

SIGNAL_RETRY_DELAY_S = 0.05
MAX_PAUSE_S = 15.0
RESERVE_S = MAX_PAUSE_S / 2
"""The part of what is saved up that is kept for those who wait for their first words."""
MAX_PAUSE_SHARE, MIN_PAUSE_SHARE = 3 / 4, 1 / 4
"""The largest share of the time that a run waits: with short steps, and with long ones."""
TARGET_STEP_INTERVAL_S = 105.0
"""With a wait of `MAX_PAUSE_S` that was saved up before, one step is done every two minutes."""
PAUSE_POLL_INTERVAL_S = 0.1
STDIN_CHUNK_BYTES = 4096
STDIN_FD = 0


class RunCancelled(Exception):
    """The run was asked to stop; `str()` gives the reason."""


class CancelToken:
    """Set from any thread, checked between steps."""

    def __init__(self) -> None:
        self._reason: str | None = None

    def request(self, reason: str) -> None:
        """Ask the run to stop. The first reason stays."""
        self._reason = self._reason or reason

    @property
    def is_requested(self) -> bool:
        """Tell whether cancellation was requested."""
        return self._reason is not None

    def check(self) -> None:
        """Raise `RunCancelled` if cancellation was requested."""
        if self._reason:
            raise RunCancelled(self._reason)


def cancel_on_signals(stop: CancelToken) -> None:
    """Let SIGTERM and SIGINT request a stop instead of ending the process."""

    def request(number: int, _frame: FrameType | None) -> None:
        stop.request(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request)


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM); raised wherever it is at work, as `KeyboardInterrupt`
    is.

    A `SystemExit`, as asyncio takes other exceptions for a broken connection and logs them at
    length.
    """


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM inside the block, once: the clean-up that follows is not
    interrupted.

    Python drops exceptions raised while an object is being finalised; then the signal is sent again
    a moment later.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    def dropped(what: Any) -> None:
        if issubclass(what.exc_type, Terminated):
            signal.signal(signal.SIGTERM, end)
            _send_signal_later(signal.SIGTERM)
        elif issubclass(what.exc_type, KeyboardInterrupt):
            _send_signal_later(signal.SIGINT)
        else:
            hook(what)

    before = signal.signal(signal.SIGTERM, end)
    hook = sys.unraisablehook
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


def _send_signal_later(number: signal.Signals) -> None:
    again = threading.Timer(SIGNAL_RETRY_DELAY_S, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def run_until_terminated(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end; SIGTERM cancels it, as asyncio does on SIGINT, and raises
    `Terminated`.

    An exception that a signal handler raises inside a task would be logged as one that nobody
    retrieved. Only the main thread receives signals; in another one the coroutine just runs.
    """
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(main)

    async def cancel_on_sigterm() -> None:
        task = asyncio.current_task()
        if task:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await main

    before = signal.getsignal(signal.SIGTERM)
    try:
        asyncio.run(cancel_on_sigterm())
    except asyncio.CancelledError:
        raise Terminated from None
    finally:
        signal.signal(signal.SIGTERM, before)


class JobGoneError(TrainingError):
    """The job folder is no longer where it was."""

    can_resume = True


class SupersededError(TrainingError):
    """A newer attempt of the job runs elsewhere."""

    can_resume = True


@dataclass(frozen=True)
class AttemptFence:
    """Keeps an attempt from writing once a newer one of the same job is recorded; attempt 0 is not
    fenced.

    On a cluster, a run that everybody takes for dead may go on because its node was cut off. The
    lock on the folder alone would not do: it stays with a process that does not react.
    """

    folder: Path
    attempt: int = 0

    def check(self) -> None:
        """Raise `SupersededError` if a newer attempt is recorded, or `MaterialError` if that cannot
        be read.
        """
        if not self.attempt:
            return
        newest = read_attempt(self.folder).attempt
        if newest > self.attempt:
            raise SupersededError(
                f"Attempt {newest} of this job has begun; this is attempt {self.attempt}."
            )


def check_job_folder(
    folder: Path, check: Callable[[], None], fence: Callable[[], None]
) -> Callable[[], None]:
    """Extend `check` by `fence`, and by one that the folder is still the same one. It raises
    `JobGoneError` if not.
    """
    identity = _folder_identity(folder)

    def check_all() -> None:
        check()
        if _folder_identity(folder) != identity:
            raise JobGoneError(
                f"The job folder {folder} is gone.",
                "Put it back, then run the same job again: it goes on from its last checkpoint.",
            )
        fence()

    return check_all


def _folder_identity(folder: Path) -> tuple[int, int] | None:
    try:
        stat = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_dev, stat.st_ino


class PauseControl:
    """A pause, requested and released from any thread; the training thread waits for its end.

    The bot asks for it while replies are generated: a low priority does not help where two
    processes share caches and memory.

    The time it may wait is saved up while it works; with the demand `yield` a reserve of it is
    kept. `waited_s` is the total waiting time in seconds.
    """

    def __init__(
        self, stop: CancelToken | None = None, beat: Callable[[], None] = lambda: None
    ) -> None:
        """Create one that waits no longer once `stop` is requested; each `wait` calls `beat`."""
        self._stop = stop or CancelToken()
        self._beat = beat
        self._free = Event()
        self.demand: PauseDemand = "go"
        self._free.set()
        self._share = MAX_PAUSE_SHARE
        self._saved_s = MAX_PAUSE_S
        self._worked_from = self._step_began = monotonic()
        self._waited_before_step_s = 0.0
        self.waited_s = 0.0

    def request(self, demand: PauseDemand) -> None:
        """Pause or go on from now."""
        self.demand = demand
        if demand == "go":
            self._free.set()
        else:
            self._free.clear()

    def begin_step(self) -> None:
        """Record the start of an optimiser step."""
        self._step_began = monotonic()
        self._waited_before_step_s = self.waited_s

    def end_step(self) -> None:
        """Record the end of the step: its duration decides which share of the time may be waited
        from now on.
        """
        took_s = monotonic() - self._step_began - (self.waited_s - self._waited_before_step_s)
        self._share = min(
            MAX_PAUSE_SHARE, max(MIN_PAUSE_SHARE, 1 - took_s / TARGET_STEP_INTERVAL_S)
        )

    def wait(self) -> float:
        """Wait while a pause is requested, at most as long as saved up. Returns the seconds
        waited.
        """
        self._beat()
        began = monotonic()
        earned_s = (began - self._worked_from) * self._share / (1 - self._share)
        self._saved_s = min(MAX_PAUSE_S, self._saved_s + earned_s)
        self._wait_from(began)
        self._worked_from = monotonic()
        waited_s = self._worked_from - began
        self._saved_s = max(0.0, self._saved_s - waited_s)
        self.waited_s += waited_s
        return waited_s

    def _wait_from(self, began: float) -> None:
        while not self._stop.is_requested:
            # Read once: the listener's thread may change it at any time.
            demand = self.demand
            if demand == "go":
                return
            may_wait_s = self._saved_s
            if demand == "yield":
                may_wait_s -= RESERVE_S
            left_s = began + may_wait_s - monotonic()
            if left_s <= 0:
                return
            self._free.wait(min(left_s, PAUSE_POLL_INTERVAL_S))


def listen_to_parent(stop: CancelToken, pause: PauseControl) -> None:
    """Pause and go on as the lines of standard input say; stop when it ends, as the parent process
    is gone then.
    """

    def listen() -> None:
        rest = b""
        while True:
            chunk = os.read(STDIN_FD, STDIN_CHUNK_BYTES)
            if not chunk:
                break
            # The end of an endless line is kept alone, so that it cannot fill the memory.
            *lines, rest = (rest + chunk)[-STDIN_CHUNK_BYTES:].split(b"\n")
            for line in lines:
                word = line.strip().decode("ascii", "replace")
                if word in get_args(PauseDemand):
                    pause.request(cast(PauseDemand, word))
        stop.request("the process that started this run is gone")

    threading.Thread(target=listen, name="parent-listener", daemon=True).start()
