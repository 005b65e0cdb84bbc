"""Data jobs: inspections, builds, fetches, imports and base models, one at a time, since the bot started."""

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bot.data.trainer_call import call_trainer
from bot.platform.errors import redact_paths
from bot.platform.localisation import gettext_lazy
from bot.training.backends.trainer_environment import TRAINER_COMMAND
from bot.training.guild_turns import GuildTurns, QueueConflictError
from personas.errors import EngineBusyError, UnderstudyError

log = logging.getLogger(__name__)

DataJobState = Literal["waiting", "running", "done", "failed", "cancelled"]
DataJobKind = Literal["inspect", "build", "fetch", "import", "model"]
OPEN_JOB_STATES: tuple[DataJobState, ...] = ("waiting", "running")
MAX_STORED_JOBS = 60
MAX_WAITING_JOBS = 20


class TrainerProcessError(UnderstudyError):
    """The trainer's process failed; the message is its output."""


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
        self.guild_imports = GuildTurns(gettext_lazy("import"))
        # A download waits for the network, so it runs beside the others.
        self._computing = asyncio.Semaphore()
        self._fetching = asyncio.Semaphore()

    def start(
        self,
        home: Path,
        kind: DataJobKind,
        subject: str,
        arguments: Sequence[str],
        after: CompletionCallback | None = None,
        on_end: Callable[[], object] = lambda: None,
    ) -> DataJob:
        """Queue a trainer job; `after` is awaited when it has succeeded, before anybody sees it as
        done, and `on_end` is called when it has ended, however it did.

        So it is when an inspection ended with a question, which is then the result of the failed
        job. Raises as `start_work`.
        """

        async def work(job: DataJob) -> dict[str, Any]:
            answer = await call_trainer([*self._command, *job.arguments], home, job.say)
            job.result = answer.question if answer.error else json.loads(answer.output)
            if after and (job.result or not answer.error):
                await after(job)
            if answer.error:
                raise TrainerProcessError(answer.error)
            return job.result

        return self.start_work(
            home, kind, subject=subject, work=work, arguments=arguments, on_end=on_end
        )

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
                gettext_lazy("Such a job for {subject} is running already.", subject=subject),
                gettext_lazy("Wait for it, or cancel it."),
            )
        if len(self.open()) >= MAX_WAITING_JOBS:
            raise EngineBusyError(
                gettext_lazy("Too many jobs are waiting."), gettext_lazy("Try again."), wait_s=30
            )
        job = DataJob(secrets.token_hex(5), kind, subject, tuple(arguments))
        self._all[job.id] = job
        ended = [job.id for job in self._all.values() if not job.is_open]
        for old in ended[: max(0, len(self._all) - MAX_STORED_JOBS)]:
            del self._all[old]
        self._tasks[job.id] = asyncio.create_task(
            self._do(home, job, work), name=f"{kind} {subject}"
        )
        self._tasks[job.id].add_done_callback(lambda _: (self._tasks.pop(job.id, None), on_end()))
        return job

    def latest(self, kind: DataJobKind, subject: str) -> DataJob | None:
        """The last job of this kind on a file or data set."""
        for job in reversed(self._all.values()):
            if (job.kind, job.subject) == (kind, subject):
                return job
        return None

    def open(self) -> list[DataJob]:
        """Jobs that wait or run, oldest first."""
        return [job for job in self._all.values() if job.is_open]

    def failed(self, kind: DataJobKind) -> list[DataJob]:
        """The last job of this kind on each file or data set, if it failed."""
        latest = {job.subject: job for job in self._all.values() if job.kind == kind}
        return [job for job in latest.values() if job.state == "failed"]

    def done(self, kind: DataJobKind) -> list[DataJob]:
        """The last job of this kind on each subject, if it is done."""
        latest = {job.subject: job for job in self._all.values() if job.kind == kind}
        return [job for job in latest.values() if job.state == "done"]

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
            turn = self._fetching if job.kind in ("fetch", "import", "model") else self._computing
            async with turn:
                job.state = "running"
                job.change()
                job.result = await work(job)
            job.state = "done"
        except asyncio.CancelledError:
            job.state = "cancelled"
        except UnderstudyError as error:
            job.state = "failed"
            job.error = redact_paths(str(error), home)
        except ValueError:
            job.state = "failed"
            job.error = gettext_lazy(
                "The trainer's answer cannot be read: its version is not the bot's."
            )
        except Exception:  # the edge of a task: watchers get the error
            log.exception("the job on %s failed", job.subject)
            job.state = "failed"
            job.error = gettext_lazy("An internal error occurred; see the bot's log.")
        finally:
            job.change()
