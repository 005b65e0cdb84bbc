"""Cancels a run between two steps: on a signal, or when its job folder has gone."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from personas.errors import TrainingError

SIGNAL_RETRY_DELAY_S = 0.05


class RunCancelled(Exception):
    """The run was asked to stop; `str()` says by what."""


class CancelToken:
    """Set from anywhere, looked at between steps."""

    def __init__(self) -> None:
        self._reason: str | None = None

    def request(self, reason: str) -> None:
        """Ask the run to stop. The first reason stays."""
        self._reason = self._reason or reason

    @property
    def asked(self) -> bool:
        """Tells whether cancellation was requested."""
        return self._reason is not None

    def check(self) -> None:
        """Raise `RunCancelled` when asked to."""
        if self._reason:
            raise RunCancelled(self._reason)


def cancel_on_signals(stop: CancelToken) -> None:
    """Let SIGTERM and SIGINT request a stop instead of ending the process."""

    def request(number: int, _frame: FrameType | None) -> None:
        stop.request(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request)


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM); like a `KeyboardInterrupt`, raised wherever it is at work.

    Of what else ends a process asyncio believes that a connection has broken, and says so at length.
    """


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM inside the block, once: what is cleared up then is not disturbed.

    Python drops what is raised while an object is being finalised; then the signal comes again a moment later.
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

    before, hook = signal.signal(signal.SIGTERM, end), sys.unraisablehook
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


class JobGoneError(TrainingError):
    """The job folder is no longer where it was."""

    can_resume = True


def check_job_folder(folder: Path, check: Callable[[], None]) -> Callable[[], None]:
    """`check`, and a look whether the folder is still the one that it is now. The look raises `JobGoneError`."""
    kept = _folder_identity(folder)

    def check_both() -> None:
        check()
        if _folder_identity(folder) != kept:
            raise JobGoneError(
                f"The job folder {folder} is gone.",
                "Put it back, then run the same job again: it goes on from its last checkpoint.",
            )

    return check_both


def _folder_identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
