"""The trainer's events: one JSON object a line, on standard output and in the job folder's `events.jsonl`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from personas.contracts import TrainerEvent

log = logging.getLogger(__name__)


class Events:
    """Where events go. Neither a reader that has gone nor a full disk stops the run that reports."""

    def __init__(self, out: TextIO) -> None:
        self._sinks = [out]

    @contextmanager
    def also_to(self, path: Path) -> Iterator[None]:
        """Inside, every event is appended to this file too."""
        with path.open("a", encoding="utf-8") as file:
            self._sinks.append(file)
            yield
            self._sinks = [sink for sink in self._sinks if sink is not file]

    def emit(self, event: TrainerEvent) -> None:
        """Write and flush one event."""
        line = event.model_dump_json() + "\n"
        for sink in tuple(self._sinks):
            try:
                sink.write(line)
                sink.flush()
            except OSError as error:
                self._sinks.remove(sink)
                log.warning("events no longer go to %s: %s", sink.name, error.strerror)


def claim_stdout() -> TextIO:
    """Keep standard output for events: what anything else prints there goes to standard error from now on."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events
