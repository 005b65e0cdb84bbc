"""Trains on a Ray cluster (`TRAINER=ray`): one Ray job for each attempt, over a job folder that its
workers share.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar, Unpack

from bot.settings import Settings
from bot.store import TrainingJob
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import OnEvent, RunResult, TrainingFailed, TrainingInterrupted
from bot.training.ray_jobs import (
    RayJob,
    RayJobsClient,
    RayRefusedError,
    RayUnreachableError,
    WorkerResources,
    worker_command,
)
from bot.training.status_text import format_duration
from bot.training.subprocess_backend import (
    ERASURE_TEXT,
    SIGKILL_EXIT_CODES,
    SIGTERM_EXIT_CODES,
    TRAINER_SECRETS,
    JobFolderBackend,
    JobFolderOptions,
    classify_exit,
    disk_failure,
    parse_event,
)
from bot.training.training_plan import RunWatch, evaluation_environ
from personas.errors import RunLimitError, UnderstudyError
from personas.home.adapters import MANIFEST_FILE
from personas.home.job_folder import (
    ADAPTER_FOLDER,
    EVENTS_FILE,
    TRAINER_LOG_FILE,
    JobAttempt,
    begin_attempt,
    home_id,
    link_shared_folders,
    list_checkpoint_names,
    read_attempt,
)
from personas.schemas.training_events import (
    Done,
    Estimate,
    Failed,
    Heartbeat,
    PauseDemand,
    Phase,
    Progress,
    TrainerEvent,
)

POLL_INTERVAL_S = 2.0
REPORT_AFTER_S = 60.0
"""Time that a job may wait for a worker, or the cluster be silent, until that is shown."""
STOP_WAIT_S = 20
"""Time in which a trainer has to stop before Ray kills it; Ray's default of 3 s is too short for a
checkpoint.
"""
STOP_TIMEOUT_S = 60.0
"""Time after which the bot no longer waits for a stopped job to end. It can write nothing more in
any case.
"""
ADAPTER_TIMEOUT_S = 30.0
"""Time until an adapter that a worker has written must be visible here; network file systems
cache.
"""
SWEEP_RETRY_S = 30.0
UNSCHEDULABLE_ERRORS = (
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT", "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE", "RUNTIME_ENV_SETUP_FAILURE",
)  # fmt: skip
WORKER_ADVICE = (
    "Workers need the folder at the same path, and a `python` with Understudy: see `python -m bot "
    "doctor`."
)
log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class EventFollower:
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
        with suppress(FileNotFoundError), self._file.open("rb") as file:
            file.seek(self._offset)
            complete = file.read().rpartition(b"\n")[0]
            self._offset += len(complete) + bool(complete)
            return [event for line in complete.split(b"\n") if line and (event := self._note(line))]
        return []

    def _note(self, line: bytes) -> TrainerEvent | None:
        event = parse_event(line)
        self.has_begun = True
        if isinstance(event, Progress):
            self.seconds = event.seconds
        self.final = event if isinstance(event, Done | Failed) else None
        return None if self.final else event


class _RunLeftError(Exception):
    """The bot leaves a run: it was cancelled, or the bot ends."""


class _RunLostError(Exception):
    """The attempt is gone through no fault of the job, and the next one can begin at once."""


@dataclass
class _RayRun:
    """A run that the bot follows, and what it waits for, which is shown once it takes long.

    `watch` is that of the attempt that a worker has taken.
    """

    job: TrainingJob
    on_event: OnEvent
    poll_s: float
    is_cancelled: bool = False
    left: asyncio.Event = field(default_factory=asyncio.Event)
    watch: RunWatch | None = None
    waiting_for: str = ""
    waiting_since: float = 0.0
    is_reported: bool = False

    async def pause(self) -> None:
        """Wait until the next poll. Raises `_RunLeftError`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.left.wait(), self.poll_s)
        if self.left.is_set():
            raise _RunLeftError

    def wait_for(
        self, what: str, advice: str = "", phase: Literal["material", "training"] = "training"
    ) -> None:
        """Note what the run waits for, empty if for nothing; after `REPORT_AFTER_S` it is shown,
        with the advice.
        """
        now = time.monotonic()
        if bool(what) != bool(self.waiting_for):
            self.waiting_since = now
            self.is_reported = False
        self.waiting_for = what
        waited_s = now - self.waiting_since
        if what and waited_s >= REPORT_AFTER_S and not self.is_reported:
            self.is_reported = True
            log.warning("the job %s: %s", self.job.job_id, what)
            self.on_event(
                Phase(name=phase, detail=f"{what} ({format_duration(waited_s)}) {advice}".strip())
            )

    async def pause_for_erasure(self) -> None:
        """Wait until the next poll, and show why. Raises `_RunLeftError`."""
        self.wait_for(ERASURE_TEXT, phase="material")
        await self.pause()

    async def ask(self, request: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat a request until the cluster answers. Raises `RayRefusedError` and
        `_RunLeftError`.
        """
        while True:
            try:
                answer = await request()
            except RayUnreachableError as error:
                self.wait_for(error.message, error.advice)
                await self.pause()
            else:
                self.wait_for("")
                return answer


class RayBackend(JobFolderBackend):
    """Runs each job as Ray jobs `<home>-<job>-<attempt>`, and follows it through the files in its
    folder.

    The number of the latest attempt is in the job folder; older attempts that still run see it and
    write nothing more.
    """

    def __init__(
        self,
        home: Path,
        catalogue: DatasetCatalog,
        client: RayJobsClient,
        *,
        slots: int,
        resources: WorkerResources,
        card: str = "full",
        environ_of_workers: Mapping[str, str] = MappingProxyType({}),
        kept_secrets: Collection[str] = (),
        poll_s: float = POLL_INTERVAL_S,
        **options: Unpack[JobFolderOptions],
    ) -> None:
        """`kept_secrets` are the names of secrets that trainers get from their node, besides
        `TRAINER_SECRETS`.
        """
        super().__init__(home, catalogue, **options)
        self.slots = slots
        self._client = client
        self._poll_s = poll_s
        self._resources = resources
        self._card = card
        self._environ_of_workers = {
            **environ_of_workers,
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
        }
        self._kept_secrets = sorted({*TRAINER_SECRETS, *kept_secrets})
        self._home_id = home_id(home)
        self._runs: dict[str, _RayRun] = {}
        self._sweep: asyncio.Task[None] | None = None
        self._is_detached = False

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Train to the end on the cluster; a run that outlived the bot is followed, a finished one
        only installed.
        """
        run = self._runs[job.job_id] = _RayRun(job, on_event, self._poll_s)
        folder = self._home / "jobs" / job.job_id
        try:
            ended = await self._train(run, folder)
            if isinstance(ended, Done):
                return await self._install(job, folder, ended)
            await asyncio.to_thread(_fence_off, folder)
            return ended
        except _RunLeftError:
            if run.is_cancelled:
                await self._stop_run(job.job_id, folder)
            return TrainingInterrupted()
        except UnderstudyError as error:
            if isinstance(error, RunLimitError):
                await self._stop_run(job.job_id, folder)
            return TrainingFailed(error.message, error.advice, error.can_resume)
        except OSError as error:
            return disk_failure(error, self._home)
        finally:
            del self._runs[job.job_id]

    def cancel(self, job_id: str) -> None:
        """SIGTERM, and SIGKILL after `STOP_WAIT_S`; then Ray's record is deleted."""
        if run := self._runs.get(job_id):
            run.is_cancelled = True
            run.left.set()

    def detach(self) -> None:
        """Leave all runs to the cluster; one that is being stopped is stopped at the next start, if
        need be.
        """
        self._is_detached = True
        if self._sweep:
            self._sweep.cancel()
        for run in self._runs.values():
            run.left.set()

    def adopt(self, job_ids: Collection[str]) -> Collection[str]:
        """All of them; runs of other jobs, cancelled while the bot could not stop them, are stopped
        now.
        """
        self._is_detached = False
        self._sweep = asyncio.create_task(
            self._stop_others(frozenset(job_ids)), name="stop old Ray jobs"
        )
        return job_ids

    def hold(self, demand: PauseDemand) -> None:
        """Do nothing: replies and training are on different machines."""

    # -----------------------------------------------------------------------------------------
    # attempts

    async def _train(
        self, run: _RayRun, folder: Path
    ) -> Done | TrainingFailed | TrainingInterrupted:
        attempt = await asyncio.to_thread(read_attempt, folder)
        is_known = await self._is_known(run, folder, attempt)
        while True:
            try:
                if not is_known:
                    prepared = await self._prepare_folder(run.job, run.pause_for_erasure)
                    if not isinstance(prepared, Path):
                        return prepared
                    attempt = await asyncio.to_thread(begin_attempt, folder)
                    await run.ask(lambda attempt=attempt: self._submit(run.job, folder, attempt))  # type: ignore[misc]
                return await self._follow(run, folder, attempt)
            except _RunLostError as lost:
                log.warning("attempt %d of the job %s: %s", attempt.attempt, run.job.job_id, lost)
                is_known = False
                run.watch = None
                await run.pause()

    async def _is_known(self, run: _RayRun, folder: Path, attempt: JobAttempt) -> bool:
        """Tell whether a recorded attempt can be followed: it has finished, or the cluster knows
        it.
        """
        if await asyncio.to_thread(_is_finished, folder):
            return True
        if not attempt.attempt:
            return False
        submission_id = self._submission_id(run.job.job_id, attempt)
        return await run.ask(lambda: self._client.get(submission_id)) is not None

    def _submission_id(self, job_id: str, attempt: JobAttempt) -> str:
        return f"{self._home_id}-{job_id}-{attempt.attempt}"

    async def _submit(self, job: TrainingJob, folder: Path, attempt: JobAttempt) -> None:
        there = await asyncio.to_thread(
            folder.resolve
        )  # workers do not have the links of `link_shared_folders`
        options = (
            "--attempt",
            str(attempt.attempt),
            "--card",
            self._card,
            *self._resources.options,
        )
        command = (*self._resources.launcher, "run", str(there), *options)
        await self._client.submit(
            self._submission_id(job.job_id, attempt),
            worker_command(command, there / TRAINER_LOG_FILE, self._kept_secrets),
            cpus=self._resources.cpus,
            gpus=self._resources.gpus,
            environ=self._environ_of_workers,
            about=f"{job.name} {job.version}",
        )

    async def _follow(
        self, run: _RayRun, folder: Path, attempt: JobAttempt
    ) -> Done | TrainingFailed | TrainingInterrupted:
        """Follow an attempt to its end. The folder is asked before Ray, whose status may be wrong
        after a failover.

        Raises `RunLimitError` for one that hangs or takes too long since a worker took it, or the
        bot found it again.
        """
        submission_id = self._submission_id(run.job.job_id, attempt)
        events = EventFollower(folder / EVENTS_FILE, attempt.events_from)
        shown = [
            it
            for it in await asyncio.to_thread(events.read)
            if not isinstance(it, Estimate | Heartbeat)
        ]
        for event in shown[-1:]:  # of a run that was followed before, the latest
            run.on_event(event)
        while True:
            if await asyncio.to_thread(_is_finished, folder):
                return await self._finished(run, folder, events)
            found = await self._status(run, submission_id)
            if found and found.has_ended:
                await self._pass_on(run, events)
                if not await asyncio.to_thread(_is_finished, folder):
                    return await self._ended(run, folder, attempt, found, events)
            else:
                await run.pause()
                await self._pass_on(run, events)
                if found and found.status == "RUNNING":
                    run.watch = run.watch or RunWatch(self._limits, run.job.guild_id)
                    run.watch.require_time()

    async def _pass_on(self, run: _RayRun, events: EventFollower) -> None:
        for event in await asyncio.to_thread(events.read):
            if run.watch:
                run.watch.note(event)
            if not isinstance(event, Estimate | Heartbeat):
                run.on_event(event)

    async def _status(self, run: _RayRun, submission_id: str) -> RayJob | None:
        """Return the job as Ray sees it, None if Ray does not answer. Raises `_RunLostError` for an
        unknown job.
        """
        try:
            found = await self._client.get(submission_id)
        except (RayUnreachableError, RayRefusedError) as error:
            run.wait_for(f"{error.message} The run may go on.", error.advice)
            return None
        if found is None:
            raise _RunLostError("the cluster knows it no more: its head node was replaced")
        if found.status == "PENDING":
            advice = (
                "See `ray status`; lower TRAINER_SLOTS, TRAINER_GPUS or TRAINER_THREADS, or add a "
                "worker."
            )
            run.wait_for(f"Ray has no free worker with {self._resources.text}.", advice, "material")
        else:
            run.wait_for("")
        return found

    async def _finished(self, run: _RayRun, folder: Path, events: EventFollower) -> Done:
        """Return the `done` event; the adapter may be visible before it."""
        for _ in range(2):
            if isinstance(events.final, Done):
                return events.final
            await run.pause()
            await self._pass_on(run, events)
        return Done(adapter=str(folder / ADAPTER_FOLDER), seconds=events.seconds)

    async def _ended(
        self, run: _RayRun, folder: Path, attempt: JobAttempt, found: RayJob, events: EventFollower
    ) -> Done | TrainingFailed | TrainingInterrupted:
        """Classify the end of an attempt without an adapter. Raises `_RunLostError` if it got
        further before.
        """
        if found.status == "SUCCEEDED":
            return await self._succeeded(run, folder, events)
        if found.status == "STOPPED":
            return TrainingInterrupted("Somebody stopped the run's Ray job.")
        code = found.driver_exit_code
        log_file = folder / TRAINER_LOG_FILE
        if found.error_type in UNSCHEDULABLE_ERRORS:
            advice = f"The run needs a worker with {self._resources.text}: see `ray status`."
            return TrainingFailed(
                f"Ray could not start the run: {found.reason}", advice, can_resume=True
            )
        if code is None or code in (*SIGKILL_EXIT_CODES, *SIGTERM_EXIT_CODES):
            why = f"exit code {code}" if code else found.reason
            if await asyncio.to_thread(list_checkpoint_names, folder) - {*attempt.checkpoints}:
                raise _RunLostError(f"it was killed on its worker, after a new checkpoint: {why}")
            return TrainingInterrupted(
                f"The run was killed on its worker: {why}.", "See `ray status`."
            )
        if not (
            events.has_begun or (log_file.exists() and log_file.stat().st_size > attempt.log_from)
        ):
            error = (
                f"The trainer could not be started on the worker (exit code {code}): {found.reason}"
            )
            return TrainingFailed(error, WORKER_ADVICE, can_resume=True)
        final = events.final if isinstance(events.final, Failed) else None
        return classify_exit(code, final, log_file, attempt.log_from)

    async def _succeeded(
        self, run: _RayRun, folder: Path, events: EventFollower
    ) -> Done | TrainingFailed:
        """Wait for the adapter to become visible."""
        deadline = time.monotonic() + ADAPTER_TIMEOUT_S
        while time.monotonic() < deadline:
            if await asyncio.to_thread(_is_finished, folder):
                return await self._finished(run, folder, events)
            await run.pause()
        error = f"Ray reports that the run succeeded, but there is no adapter in {folder}."
        return TrainingFailed(error, WORKER_ADVICE, can_resume=True)

    # ------------------------------------------------------------------------------------------
    # stopping

    async def _stop_run(self, job_id: str, folder: Path) -> None:
        """End the latest attempt of a job for good: it is fenced first, then stopped, then
        deleted.
        """
        attempt = await asyncio.to_thread(read_attempt, folder)
        if attempt.attempt:
            await asyncio.to_thread(_fence_off, folder)
            await self._stop(self._submission_id(job_id, attempt))

    async def _stop(self, submission_id: str) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline and not self._is_detached:
            try:
                found = await self._client.get(submission_id)
                if found is None:
                    return
                if found.has_ended:
                    return await self._client.delete(submission_id)
                await self._client.stop(submission_id)
                if (
                    found.status == "PENDING"
                ):  # Ray stops it only once it has begun; its trainer ends by itself then
                    return
            except (RayUnreachableError, RayRefusedError) as error:
                log.warning("the Ray job %s cannot be stopped yet: %s", submission_id, error)
            await asyncio.sleep(self._poll_s)
        log.warning(
            "the Ray job %s has not ended; its trainer can write nothing more", submission_id
        )

    async def _stop_others(self, job_ids: Collection[str]) -> None:
        """Stop this home's runs of jobs that do not run any more, and earlier attempts of those
        that do.
        """
        prefix = f"{self._home_id}-"
        said = ""
        while True:
            try:
                for found in await self._client.list(prefix):
                    job_id, _, number = (
                        (found.submission_id or "").removeprefix(prefix).rpartition("-")
                    )
                    folder = self._home / "jobs" / job_id
                    attempt = await asyncio.to_thread(read_attempt, folder)
                    is_wanted = job_id in job_ids or job_id in self._runs
                    if not found.has_ended and not (is_wanted and number == str(attempt.attempt)):
                        log.info("the Ray job %s of an earlier run is stopped", found.submission_id)
                        if not is_wanted:
                            await asyncio.to_thread(_fence_off, folder)
                        await self._stop(found.submission_id or "")
                return
            except (UnderstudyError, OSError) as error:
                if str(error) != said:  # the same one every half minute would fill the log
                    log.warning("earlier Ray jobs cannot be looked for yet: %s", error)
                said = str(error)
            await asyncio.sleep(SWEEP_RETRY_S)


def _is_finished(folder: Path) -> bool:
    return (folder / ADAPTER_FOLDER / MANIFEST_FILE).exists()


def _fence_off(folder: Path) -> None:
    """Let no attempt so far write anything more, wherever it runs."""
    if folder.is_dir():
        begin_attempt(folder)


def open_ray_backend(
    settings: Settings, catalogue: DatasetCatalog, **options: Unpack[JobFolderOptions]
) -> RayBackend:
    """Create the backend that the settings describe. Raises `RequestError` if the shared folder
    cannot be used.
    """
    if settings.shared:
        link_shared_folders(settings.home, Path(settings.shared))
    wandb = {"WANDB_PROJECT": settings.wandb_project} if settings.trainer_wandb else {}
    return RayBackend(
        settings.home,
        catalogue,
        RayJobsClient(settings.ray_address, settings.ray_auth_token),
        slots=settings.trainer_slots,
        resources=worker_resources(settings),
        card=settings.trainer_card,
        environ_of_workers={**evaluation_environ(settings), **wandb},
        kept_secrets=("WANDB_API_KEY",) if settings.trainer_wandb else (),
        **options,
    )


def worker_resources(settings: Settings) -> WorkerResources:
    """Return the resources of a run; all of a worker's threads unless TRAINER_THREADS is set."""
    threads = settings.trainer_threads if "trainer_threads" in settings.model_fields_set else None
    return WorkerResources(threads, settings.trainer_gpus)
