"""Runs the trainer's `dataset inspect` and `dataset build` as subprocesses, one after another."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from bot.errors import redact_paths
from bot.training.subprocess_backend import TRAINER_COMMAND, trainer_environment
from bot.web.problems import Problem

log = logging.getLogger(__name__)

DataJobState = Literal["waiting", "running", "done", "failed", "cancelled"]
DataJobKind = Literal["inspect", "build"]
OPEN_JOB_STATES: tuple[DataJobState, ...] = ("waiting", "running")
MAX_STORED_JOBS, MAX_WAITING_JOBS = 60, 20
MAX_OUTPUT_BYTES = 2**24
MAX_FIRST_LINES, MAX_LAST_LINES, MAX_LINE_CHARS = 8, 12, 400
"""Of what a process says that ends badly: what was wrong comes first in a refusal, and last where it broke."""
PROGRESS_SUFFIX = " rows"
KILL_TIMEOUT_S = 10.0
PROCESS_NICENESS = 10


@dataclass
class DataJob:
    """A trainer job on a file or data set, its `subject`. `said` is the last progress line, `told` the result.

    `seq` counts its changes, so that a watcher can tell what it has seen.
    """

    id: str
    kind: DataJobKind
    subject: str
    words: tuple[str, ...]
    state: DataJobState = "waiting"
    said: str = ""
    error: str = ""
    told: dict[str, Any] = field(default_factory=dict)
    began_at: float | None = None
    ended_at: float | None = None
    seq: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_open(self) -> bool:
        """True while it waits or runs."""
        return self.state in OPEN_JOB_STATES

    def change(self) -> None:
        """Notify watchers."""
        self.seq += 1
        self.changed.set()
        self.changed = asyncio.Event()


CompletionCallback = Callable[[DataJob], Awaitable[None]]


class DataJobRunner:
    """Runs jobs and keeps those since the bot started; finished ones are dropped, oldest first."""

    def __init__(self, command: Sequence[str] = ()) -> None:
        """`command` is the trainer's program, unless it is the usual one."""
        self._command = tuple(command or TRAINER_COMMAND)
        self._all: dict[str, DataJob] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._one = asyncio.Semaphore()

    def start(
        self, home: Path, kind: DataJobKind, subject: str, words: Sequence[str], after: CompletionCallback
    ) -> DataJob:
        """Begin, or wait for what is done before it; `after` hears of it when it is done, before anybody else.

        Raises `Problem` when the same is being done already, or too much waits.
        """
        going = [work for work in self._all.values() if work.is_open]
        if any((work.kind, work.subject) == (kind, subject) for work in going):
            raise Problem("conflict", f"Such a job for {subject} is running already.", "Wait for it, or cancel it.")
        if len(going) >= MAX_WAITING_JOBS:
            raise Problem("busy", "Too many jobs are waiting.", "Try again.", headers={"Retry-After": "30"})
        work = DataJob(secrets.token_hex(5), kind, subject, tuple(words))
        self._all[work.id] = work
        for old in [one.id for one in self._all.values() if not one.is_open][
            : max(0, len(self._all) - MAX_STORED_JOBS)
        ]:
            del self._all[old]
        self._tasks[work.id] = asyncio.create_task(self._do(home, work, after), name=f"{kind} {subject}")
        self._tasks[work.id].add_done_callback(lambda _: self._tasks.pop(work.id, None))
        return work

    def latest(self, kind: DataJobKind, subject: str) -> DataJob | None:
        """The last such work on a file or data set."""
        return next((one for one in reversed(self._all.values()) if (one.kind, one.subject) == (kind, subject)), None)

    def going(self) -> list[DataJob]:
        """Jobs that wait or run, oldest first."""
        return [work for work in self._all.values() if work.is_open]

    def failed(self, kind: DataJobKind) -> list[DataJob]:
        """The last work on each file or data set, where it has failed."""
        last = {one.subject: one for one in self._all.values() if one.kind == kind}
        return [one for one in last.values() if one.state == "failed"]

    def get(self, work_id: str) -> DataJob:
        """By id. Raises `Problem`."""
        if work_id not in self._all:
            raise Problem(
                "not-found", f"There is no work {work_id!r}.", "It may have ended before the bot was started."
            )
        return self._all[work_id]

    async def cancel(self, work: DataJob) -> None:
        """End it; what is ended already stays as it is."""
        task = self._tasks.get(work.id)
        if task:
            task.cancel()
            await asyncio.wait({task})

    async def close(self) -> None:
        """End everything."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _do(self, home: Path, work: DataJob, after: CompletionCallback) -> None:
        try:
            async with self._one:
                work.state, work.began_at = "running", time.time()
                work.change()
                output, problem = await self._run(home, work)
            if problem:
                work.state, work.error = "failed", redact_paths(problem, home)
                return
            work.told = json.loads(output)
            await after(work)
            work.state = "done"
        except asyncio.CancelledError:
            work.state = "cancelled"
        except ValueError:
            work.state, work.error = "failed", "The trainer's answer cannot be read: its version is not the bot's."
        except Exception:  # the edge of a task: whoever watches is to know
            log.exception("the work on %s ended badly", work.subject)
            work.state, work.error = "failed", "An internal error occurred; see the bot's log."
        finally:
            work.ended_at = time.time()
            work.change()

    async def _run(self, home: Path, work: DataJob) -> tuple[bytes, str]:
        """Output, and what went wrong, of the process, which does not outlive this call."""
        pipe = asyncio.subprocess.PIPE
        environ = trainer_environment(os.environ, {}) | {"UNDERSTUDY_HOME": str(home), "PYTHONUNBUFFERED": "1"}
        words = (*self._command, *work.words)
        process = await asyncio.create_subprocess_exec(
            *words,
            cwd=home,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            env=environ,
            process_group=0,  # in the bot's session, where `NICE` counts
        )
        with suppress(psutil.Error):
            psutil.Process(process.pid).nice(PROCESS_NICENESS)
        assert process.stdout is not None and process.stderr is not None  # they are pipes
        try:
            output, errors = await asyncio.gather(_read_output(process.stdout), _read_progress(process.stderr, work))
            code = await process.wait()
        finally:
            if process.returncode is None:
                await _terminate(process)
        if not code and len(output) > MAX_OUTPUT_BYTES:
            return b"", "The trainer's answer is too long."
        return output, "\n".join(errors) or f"The trainer ended with code {code}." if code else ""


async def _read_output(stream: asyncio.StreamReader) -> bytes:
    """Read the output, up to `MAX_OUTPUT_BYTES`."""
    kept = bytearray()
    while piece := await stream.read(2**16):
        if len(kept) <= MAX_OUTPUT_BYTES:
            kept += piece
    return bytes(kept)


async def _read_progress(stream: asyncio.StreamReader, work: DataJob) -> list[str]:
    """Pass progress on; gives the first and the last lines that are none."""
    first: list[str] = []
    last: deque[str] = deque(maxlen=MAX_LAST_LINES)
    left_out = 0
    while True:
        try:
            raw = await stream.readline()
        except ValueError:  # a line longer than the reader's limit, which it has dropped
            continue
        if not raw:
            return [*first, *(["…"] if left_out else []), *last]
        line = raw.decode(errors="replace").strip()[:MAX_LINE_CHARS]
        if line.endswith(PROGRESS_SUFFIX):
            work.said = line
            work.change()
        elif line and len(first) < MAX_FIRST_LINES:
            first.append(line)
        elif line:
            left_out += len(last) == MAX_LAST_LINES
            last.append(line)


async def _terminate(process: asyncio.subprocess.Process) -> None:
    """Ask it to stop, then make it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(TimeoutError):
            async with asyncio.timeout(KILL_TIMEOUT_S):
                await process.wait()
                return
