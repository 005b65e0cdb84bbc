"""Attempts to run a job: their number on another machine, and the process on this one."""

import os
import sys
from pathlib import Path
from typing import Literal

import psutil

from personas.errors import MaterialError
from personas.home.atomic_files import read_model, write_model
from personas.schemas.base import FrozenModel

EVENTS_FILE = "events.jsonl"
TRAINER_LOG_FILE = "trainer.log"
ATTEMPT_FILE = "attempt.json"
TRAINER_FILE = "process.json"
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
CHECKPOINTS_FOLDER = "checkpoints"
CHECKPOINT_PREFIX = "checkpoint-"


class JobAttempt(FrozenModel):
    """The latest attempt to run a job on another machine, and what was in the folder when it was
    recorded.

    `events_from` and `log_from` are the sizes in bytes of the events and of the log.
    """

    format: Literal[1] = 1
    attempt: int = 0
    events_from: int = 0
    log_from: int = 0
    checkpoints: tuple[str, ...] = ()


def read_attempt(folder: Path) -> JobAttempt:
    """Read the latest attempt; number 0 where there was none. Raises `MaterialError` for a damaged
    file.
    """
    advice = "Remove it, and resume the job."
    return read_model(folder / ATTEMPT_FILE, JobAttempt, advice) or JobAttempt()


def begin_attempt(folder: Path) -> JobAttempt:
    """Record the next attempt: earlier ones that still run write nothing from now on. Raises as
    `read_attempt`.
    """
    begun = JobAttempt(
        attempt=read_attempt(folder).attempt + 1,
        events_from=_file_bytes(folder / EVENTS_FILE),
        log_from=_file_bytes(folder / TRAINER_LOG_FILE),
        checkpoints=tuple(sorted(list_checkpoint_names(folder))),
    )
    write_model(folder / ATTEMPT_FILE, begun)
    return begun


class TrainerProcess(FrozenModel):
    """The process that trains a folder for a bot. `started` tells it from a later process with the
    same number.
    """

    format: Literal[1] = 1
    pid: int
    started: str

    @property
    def is_running(self) -> bool:
        """Tell whether this very process still runs."""
        return bool(self.started) and _process_start(self.pid) == self.started


def record_trainer(folder: Path) -> None:
    """Record this process as the one that trains a folder. To be called by the holder of its lock.
    Raises `OSError`.
    """
    pid = os.getpid()
    write_model(folder / TRAINER_FILE, TrainerProcess(pid=pid, started=_process_start(pid)))


def find_trainer(folder: Path) -> TrainerProcess | None:
    """Return the process that was recorded last, if it still runs."""
    try:
        found = read_model(folder / TRAINER_FILE, TrainerProcess, "")
    except MaterialError:  # damaged: the folder's lock still keeps others out
        return None
    return found if found and found.is_running else None


def _process_start(pid: int) -> str:
    """Identify the start of a process, whatever the clock says; empty if it has ended."""
    try:
        if sys.platform != "linux":
            return str(psutil.Process(pid).create_time())
        # The program's name, in brackets, may hold anything. Field 22 is the start in ticks since
        # the machine was started (proc(5)), which the clock does not change.
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        state, *fields = stat.rpartition(")")[2].split()
        if state == "Z":
            return ""
        return f"{BOOT_ID_FILE.read_text(encoding='ascii').strip()} {fields[18]}"
    except (OSError, psutil.Error):
        return ""


def list_checkpoint_names(folder: Path) -> set[str]:
    """List the checkpoints of a job, those of a first stage too, by path from the job's folder."""
    found = (folder / CHECKPOINTS_FOLDER).rglob(f"{CHECKPOINT_PREFIX}*")
    return {path.relative_to(folder).as_posix() for path in found}


def _file_bytes(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
