"""The training queue: persistent, fair between guilds, as many runs at once as the backend has
slots.
"""

import asyncio
import logging
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bot.platform.clock import RETRY_DELAY_S, BackgroundTask, Clock
from bot.platform.localisation import gettext_lazy
from bot.store import JobResult, JobState, Store, StoreError, TrainingJob
from bot.training.backend_protocol import (
    RunResult,
    TrainingBackend,
    TrainingFailed,
    TrainingInterrupted,
    TrainingSucceeded,
)
from bot.training.card_completion import CardCompletions
from bot.training.guild_turns import GuildTurns, QueueConflictError, fair_order
from bot.training.store import NewTrainingJob
from bot.training.training_plan import TrainingPlan
from personas.cli_common import commands_as_typed
from personas.errors import RequestError, UnderstudyError
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import RunPosition, TrainerEvent

log = logging.getLogger(__name__)
JOB_STATE_TEXTS: dict[JobState, str] = {
    "queued": gettext_lazy("queued"),
    "running": gettext_lazy("running"),
    "done": gettext_lazy("done"),
    "failed": gettext_lazy("failed"),
    "cancelled": gettext_lazy("cancelled"),
}
WAITS_FOR_REVIEW_TEXT = gettext_lazy("waits to be read")
MAX_QUEUED_PER_GUILD = 20
MIN_LATE_S = 60.0
"""A run that has said nothing for so long, and for longer than it still takes as it said, is late."""
MAX_ATTEMPTS = 3  # counted when they begin: a run that kills the bot must not begin forever
OnChange = Callable[[TrainingJob], None]


def job_state_text(job: TrainingJob) -> str:
    """Return what people read in place of a job's state: a stop for its replies to be read is no
    failure.
    """
    return WAITS_FOR_REVIEW_TEXT if job.waits_for_review else JOB_STATE_TEXTS[job.state]


@dataclass
class Attempt:
    """An attempt at a job in this process.

    `is_running`: the backend has it. `is_interrupted`: the bot stops it, so that it does not count.
    `late_at`: when the time has passed that it said last it still takes.
    """

    job: TrainingJob
    token: str
    is_running: bool = False
    is_interrupted: bool = False
    late_at: float = math.inf
    task: asyncio.Task[None] = field(init=False)


