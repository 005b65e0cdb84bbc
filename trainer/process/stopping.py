"""Stopping between two steps: on SIGTERM or SIGINT, or when the process that started the run is gone."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

AGAIN_S = 0.05


class Stopped(Exception):
    """The run was asked to stop; `str()` says by what."""


class Stop:
    """Set from anywhere, looked at between steps."""

    def __init__(self) -> None:
        self._reason: str | None = None

    def request(self, reason: str) -> None:
        """Ask the run to stop. The first reason stays."""
        self._reason = self._reason or reason

    @property
    def asked(self) -> bool:
        """Whether somebody has asked for it."""
        return self._reason is not None

    def check(self) -> None:
        """Raise `Stopped` when asked to."""
        if self._reason:
            raise Stopped(self._reason)


def stop_on_signals(stop: Stop) -> None:
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
def terminable() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM inside the block, once: what is cleared up then is not disturbed.

    Python drops what is raised while an object is being finalised; then the signal comes again a moment later.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    def dropped(what: Any) -> None:
        if issubclass(what.exc_type, Terminated):
            signal.signal(signal.SIGTERM, end)
            _send_soon(signal.SIGTERM)
        elif issubclass(what.exc_type, KeyboardInterrupt):
            _send_soon(signal.SIGINT)
        else:
            hook(what)

    before, hook = signal.signal(signal.SIGTERM, end), sys.unraisablehook
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


def _send_soon(number: signal.Signals) -> None:
    again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()
