"""Runs the trainer's `dataset inspect`, `dataset build` and `catalogue fetch` as subprocesses, and
adapter imports.
"""

import asyncio
import json
import logging
import os
import secrets
import signal
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from bot.platform.errors import redact_paths
from bot.platform.request_origin import RequestOrigin
from bot.store import Store, TrainingJob
from bot.training.backends.trainer_environment import TRAINER_COMMAND, trainer_environment
from bot.training.guild_turns import GuildTurns, QueueConflictError
from bot.versions.installation import IMPORT_JOB_NAME, VersionInstaller
from personas.errors import AdapterError, EngineBusyError, UnderstudyError
from personas.home.adapters import verify_adapter
from personas.models.base_model import locate
from personas.schemas.training import TrainingRequest

log = logging.getLogger(__name__)

DataJobState = Literal["waiting", "running", "done", "failed", "cancelled"]
DataJobKind = Literal["inspect", "build", "fetch", "import"]
OPEN_JOB_STATES: tuple[DataJobState, ...] = ("waiting", "running")
MAX_STORED_JOBS = 60
MAX_WAITING_JOBS = 20
MAX_OUTPUT_BYTES = 2**24
MAX_FIRST_LINES, MAX_LAST_LINES, MAX_LINE_CHARS = 8, 12, 400
"""Lines kept of a failed process's output: refusals begin with the reason, crashes end with it."""
PROGRESS_SUFFIXES = (" rows", " fetched")
PROGRESS_ARGUMENTS = ("--json", "--tell-every", "0.5")
"""Have the trainer answer in JSON and report its progress each half second."""
KILL_TIMEOUT_S = 10.0
PROCESS_NICENESS = 10
IMPORT_TIMEOUT_S = 600.0
PROGRESS_MARK = "… "
"""Start of the lines on standard error that report an import's progress."""


@dataclass
class DataJob:
    """A job on its `subject`: a file, data set or persona. `said` is its last progress line, `seq`
    counts changes.
    """

    id: str
    kind: DataJobKind
    subject: str
    arguments: tuple[str, ...]
    state: DataJobState = "waiting"
    said: str = ""
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    seq: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_JOB_STATES

    def say(self, text: str) -> None:
        """Report progress."""
        self.said = text
        self.change()

    def change(self) -> None:
        self.seq += 1
        self.changed.set()
        self.changed = asyncio.Event()


CompletionCallback = Callable[[DataJob], Awaitable[None]]
JobWork = Callable[[DataJob], Awaitable[dict[str, Any]]]
"""Does a job and returns its result."""


