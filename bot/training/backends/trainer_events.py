"""Readers of a trainer's events: from its standard output, or from the file in its job folder."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from bot.training.backend_protocol import OnEvent
from bot.training.run_limits import RunWatch
from personas.home.job_folder import limit_log
from personas.schemas.training_events import (
    TRAINER_EVENT,
    Done,
    Estimate,
    Failed,
    Heartbeat,
    Progress,
    TrainerEvent,
)

MAX_LINE_BYTES = 2**16
MAX_LOGGED_LINES = 20
"""Invalid lines of a run that are logged."""
LINES_PER_PAUSE = 100
FLOOD_PAUSE_S = 0.01
"""Pauses while output is read, so that a trainer that floods it does not stop the bot."""
log = logging.getLogger(__name__)


def parse_event(line: bytes, *, is_logged: bool = True) -> TrainerEvent | None:
    """Parse a line that the trainer printed; an invalid one is logged, and None is returned."""
    try:
        return TRAINER_EVENT.validate_json(line)
    except ValidationError:
        if is_logged:
            text = line.decode(errors="replace").rstrip()
            log.warning("the trainer printed an invalid event: %.200s", text)
        return None


class OutputReader:
    """Reads a trainer's output, and keeps its log short. `final` is the event with the run's end,
    None before it.
    """

    def __init__(self, watch: RunWatch, log_file: Path, on_event: OnEvent) -> None:
        self.watch = watch
        self.log_file = log_file
        self.final: Done | Failed | None = None
        self._on_event = on_event
        self._lines = 0
        self._invalid_lines = 0

    async def read(self, stdout: asyncio.StreamReader) -> None:
        """Pass events on until the output ends, except the final one and those for the watch."""
        while line := await self._next_line(stdout):
            self._lines += 1
            await asyncio.sleep(0 if self._lines % LINES_PER_PAUSE else FLOOD_PAUSE_S)
            event = parse_event(line, is_logged=self._invalid_lines < MAX_LOGGED_LINES)
            if event is None:
                self._invalid_lines += 1
                continue
            self.watch.note(event)
            limit_log(self.log_file)
            if isinstance(event, Done | Failed):
                self.final = event
            elif not isinstance(event, Estimate | Heartbeat):
                self._on_event(event)

    async def _next_line(self, stdout: asyncio.StreamReader) -> bytes:
        while True:
            try:
                return await stdout.readline()
            except ValueError:  # longer than the reader's limit, which has dropped what it read
                self._invalid_lines += 1
                if self._invalid_lines < MAX_LOGGED_LINES:
                    log.warning("the trainer printed a line of more than %d bytes", MAX_LINE_BYTES)


class EventFileReader:
    """Reads a job folder's events from a byte offset on.

    `final` is the last event, if nothing came after it; `seconds` is the run's duration so far;
    `has_begun`: any came.
    """

    def __init__(self, file: Path, offset: int) -> None:
        self._file = file
        self._offset = offset
        self.final: Done | Failed | None = None
        self.seconds = 0.0
        self.has_begun = False

    def read(self) -> list[TrainerEvent]:
        """Return the new events except `final`; an incomplete line waits for its end."""
        events: list[TrainerEvent] = []
        with suppress(FileNotFoundError), self._file.open("rb") as file:
            file.seek(self._offset)
            complete, newline, _ = file.read().rpartition(b"\n")
            self._offset += len(complete) + len(newline)
            for line in complete.split(b"\n"):
                if line and (event := self._note(line)):
                    events.append(event)
        return events

    def _note(self, line: bytes) -> TrainerEvent | None:
        event = parse_event(line)
        self.has_begun = True
        self.final = None
        if isinstance(event, Progress):
            self.seconds = event.seconds
        if isinstance(event, Done | Failed):
            self.final = event
            return None
        return event
