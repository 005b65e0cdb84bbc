"""Writes a run's events as JSON lines, and turns errors into the event that reports them."""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from personas.cli_entry import DISK_FULL_ERRNOS, mend_cut_bytecode
from personas.errors import UnderstudyError, is_out_of_memory
from personas.schemas.training_events import (
    Epoch,
    Evaluation,
    Failed,
    Heartbeat,
    Progress,
    TrainerEvent,
)
from trainer.process.run_control import RunCancelled

log = logging.getLogger(__name__)
StepEvent = Progress | Evaluation | Epoch
HEARTBEAT_INTERVAL_S = 30.0


class EventWriter:
    """Writes events. Neither a closed reader nor a full disk stops the run that reports."""

    def __init__(self, out: TextIO) -> None:
        self._sinks: list[tuple[TextIO, Callable[[], None]]] = [(out, lambda: None)]
        self._emitted_at = time.monotonic()
        self._emitting = threading.Lock()  # the engine that writes replies has its own thread

    @contextmanager
    def also_to(self, path: Path, fence: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Inside, every event is appended to this file too, until `fence` raises an
        `UnderstudyError`.
        """
        with path.open("a", encoding="utf-8") as file:
            self._sinks.append((file, fence))
            yield
            self._sinks = [sink for sink in self._sinks if sink[0] is not file]

    def emit(self, event: TrainerEvent) -> None:
        """Write and flush one event."""
        self._emitted_at = time.monotonic()
        line = event.model_dump_json() + "\n"
        with self._emitting:
            for sink, fence in tuple(self._sinks):
                try:
                    fence()
                    sink.write(line)
                    sink.flush()
                except (OSError, UnderstudyError) as error:
                    self._sinks.remove((sink, fence))
                    reason = error.strerror if isinstance(error, OSError) else error
                    log.warning("events no longer go to %s: %s", sink.name, reason)

    def beat(self) -> None:
        """Write a heartbeat if the last event is old. The run calls this where it got on: one that
        hangs is silent.
        """
        if time.monotonic() - self._emitted_at >= HEARTBEAT_INTERVAL_S:
            self.emit(Heartbeat())


def claim_stdout() -> TextIO:
    """Keep standard output for events: what anything else prints there goes to standard error from
    now on.
    """
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def failed_event(error: Exception) -> Failed:
    """Builds the `failed` event: the cause, advice, and whether the same job could succeed
    later.
    """
    if message := mend_cut_bytecode(error):
        return Failed(cause=message, advice="Run the same job again.", retry=True)
    match error:
        case RunCancelled():
            return Failed(
                cause="stopped", advice=f"Stopped by {error}. Run the same job again.", retry=True
            )
        case UnderstudyError():
            return Failed(cause=error.message, advice=error.advice, retry=error.can_resume)
    if is_out_of_memory(error):
        advice = "Close other programs, or lower per_device_train_batch_size or max_length."
        return Failed(cause="The machine ran out of memory.", advice=advice, retry=True)
    refused = find_disk_error(error)
    if refused is not None:
        if refused.errno in DISK_FULL_ERRNOS:
            return Failed(
                cause="The disk is full.",
                advice="Free some space, then run the same job again.",
                retry=True,
            )
        where = refused.filename or "A file"
        return Failed(
            cause=f"{where}: {refused.strerror}.",
            advice="Check the path and its rights.",
            retry=True,
        )
    log.error("unexpected", exc_info=error)
    advice = "This is a fault of the program; the log holds the details."
    return Failed(cause=f"{type(error).__name__}: {error}", advice=advice)


def find_disk_error(error: Exception) -> OSError | None:
    """The error as one of reading or writing files, if it is that."""
    if isinstance(error, OSError) and error.errno is not None:
        return error if error.filename or error.errno in DISK_FULL_ERRNOS else None
    # safetensors, from Rust, and what copies folders, a line for each file, report the number in
    # the text.
    found = re.search(
        r"(?:os error |\[Errno )(\d+)(?:\][^:]*: '([^']+)')?", str(error), re.IGNORECASE
    )
    return OSError(int(found[1]), os.strerror(int(found[1])), found[2]) if found else None