class DataJobRunner:
    """Runs jobs one at a time, and a fetch beside; keeps those since the bot started, without the
    oldest that ended.
    """

    def __init__(self, command: Sequence[str] = ()) -> None:
        self._command = tuple(command or TRAINER_COMMAND)
        self._all: dict[str, DataJob] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.guild_imports = GuildTurns("import")
        self._computing, self._fetching = asyncio.Semaphore(), asyncio.Semaphore()

    def start(
        self,
        home: Path,
        kind: DataJobKind,
        subject: str,
        arguments: Sequence[str],
        after: CompletionCallback | None = None,
    ) -> DataJob:
        """Queue a trainer job; `after` is awaited when it has succeeded, before anybody sees it as
        done.

        So it is when an inspection ended with a question, which is then the result of the failed
        job. Raises as `start_work`.
        """

        async def work(job: DataJob) -> dict[str, Any]:
            output, problem = await self._run(home, job)
            job.result = _parse_question(output) if problem else json.loads(output)
            if after and (job.result or not problem):
                await after(job)
            if problem:
                raise TrainerProcessError(problem)
            return job.result

        return self.start_work(home, kind, subject, work, arguments)

    def start_work(
        self,
        home: Path,
        kind: DataJobKind,
        subject: str,
        work: JobWork,
        arguments: Sequence[str] = (),
        on_end: Callable[[], object] = lambda: None,
    ) -> DataJob:
        """Queue a job of any kind of work; `on_end` is called when it has ended, however it did.

        Raises `QueueConflictError` when the same job is open already, and `EngineBusyError` when
        too many are waiting.
        """
        if any((job.kind, job.subject) == (kind, subject) for job in self.open()):
            raise QueueConflictError(
                f"Such a job for {subject} is running already.", "Wait for it, or cancel it."
            )
        if len(self.open()) >= MAX_WAITING_JOBS:
            raise EngineBusyError("Too many jobs are waiting.", "Try again.", wait_s=30)
        job = DataJob(secrets.token_hex(5), kind, subject, tuple(arguments))
        self._all[job.id] = job
        ended = [one.id for one in self._all.values() if not one.is_open]
        for old in ended[: max(0, len(self._all) - MAX_STORED_JOBS)]:
            del self._all[old]
        self._tasks[job.id] = asyncio.create_task(
            self._do(home, job, work), name=f"{kind} {subject}"
        )
        self._tasks[job.id].add_done_callback(lambda _: (self._tasks.pop(job.id, None), on_end()))
        return job

    def latest(self, kind: DataJobKind, subject: str) -> DataJob | None:
        """The last job of this kind on a file or data set."""
        return next(
            (
                one
                for one in reversed(self._all.values())
                if (one.kind, one.subject) == (kind, subject)
            ),
            None,
        )

    def open(self) -> list[DataJob]:
        """Jobs that wait or run, oldest first."""
        return [job for job in self._all.values() if job.is_open]

    def failed(self, kind: DataJobKind) -> list[DataJob]:
        """The last job of this kind on each file or data set, if it failed."""
        last = {one.subject: one for one in self._all.values() if one.kind == kind}
        return [one for one in last.values() if one.state == "failed"]

    def find(self, job_id: str) -> DataJob | None:
        """A job by its id."""
        return self._all.get(job_id)

    async def cancel(self, *jobs: DataJob) -> None:
        """Stop jobs, and wait for their end."""
        tasks = [self._tasks[job.id] for job in jobs if job.id in self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Stop all jobs."""
        await self.cancel(*self.open())

    async def _do(self, home: Path, job: DataJob, work: JobWork) -> None:
        try:
            async with self._fetching if job.kind in ("fetch", "import") else self._computing:
                job.state = "running"
                job.change()
                job.result = await work(job)
            job.state = "done"
        except asyncio.CancelledError:
            job.state = "cancelled"
        except UnderstudyError as error:
            job.state, job.error = "failed", redact_paths(str(error), home)
        except ValueError:
            job.state = "failed"
            job.error = "The trainer's answer cannot be read: its version is not the bot's."
        except Exception:  # the edge of a task: watchers get the error
            log.exception("the job on %s failed", job.subject)
            job.state = "failed"
            job.error = "An internal error occurred; see the bot's log."
        finally:
            job.change()

    async def _run(self, home: Path, job: DataJob) -> tuple[bytes, str]:
        """Run the process to its end; returns its output and the error."""
        pipe = asyncio.subprocess.PIPE
        environ = trainer_environment(os.environ, {}) | {
            "UNDERSTUDY_HOME": str(home),
            "PYTHONUNBUFFERED": "1",
        }
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *job.arguments,
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
            output, errors = await asyncio.gather(
                _read_output(process.stdout), _read_progress(process.stderr, job)
            )
            code = await process.wait()
        finally:
            if process.returncode is None:
                await _terminate(process)
        if not code and len(output) > MAX_OUTPUT_BYTES:
            return b"", "The trainer's answer is too long."
        return output, "\n".join(errors) or f"The trainer ended with code {code}." if code else ""


def _parse_question(output: bytes) -> dict[str, Any]:
    """Return the answer of an inspection that asks which column is what; empty for any other
    output.
    """
    try:
        answer = json.loads(output)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) and "question" in answer else {}


async def _read_output(stream: asyncio.StreamReader) -> bytes:
    output = bytearray()
    while piece := await stream.read(2**16):
        if len(output) <= MAX_OUTPUT_BYTES:
            output += piece
    return bytes(output)


async def _read_progress(stream: asyncio.StreamReader, job: DataJob) -> list[str]:
    """Pass on progress lines; returns the first and last of the others."""
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
        if line.endswith(PROGRESS_SUFFIXES):
            job.say(line)
        elif line and len(first) < MAX_FIRST_LINES:
            first.append(line)
        elif line:
            left_out += len(last) == MAX_LAST_LINES
            last.append(line)


async def _terminate(process: asyncio.subprocess.Process) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(TimeoutError):
            async with asyncio.timeout(KILL_TIMEOUT_S):
                await process.wait()
                return


class TrainerProcessError(UnderstudyError):
    """The trainer's process failed; the message is its output."""


async def import_adapter_version(
    home: Path,
    store: Store,
    base_model: str,
    origin: RequestOrigin,
    persona_id: str,
    source: str,
    say: Callable[[str], None],
) -> tuple[str, list[str], TrainingJob | None]:
    """Install an adapter from outside, fetched and checked by `trainer import`, as a persona's next
    version.

    Returns the version, notes, and the job that stands for the installation. Cancelling it ends the
    process; what was downloaded is kept. Raises `AdapterError`, `BaseModelError` and `OSError`.
    """
    served = await asyncio.to_thread(locate, base_model, fetch=False)
    with tempfile.TemporaryDirectory(prefix="understudy-adapter-") as scratch:
        folder = Path(scratch) / "adapter"
        await _run_import(source, folder, served.name, say)
        manifest = await asyncio.to_thread(verify_adapter, folder)
        request = TrainingRequest(
            job_name=IMPORT_JOB_NAME, base_model=base_model, persona=persona_id
        )
        name = f"The adapter of {manifest.source.name}" if manifest.source else "The adapter"
        result = await VersionInstaller(home, store).install_folder(origin, request, folder, name)
    return result.version, [result.note, *manifest.caveats], result.job


async def _run_import(source: str, out: Path, base_model: str, say: Callable[[str], None]) -> None:
    """Run `trainer import` to its end. Raises `AdapterError` with its message."""
    command = [
        *TRAINER_COMMAND,
        "import",
        f"--adapter={source}",
        "--out",
        str(out),
        f"--base-model={base_model}",
    ]
    quiet = asyncio.subprocess.DEVNULL
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=quiet,
        stdout=quiet,
        stderr=pipe,
        env=trainer_environment(os.environ, {}),
        process_group=0,
    )
    error = ""
    try:
        async with asyncio.timeout(IMPORT_TIMEOUT_S):
            assert process.stderr is not None  # it is a pipe
            async for line in process.stderr:
                text = line.decode(errors="replace").strip()
                if text.startswith(PROGRESS_MARK):
                    say(text)
                else:
                    error = text or error
            code = await process.wait()
    except TimeoutError:
        what = f"The import took more than {IMPORT_TIMEOUT_S / 60:.0f} minutes and was stopped."
        raise AdapterError(what, "Try again: a download continues where it stopped.") from None
    finally:
        if process.returncode is None:
            await _terminate(process)
    if code:
        raise AdapterError(error or f"The import ended with code {code}.")