class JobQueue:
    """Takes training jobs and runs them in turn, `backend.slots` at once. Use it from the event
    loop's thread.
    """

    def __init__(self, store: Store, backend: TrainingBackend, clock: Clock) -> None:
        self._store = store
        self._backend = backend
        self._clock = clock
        self._listeners: list[OnChange] = []
        self._wake = asyncio.Event()
        self._attempts: dict[str, Attempt] = {}
        # The number of each guild's last start: the machine's clock may be set back.
        self._starts: dict[int, int] = {}
        self._planning = GuildTurns(gettext_lazy("preview"))
        self._stopping = False
        self._may_start = asyncio.Event()
        self._may_start.set()
        self.worker = BackgroundTask("training queue", self._start_jobs, self._wake.wait, clock)
        self._cards = CardCompletions(
            store, backend, clock, publish=self.publish, on_end=self._wake.set
        )

    # ------------------------------------------------------------------------------------- requests

    def enqueue(
        self,
        request: TrainingRequest,
        *,
        guild_id: int,
        channel_id: int,
        requested_by: int,
        job_id: str = "",
    ) -> TrainingJob:
        """Queue a job, under a new id unless one is given. Once this returns, the job survives a
        crash.

        Raises an `UnderstudyError`, and stores nothing, when the request cannot be run here, when
        the guild has an unfinished job for the same persona, or too many queued ones.
        """
        new = NewTrainingJob(
            job_id or secrets.token_hex(5),
            guild_id,
            channel_id=channel_id,
            requested_by=requested_by,
            request=request,
        )
        self.check(request, guild_id)
        job = self._store.jobs.add(new, self._clock.now())
        self.publish(job)
        self._wake.set()
        return job

    def check(self, request: TrainingRequest, guild_id: int) -> None:
        """Raise what `enqueue` would; nothing is stored."""
        self._backend.check(request, guild_id)
        if conflict := self.conflict(request, guild_id):
            raise conflict

    def conflict(self, request: TrainingRequest, guild_id: int = 0) -> QueueConflictError | None:
        """Return the conflict of a valid request with other jobs, if there is one."""
        name = NewTrainingJob("", guild_id, channel_id=0, requested_by=0, request=request).name
        queued = self._store.jobs.in_state("queued")
        for job in [*queued, *self._store.jobs.in_state("running")]:
            # Two guilds may train the same persona, each its own version; a dialogue adapter's name
            # is its folder.
            if job.name == name and (job.guild_id == guild_id or job.persona is None):
                message = gettext_lazy(
                    "The job {job} for {name} is {state} already.",
                    job=job.job_id,
                    name=job.name,
                    state=JOB_STATE_TEXTS[job.state],
                )
                return QueueConflictError(message, gettext_lazy("Wait, or cancel it."))
        if sum(job.guild_id == guild_id for job in queued) >= MAX_QUEUED_PER_GUILD:
            message = gettext_lazy(
                "{count} jobs of this server are queued, which is the limit.",
                count=MAX_QUEUED_PER_GUILD,
            )
            return QueueConflictError(message, gettext_lazy("Wait, or cancel one of them."))
        return None

    def cancel(self, job_id: str) -> TrainingJob:
        """Cancel a queued or running job, or what is left of a finished one's score card; a trainer
        stops within seconds. Raises `RequestError` for other jobs.
        """
        cancelled = self._store.jobs.cancel(job_id, self._clock.now())
        if cancelled is None and (done := self._cards.cancel(job_id)):
            return done
        if cancelled is None:
            job = self._store.jobs.get(job_id)
            message = gettext_lazy("The job {job} does not exist.", job=job_id)
            if job:
                message = gettext_lazy(
                    "The job {job} is {state} already.",
                    job=job_id,
                    state=JOB_STATE_TEXTS[job.state],
                )
            raise QueueConflictError(
                message, gettext_lazy("Only a queued or running job can be cancelled.")
            )
        self._stop_attempt(job_id)
        self.publish(cancelled)
        return cancelled

    def resume(self, job_id: str) -> TrainingJob:
        """Queue a failed job again, from its last checkpoint. Raises an `UnderstudyError` if that
        is not possible.
        """
        job = self._store.jobs.get(job_id)
        if job is None or not job.can_resume:
            message = gettext_lazy("The job {job} does not exist.", job=job_id)
            if job:
                message = gettext_lazy(
                    "The job {job} is {state}.", job=job_id, state=JOB_STATE_TEXTS[job.state]
                )
            raise QueueConflictError(
                message,
                gettext_lazy("Only jobs that failed for a fixable reason can be resumed."),
            )
        self.check(job.request, job.guild_id)
        # Before it may run: otherwise it would stop for the same replies again.
        if job.waits_for_review:
            self._backend.accept_written(job_id)
        resumed = self._store.jobs.resume(job_id)
        assert resumed is not None  # nothing else has run since the check
        self.publish(resumed)
        self._wake.set()
        return resumed

    def position(self, job_id: str) -> int | None:
        """Position in the queue: 1 is the next. None for a job that is not queued."""
        job_ids = [job.job_id for job in self.waiting()]
        return job_ids.index(job_id) + 1 if job_id in job_ids else None

    def is_late(self, job_id: str) -> bool:
        """Report whether a running job takes longer than it said last, and has said nothing since."""
        attempt = self._attempts.get(job_id)
        return attempt is not None and self._clock.now() > attempt.late_at

    def waiting(self) -> list[TrainingJob]:
        """The queued jobs in the order in which they would start."""
        return fair_order(self._store.jobs.in_state("queued"), self._last_served())

    def _last_served(self) -> dict[int, tuple[int, float]]:
        served = self._store.jobs.last_served()
        return {guild_id: (self._starts.get(guild_id, 0), at) for guild_id, at in served.items()}

    @property
    def trains_on_cpu(self) -> bool:
        """Report whether trainings are computed by a processor, where they take long."""
        return self._backend.trains_on_cpu

    @property
    def is_held(self) -> bool:
        """Report whether the queue is on hold: see `hold`."""
        return not self._may_start.is_set()

    def position_for_guild(self, guild_id: int) -> int:
        """Position that a new job of this guild would have; the running job does not count."""
        waiting = self.waiting()
        if not waiting:
            return 1
        new = replace(waiting[0], seq=max(job.seq for job in waiting) + 1, guild_id=guild_id)
        by_age = sorted(waiting, key=lambda job: job.seq)
        return fair_order([*by_age, new], self._last_served()).index(new) + 1

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> TrainingPlan:
        """Plan a run without queueing it, in turn. Raises an `UnderstudyError` where it could not
        be run.
        """
        self._backend.check(request, guild_id)
        async with self._planning.of(guild_id):
            return await self._backend.plan(request, guild_id)

    # --------------------------------------------------------------------------------------- worker

    def start(self) -> None:
        """Start the worker, with interrupted jobs first. Does nothing when started."""
        if not self.worker.is_running:
            self._stopping = False
            self._adopt_runs()
            self.worker.start()

    def _adopt_runs(self) -> None:
        """Release the attempts whose runs may have outlived a killed bot: they are followed and do
        not count again.
        """
        running = {job.job_id: job for job in self._store.jobs.in_state("running")}
        for job_id in self._backend.adopt(list(running)):
            if token := running[job_id].attempt_token:
                self._store.jobs.release(job_id, token)

    async def stop(self) -> None:
        """Stop the worker and leave its runs; they are resumed at the next start. May be called
        twice.
        """
        if not self.worker.is_running:
            return
        self._stopping = True
        self._cards.make_way()
        self._backend.detach()
        for attempt in self._attempts.values():
            if not attempt.is_running:
                attempt.task.cancel()
        await self.worker.stop()
        await self._cards.stop()
        tasks = [attempt.task for attempt in self._attempts.values()]
        if tasks:
            await asyncio.wait(tasks)

    def hold(self) -> None:
        """Start no further job until `go_on`."""
        self._may_start.clear()

    def go_on(self) -> None:
        """Start jobs again."""
        self._may_start.set()
        self._wake.set()

    async def interrupt(self, job_id: str) -> None:
        """Stop the trainer if it runs this job; the attempt does not count, and the job is run
        again.
        """
        await self._cards.interrupt(job_id)
        if attempt := self._attempts.get(job_id):
            attempt.is_interrupted = True
            self._stop_attempt(job_id)
            await asyncio.wait({attempt.task})

    def _stop_attempt(self, job_id: str) -> None:
        """Stop the attempt at a job, if there is one."""
        attempt = self._attempts.get(job_id)
        if attempt is None:
            return
        if attempt.is_running:
            self._backend.cancel(job_id)
        else:  # it has not begun, or waits after its end could not be stored
            attempt.task.cancel()

    async def _start_jobs(self) -> None:
        self._wake.clear()
        await self._may_start.wait()
        # A training comes first, and never runs beside the measuring of a score card.
        if self._cards.is_running:
            if self._next():
                self._cards.make_way()
            return
        while len(self._attempts) < self._backend.slots and (job := self._next()):
            if attempt := self._claim(job):
                self._start_attempt(attempt)
        if not self._attempts:
            self._cards.start_next()

    def _next(self) -> TrainingJob | None:
        """The job to start next. One in the state `running` without an attempt here was
        interrupted.
        """
        for job in [*self._store.jobs.in_state("running"), *self.waiting()]:
            if job.job_id not in self._attempts:
                return job
        return None

    def _claim(self, job: TrainingJob) -> Attempt | None:
        """Begin an attempt. Returns None for a job that has failed instead, or was cancelled
        meanwhile.
        """
        if job.attempt >= MAX_ATTEMPTS:
            message = (
                f"The training was interrupted {job.attempt} times, mostly because the bot was "
                "killed."
            )
            advice = "Resume it. If the bot is killed again, check the machine's memory."
            self._fail(job, TrainingFailed(message, advice, can_resume=True))
            return None
        try:
            request = job.request.model_dump_json(exclude_defaults=True)
        except RequestError as error:  # an invalid row must not block the other jobs
            self._fail(job, TrainingFailed(error.message, error.advice))
            return None
        attempt = f"attempt {job.attempt + 1} of {MAX_ATTEMPTS}"
        log.info("the job %s begins, %s: %s", job.job_id, attempt, request)
        token = secrets.token_hex(8)
        claimed = self._store.jobs.claim(job, token, self._clock.now())
        if claimed is None:
            return None
        self._starts[job.guild_id] = 1 + max(self._starts.values(), default=0)
        self.publish(claimed)
        return Attempt(claimed, token)

    def _start_attempt(self, attempt: Attempt) -> None:
        job_id = attempt.job.job_id

        def on_end(_: asyncio.Task[None]) -> None:
            del self._attempts[job_id]
            self._wake.set()

        attempt.task = asyncio.create_task(self._attempt(attempt), name=f"job {job_id}")
        self._attempts[job_id] = attempt
        attempt.task.add_done_callback(on_end)

    async def _attempt(self, attempt: Attempt) -> None:
        try:
            result = await self._run(attempt)
            self._store_result(attempt, result)
        except Exception:
            # Mostly a full disk. Attempts are counted when they begin, so no job fails here forever.
            log.exception("the end of the job %s could not be stored", attempt.job.job_id)
            if not self._stopping:
                await self._clock.sleep(RETRY_DELAY_S)

    async def _run(self, attempt: Attempt) -> RunResult:
        attempt.is_running = True
        try:
            return await self._backend.run(
                attempt.job, lambda event: self._store_event(attempt, event)
            )
        except UnderstudyError as error:
            return TrainingFailed(error.message, error.advice)
        except Exception as error:  # a bug in a backend ends one job, not the queue
            log.exception("the job %s failed unexpectedly", attempt.job.job_id)
            return TrainingFailed(
                f"{type(error).__name__}: {error}", "This is a fault of the bot; its log says more."
            )
        finally:
            attempt.is_running = False

    def _store_event(self, attempt: Attempt, event: TrainerEvent) -> None:
        job_id = attempt.job.job_id
        if isinstance(event, RunPosition):
            left_s = event.most_left_s or event.left_s
            attempt.late_at = math.inf
            if left_s is not None:
                attempt.late_at = self._clock.now() + max(MIN_LATE_S, left_s)
        try:
            changed = self._store.jobs.report(job_id, attempt.token, event)
        except StoreError as error:  # a full disk must not end a training: its progress may be lost
            log.warning("the progress of the job %s could not be stored: %s", job_id, error)
            return
        self.publish(changed)

    def _store_result(self, attempt: Attempt, result: RunResult) -> None:
        """Store how the attempt ended. A job that was cancelled meanwhile stays cancelled."""
        match result:
            case TrainingSucceeded():
                self._complete(attempt, result)
            case TrainingFailed():
                self._fail(attempt.job, result)
            case TrainingInterrupted():
                self._end_interrupted(attempt, result)

    def _complete(self, attempt: Attempt, success: TrainingSucceeded) -> None:
        result = JobResult(
            adapter=str(success.adapter),
            seconds=success.seconds,
            scorecard=success.scorecard,
            epochs=success.epochs,
        )
        jobs = self._store.jobs
        self.publish(jobs.complete(attempt.job.job_id, attempt.token, result, self._clock.now()))

    def _fail(self, job: TrainingJob, failure: TrainingFailed) -> None:
        failed = self._store.jobs.fail(
            job,
            failure.error,
            commands_as_typed(failure.advice),
            self._clock.now(),
            can_resume=failure.can_resume,
        )
        self.publish(failed)

    def _end_interrupted(self, attempt: Attempt, interruption: TrainingInterrupted) -> None:
        job = attempt.job
        if self._stopping or attempt.is_interrupted:
            self.publish(self._store.jobs.release(job.job_id, attempt.token))
        elif job.attempt >= MAX_ATTEMPTS:
            message = f"{interruption.why} That was attempt {job.attempt}.".strip()
            self._fail(job, TrainingFailed(message, interruption.advice, can_resume=True))
        elif interruption.why:
            # Nothing is stored: the job's state is still running, so it is run again. One that was
            # cancelled has no reason.
            log.warning(
                "the job %s was interrupted in attempt %d. %s",
                job.job_id,
                job.attempt,
                interruption.why,
            )

    # -------------------------------------------------------------------------------------- changes

    def subscribe(self, on_change: OnChange) -> None:
        """Call `on_change`, which must not block, at every change of a job, progress included."""
        self._listeners.append(on_change)

    def unsubscribe(self, on_change: OnChange) -> None:
        """End a subscription."""
        self._listeners.remove(on_change)

    def publish(self, changed: TrainingJob | None) -> None:
        """Notify the subscribers of a changed job; does nothing for None."""
        if changed is None:
            return
        for listener in list(self._listeners):
            try:
                listener(changed)
            except Exception:  # a listener must not affect the job
                log.exception("a listener failed on the job %s", changed.job_id)
