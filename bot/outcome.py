"""How a training run ended, and how a trainer's process that has ended is read."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from personas.contracts import Done, Failed, ScoreCard

STOPPED = (143, -signal.SIGTERM)
KILLED = (137, -signal.SIGKILL)
"""Exit codes: asked to stop, killed. Negative ones are asyncio's for a signal."""

TAIL_BYTES, TAIL_LINES = 4096, 5


@dataclass(frozen=True)
class Trained:
    """The adapter is verified and in its place. `seconds` is what the run took."""

    adapter: Path
    seconds: float
    scorecard: ScoreCard


@dataclass(frozen=True)
class TrainingFailed:
    """The run ended without an adapter. `can_resume`: mended, the same job could go on from its last checkpoint."""

    error: str
    advice: str = ""
    can_resume: bool = False


@dataclass(frozen=True)
class Interrupted:
    """The run was stopped before its end; the same job can be taken up again. `why` and `advice` for when it cannot."""

    why: str = ""
    advice: str = ""


Outcome = Trained | TrainingFailed | Interrupted


def judged(code: int, last: Done | Failed | None, log_file: Path, logged: int) -> Done | TrainingFailed | Interrupted:
    """What a process that ended meant. `logged` is the log's size in bytes before it began."""
    if isinstance(last, Done):
        return last
    if code in STOPPED:
        return Interrupted()
    if last:
        return TrainingFailed(last.cause, last.advice, last.retry)
    if code in KILLED:
        return Interrupted(
            "The trainer was killed (signal 9), probably because memory ran out.",
            "Free memory on the bot's machine.",
        )
    return TrainingFailed(
        f"The trainer ended without a word (exit code {code}). {_tail(log_file, logged)}".rstrip(),
        f"The whole log is {log_file}.",
    )


def disk_failure(error: OSError, home: Path) -> TrainingFailed:
    """The bot's own share of a run met a disk that is full or cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return TrainingFailed(
        f"The job's files cannot be written: {error.strerror}.",
        f"Free disk space under {home}." if full else f"Check the rights of {home}.",
        can_resume=True,
    )


def _tail(log_file: Path, since: int) -> str:
    with log_file.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(since, end - TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    words = [line.strip() for line in lines if line.strip()][-TAIL_LINES:]
    return f"Its last lines: {' | '.join(words)}" if words else "It logged nothing."
