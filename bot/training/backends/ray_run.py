"""One job's run on a Ray cluster, followed through the files in its folder to its end."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

from bot.store import TrainingJob
from bot.training.backend_protocol import OnEvent, TrainingFailed, TrainingInterrupted
from bot.training.backends.job_folder_backend import ERASURE_TEXT
from bot.training.backends.ray_attempts import RayAttempts
from bot.training.backends.ray_jobs import RayJob, RayRefusedError, RayUnreachableError
from bot.training.backends.run_end import SIGKILL_EXIT_CODES, SIGTERM_EXIT_CODES, classify_exit
from bot.training.backends.trainer_events import EventFileReader
from bot.training.run_limits import RunLimits, RunWatch
from bot.training.status_text import format_duration
from personas.home.adapters import MANIFEST_FILE
from personas.home.job_attempt import (
    EVENTS_FILE,
    TRAINER_LOG_FILE,
    JobAttempt,
    begin_attempt,
    list_checkpoint_names,
    read_attempt,
)
from personas.home.job_folder import ADAPTER_FOLDER
from personas.schemas.training_events import Done, Estimate, Failed, Heartbeat, Phase

REPORT_AFTER_S = 60.0
"""Time that a job may wait for a worker, or the cluster be silent, until that is shown."""
ADAPTER_TIMEOUT_S = 30.0
"""Time until an adapter that a worker has written must be visible here; network file systems
cache.
"""
UNSCHEDULABLE_ERRORS = (
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
    "RUNTIME_ENV_SETUP_FAILURE",
)
PENDING_ADVICE = (
    "See `ray status`; lower TRAINER_SLOTS, TRAINER_GPUS or TRAINER_THREADS, or add a worker."
)
WORKER_ADVICE = (
    "Workers need the folder at the same path, and a `python` with Understudy: see `python -m bot "
    "doctor`."
)
RunEnd = Done | TrainingFailed | TrainingInterrupted
Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


class RunLeftError(Exception):
    """The bot leaves a run: it was cancelled, or the bot ends."""


class RunLostError(Exception):
    """The attempt is gone through no fault of the job, and the next one can begin at once."""


class RayRun:
    """A job's run. `train` begins attempts, or follows the one that outlived the bot, until one of
    them ends the run.
    """

    def __init__(
        self,
        job: TrainingJob,
        folder: Path,
        attempts: RayAttempts,
        *,
        on_event: OnEvent,
        limits: RunLimits,
        poll_s: float,
    ) -> None:
        self.is_cancelled = False
        self._job = job
        self._folder = folder
        self._attempts = attempts
        self._on_event = on_event
        self._limits = limits
        self._poll_s = poll_s
        self._left = asyncio.Event()
        self._attempt = JobAttempt()
        self._events = EventFileReader(folder / EVENTS_FILE, 0)
        self._watch: RunWatch | None = None
        """That of the attempt, once a worker has taken it."""
        self._waiting_for = ""
        self._waiting_since = 0.0
        self._is_reported = False

    def leave(self) -> None:
        """Follow the run no longer: `train` raises `RunLeftError`."""
        self._left.set()

    async def train(
        self, prepare_folder: Callable[[], Awaitable[Path | TrainingFailed | TrainingInterrupted]]
    ) -> RunEnd:
        """Train to the end. Raises `RunLeftError`, `RunLimitError` and `RayRefusedError`."""
        self._attempt = await asyncio.to_thread(read_attempt, self._folder)
        is_known = await self._is_known()
        while True:
            try:
                if not is_known:
                    prepared = await prepare_folder()
                    if not isinstance(prepared, Path):
                        return prepared
                    self._attempt = await asyncio.to_thread(begin_attempt, self._folder)
                    await self._ask(lambda: self._attempts.submit(self._job, self._attempt))
                return await self._follow()
            except RunLostError as error:
                number = self._attempt.attempt
                log.warning("attempt %d of the job %s: %s", number, self._job.job_id, error)
                is_known = False
                self._watch = None
                await self._pause()

    async def pause_for_erasure(self) -> None:
        """Wait until the next poll, and show why. Raises `RunLeftError`."""
        self._wait_for(ERASURE_TEXT, phase="material")
        await self._pause()

    async def _is_known(self) -> bool:
        """Tell whether a recorded attempt can be followed: it has finished, or the cluster knows
        it.
        """
        if await self._is_finished():
            return True
        if not self._attempt.attempt:
            return False
        return await self._ask(lambda: self._attempts.client.get(self._submission_id)) is not None

    @property
    def _submission_id(self) -> str:
        return self._attempts.submission_id(self._job.job_id, self._attempt)

    # ------------------------------------------------------------------------------------ following

    async def _follow(self) -> RunEnd:
        """Follow an attempt to its end.

        The folder is asked before Ray: after a failover, Ray may report a finished run as failed,
        or know none. Raises `RunLimitError` for a run that hangs or takes too long since a worker
        took it, or the bot found it again.
        """
        # From the file, because Ray's logs start anew with each reader.
        self._events = EventFileReader(self._folder / EVENTS_FILE, self._attempt.events_from)
        await self._show_latest_event()
        while True:
            if await self._is_finished():
                return await self._finished()
            ray_job = await self._status()
            if ray_job and ray_job.has_ended:
                await self._pass_on_events()
                if not await self._is_finished():
                    return await self._ended(ray_job)
            else:
                await self._pause()
                await self._pass_on_events()
                if ray_job and ray_job.status == "RUNNING":
                    self._watch = self._watch or RunWatch(self._limits, self._job.guild_id)
                    self._watch.require_time()

    async def _show_latest_event(self) -> None:
        """Show the latest event alone of a run that was followed before."""
        events = await asyncio.to_thread(self._events.read)
        shown = [event for event in events if not isinstance(event, Estimate | Heartbeat)]
        if shown:
            self._on_event(shown[-1])

    async def _pass_on_events(self) -> None:
        for event in await asyncio.to_thread(self._events.read):
            if self._watch:
                self._watch.note(event)
            if not isinstance(event, Estimate | Heartbeat):
                self._on_event(event)

    async def _status(self) -> RayJob | None:
        """Return the job as Ray sees it, None if Ray does not answer. Raises `RunLostError` for an
        unknown job.
        """
        try:
            ray_job = await self._attempts.client.get(self._submission_id)
        except (RayUnreachableError, RayRefusedError) as error:
            self._wait_for(f"{error.message} The run may go on.", error.advice)
            return None
        if ray_job is None:
            raise RunLostError("the cluster knows it no more: its head node was replaced")
        if ray_job.status == "PENDING":
            resources = self._attempts.resources.text
            self._wait_for(f"Ray has no free worker with {resources}.", PENDING_ADVICE, "material")
        else:
            self._wait_for("")
        return ray_job

    # ----------------------------------------------------------------------------------------- ends

    async def _is_finished(self) -> bool:
        manifest = self._folder / ADAPTER_FOLDER / MANIFEST_FILE
        return await asyncio.to_thread(manifest.exists)

    async def _finished(self) -> Done:
        """Return the `done` event; the adapter may be visible before it."""
        for _ in range(2):
            if isinstance(self._events.final, Done):
                return self._events.final
            await self._pause()
            await self._pass_on_events()
        return Done(adapter=str(self._folder / ADAPTER_FOLDER), seconds=self._events.seconds)

    async def _ended(self, ray_job: RayJob) -> RunEnd:
        """Classify the end of an attempt without an adapter. Raises `RunLostError` if it got
        further before.
        """
        if ray_job.status == "SUCCEEDED":
            return await self._succeeded()
        if ray_job.status == "STOPPED":
            return TrainingInterrupted("Somebody stopped the run's Ray job.")
        if ray_job.error_type in UNSCHEDULABLE_ERRORS:
            advice = (
                f"The run needs a worker with {self._attempts.resources.text}: see `ray status`."
            )
            error = f"Ray could not start the run: {ray_job.reason}"
            return TrainingFailed(error, advice, can_resume=True)
        code = ray_job.driver_exit_code
        if code is None or code in (*SIGKILL_EXIT_CODES, *SIGTERM_EXIT_CODES):
            return await self._killed(f"exit code {code}" if code else ray_job.reason)
        log_file = self._folder / TRAINER_LOG_FILE
        has_logged = log_file.exists() and log_file.stat().st_size > self._attempt.log_from
        if not (self._events.has_begun or has_logged):
            error = (
                f"The trainer could not be started on the worker (exit code {code}): "
                f"{ray_job.reason}"
            )
            return TrainingFailed(error, WORKER_ADVICE, can_resume=True)
        final = None
        if isinstance(self._events.final, Failed):
            final = self._events.final
        return classify_exit(code, final, log_file, self._attempt.log_from)

    async def _succeeded(self) -> Done | TrainingFailed:
        """Wait for the adapter to become visible."""
        deadline = time.monotonic() + ADAPTER_TIMEOUT_S
        while time.monotonic() < deadline:
            if await self._is_finished():
                return await self._finished()
            await self._pause()
        error = f"Ray reports that the run succeeded, but there is no adapter in {self._folder}."
        return TrainingFailed(error, WORKER_ADVICE, can_resume=True)

    async def _killed(self, reason: str) -> TrainingInterrupted:
        """Count the attempt, unless it has stored a checkpoint: then the run makes progress."""
        checkpoints = await asyncio.to_thread(list_checkpoint_names, self._folder)
        if set(checkpoints) - set(self._attempt.checkpoints):
            raise RunLostError(f"it was killed on its worker, after a new checkpoint: {reason}")
        return TrainingInterrupted(
            f"The run was killed on its worker: {reason}.", "See `ray status`."
        )

    # -------------------------------------------------------------------------------------- waiting

    async def _pause(self) -> None:
        """Wait until the next poll. Raises `RunLeftError`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._left.wait(), self._poll_s)
        if self._left.is_set():
            raise RunLeftError

    async def _ask(self, request: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat a request until the cluster answers. Raises `RayRefusedError` and
        `RunLeftError`.
        """
        while True:
            try:
                answer = await request()
            except RayUnreachableError as error:
                self._wait_for(error.message, error.advice)
                await self._pause()
            else:
                self._wait_for("")
                return answer

    def _wait_for(
        self, reason: str, advice: str = "", phase: Literal["material", "training"] = "training"
    ) -> None:
        """Note what the run waits for, empty if for nothing; after `REPORT_AFTER_S` it is shown,
        with the advice.
        """
        now = time.monotonic()
        # One reason may follow another; what counts is how long the run waits altogether.
        if bool(reason) != bool(self._waiting_for):
            self._waiting_since = now
            self._is_reported = False
        self._waiting_for = reason
        waited_s = now - self._waiting_since
        if reason and waited_s >= REPORT_AFTER_S and not self._is_reported:
            self._is_reported = True
            log.warning("the job %s: %s", self._job.job_id, reason)
            detail = f"{reason} ({format_duration(waited_s)}) {advice}".strip()
            self._on_event(Phase(name=phase, detail=detail))
