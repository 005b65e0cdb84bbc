"""How a run ended: from the trainer's exit code, its last event and its log."""

import os
import signal
from pathlib import Path

from bot.training.backend_protocol import TrainingFailed, TrainingInterrupted
from personas.cli_entry import DISK_FULL_ERRNOS
from personas.schemas.training_events import Done, Failed

# A shell reports 128 + the signal; asyncio reports the negative signal.
SIGTERM_EXIT_CODES = (143, -signal.SIGTERM)
SIGKILL_EXIT_CODES = (137, -signal.SIGKILL)
MAX_TAIL_BYTES = 4096
MAX_TAIL_LINES = 5


def classify_exit(
    code: int, final: Done | Failed | None, log_file: Path, log_from: int
) -> Done | TrainingFailed | TrainingInterrupted:
    """Classify the exit of a trainer. `log_from` is the log's size in bytes before it began."""
    if isinstance(final, Done):
        return final
    if code in SIGTERM_EXIT_CODES:
        return TrainingInterrupted()
    if final:
        return TrainingFailed(final.cause, final.advice, final.retry)
    if code in SIGKILL_EXIT_CODES:
        return TrainingInterrupted(
            "The trainer was killed (signal 9), probably because memory ran out.",
            "Free memory on the bot's machine.",
        )
    return TrainingFailed(
        f"The trainer ended without a result (exit code {code}). "
        f"{_log_tail(log_file, log_from)}".rstrip(),
        f"The whole log is {log_file}.",
    )


def _log_tail(log_file: Path, log_from: int) -> str:
    with log_file.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if log_from > size:  # the log was shortened meanwhile
            log_from = 0
        file.seek(max(log_from, size - MAX_TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    written = [line.strip() for line in lines if line.strip()]
    if not written:
        return "It logged nothing."
    return f"Its last lines: {' | '.join(written[-MAX_TAIL_LINES:])}"


def disk_failure(error: OSError, home: Path) -> TrainingFailed:
    """Describe a disk that is full or cannot be written while the bot handles a run's files."""
    advice = f"Check the rights of {home}."
    if error.errno in DISK_FULL_ERRNOS:
        advice = f"Free disk space under {home}."
    return TrainingFailed(
        f"The job's files cannot be written: {error.strerror}.", advice, can_resume=True
    )
