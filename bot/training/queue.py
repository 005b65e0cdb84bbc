"""The training queue: persistent, fair between guilds, as many runs at once as the backend has
slots.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from bot.platform.clock import RETRY_DELAY_S, BackgroundTask, Clock
from bot.store import JobResult, Store, StoreError, TrainingJob
from bot.training.store import NewTrainingJob
from bot.training.training_plan import TrainingPlan
from personas.errors import RequestError, UnderstudyError
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Epoch, PauseDemand, ScoreSummary, TrainerEvent

log = logging.getLogger(__name__)
MAX_QUEUED_PER_GUILD = 20
MAX_ATTEMPTS = 3
OnChange = Callable[[TrainingJob], None]
OnEvent = Callable[[TrainerEvent], None]


@dataclass(frozen=True)
class TrainingSucceeded:
    """The adapter is verified and installed. `seconds` is the run's duration."""

    adapter: Path
    seconds: float
    scorecard: ScoreSummary
    epochs: tuple[Epoch, ...] = ()


@dataclass(frozen=True)
class TrainingFailed:
    """The run ended without an adapter. `can_resume`: once the cause is fixed, the job can be
    resumed.
    """

    error: str
    advice: str = ""
    can_resume: bool = False


@dataclass(frozen=True)
class TrainingInterrupted:
    """The run was stopped before its end and can be run again; `why` and `advice` are for when it
    cannot.
    """

    why: str = ""
    advice: str = ""


RunResult = TrainingSucceeded | TrainingFailed | TrainingInterrupted


class TrainingBackend(Protocol):
    """Backend that runs trainings."""

    slots: int
    """Number of runs at once."""

    def check(self, request: TrainingRequest, guild_id: int = 0) -> None:
        """Raise an `UnderstudyError` when the server's request could not be run here; changes
        nothing.
        """
        ...

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> TrainingPlan:
        """Plan a run; changes nothing. Raises an `UnderstudyError` where it could not be run."""
        ...

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Train to the end. A job that was run before, even to the end, may be run again.

        A run of this attempt that still goes on, because the bot was restarted, is followed
        instead.
        """
        ...

    def cancel(self, job_id: str) -> None:
        """Stop a job's run, if there is one; it ends as `TrainingInterrupted`. May be called
        twice.
        """
        ...

    def detach(self) -> None:
        """Leave all runs, because the bot ends: each `run` returns `TrainingInterrupted`.

        A trainer on this machine stops; one elsewhere goes on and is found again by the next `run`
        of its attempt.
        """
        ...

    def adopt(self, job_ids: Collection[str]) -> Collection[str]:
        """Return which of these jobs' runs may have outlived the bot; end all others that did.

        To be called once before `run`, with the jobs that were running when the bot ended.
        """
        ...

    def hold(self, demand: PauseDemand) -> None:
        """Pause or continue the runs while replies are generated; a paused run still makes
        progress.
        """
        ...


def fair_order(
    waiting: Sequence[TrainingJob], last_served: Mapping[int, tuple[int, float]]
) -> list[TrainingJob]:
    """The order in which waiting jobs, given oldest first, will start: guilds take turns.

    Each guild's first job comes before any guild's second; among those, the guild served longest
    ago comes first, then the oldest job. `last_served` has the number of a guild's last start in
    this process, 0 without one, and its time.
    """
    oldest: dict[int, int] = {}
    turns: Counter[int] = Counter()
    keys = {}
    for job in waiting:
        oldest.setdefault(job.guild_id, job.seq)
        keys[job.seq] = (
            turns[job.guild_id],
            last_served.get(job.guild_id, (0, 0.0)),
            oldest[job.guild_id],
        )
        turns[job.guild_id] += 1
    return sorted(waiting, key=lambda job: keys[job.seq])


class QueueConflictError(RequestError):
    """The request is valid, but conflicts with other jobs."""


class GuildTurns:
    """Lets one of the processes run at a time that servers ask for, and each server wait for one of
    them.
    """

    def __init__(self, what: str) -> None:
        """`what` names what a server waits for: "preview"."""
        self._what, self._turn, self._guilds = what, asyncio.Lock(), set[int]()

    @asynccontextmanager
    async def of(self, guild_id: int) -> AsyncIterator[None]:
        """Wait for the turn; the operator (guild 0) may wait for several. Raises
        `QueueConflictError`.
        """
        if guild_id in self._guilds:
            raise QueueConflictError(
                f"Another {self._what} of this server is not done yet.", "Wait for its end."
            )
        owned = {guild_id} - {OPERATOR_GUILD_ID}
        self._guilds |= owned
        try:
            async with self._turn:
                yield
        finally:
            self._guilds -= owned


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
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._running: set[str] = set()  # of the attempts, those that the backend has
        self._interrupted: set[str] = set()
        self._starts: dict[
            int, int
        ] = {}  # number of each guild's last start: the machine's clock may be set meanwhile
        self._planning = GuildTurns("preview")
        self._stopping = False
        self._may_start = asyncio.Event()
        self._may_start.set()
        self.worker = BackgroundTask("training queue", self._start_jobs, self._wake.wait, clock)

    # ----------------------------------------------------------------------------------------
    # requests

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
            job_id or secrets.token_hex(5), guild_id, channel_id, requested_by, request
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
        name = NewTrainingJob("", guild_id, 0, 0, request).name
        queued = self._store.jobs.in_state("queued")
        running = self._store.jobs.in_state("running")
        for job in [*queued, *running]:
            # Two guilds may train the same persona, each its own version; a dialogue adapter's name
            # is its folder.
            if job.name == name and (job.guild_id == guild_id or job.persona is None):
                message = f"The job {job.job_id} for {job.name} is {job.state} already."
                return QueueConflictError(message, "Wait, or cancel it.")
        if sum(job.guild_id == guild_id for job in queued) >= MAX_QUEUED_PER_GUILD:
            message = f"{MAX_QUEUED_PER_GUILD} jobs of this server are queued, which is the limit."
            return QueueConflictError(message, "Wait, or cancel one of them.")
        return None

    def cancel(self, job_id: str) -> TrainingJob:
        """Cancel a queued or running job; a trainer stops within seconds. Raises `RequestError` for
        other jobs.
        """
        cancelled = self._store.jobs.cancel(job_id, self._clock.now())
        if cancelled is None:
            job = self._store.jobs.get(job_id)
            state = f"is {job.state} already" if job else "does not exist"
            raise QueueConflictError(
                f"The job {job_id} {state}.", "Only a queued or running job can be cancelled."
            )
        self._end_attempt(job_id)
        self.publish(cancelled)
        return cancelled

    def resume(self, job_id: str) -> TrainingJob:
        """Queue a failed job again, from its last checkpoint. Raises an `UnderstudyError` if that
        is not possible.
        """
        job = self._store.jobs.get(job_id)
        if job is None or not job.can_resume:
            state = f"is {job.state}" if job else "does not exist"
            advice = "Only jobs that failed for a fixable reason can be resumed."
            raise QueueConflictError(f"The job {job_id} {state}.", advice)
        self.check(job.request, job.guild_id)
        resumed = self._store.jobs.resume(job_id)
        assert resumed is not None  # nothing else has run since the check
        self.publish(resumed)
        self._wake.set()
        return resumed

    def position(self, job_id: str) -> int | None:
        """Position in the queue: 1 is the next. None for a job that is not queued."""
        job_ids = [job.job_id for job in self.waiting()]
        return job_ids.index(job_id) + 1 if job_id in job_ids else None

    def waiting(self) -> list[TrainingJob]:
        """The queued jobs in the order in which they would start."""
        return fair_order(self._store.jobs.in_state("queued"), self._last_served())

    def _last_served(self) -> dict[int, tuple[int, float]]:
        return {
            guild: (self._starts.get(guild, 0), at)
            for guild, at in self._store.jobs.last_served().items()
        }

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

    def subscribe(self, on_change: OnChange) -> None:
        """Call `on_change`, which must not block, at every change of a job, progress included."""
        self._listeners.append(on_change)

    def unsubscribe(self, on_change: OnChange) -> None:
        """End a subscription."""
        self._listeners.remove(on_change)

    # ----------------------------------------------------------------------------------------
    # worker

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
        self._backend.detach()
        for job_id in self._attempts.keys() - self._running:
            self._attempts[job_id].cancel()
        await self.worker.stop()
        if self._attempts:
            await asyncio.wait(self._attempts.values())

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
        if attempt := self._attempts.get(job_id):
            self._interrupted.add(job_id)
            self._end_attempt(job_id)
            await asyncio.wait({attempt})

    async def _start_jobs(self) -> None:
        self._wake.clear()
        await self._may_start.wait()
        while len(self._attempts) < self._backend.slots and (job := self._next()):
            if claimed := self._claim(job):
                self._start_attempt(claimed)

    def _next(self) -> TrainingJob | None:
        """The job to start next. One in the state `running` without an attempt here was
        interrupted.
        """
        candidates = [*self._store.jobs.in_state("running"), *self.waiting()]
        return next((job for job in candidates if job.job_id not in self._attempts), None)

    def _start_attempt(self, job: TrainingJob) -> None:
        def on_end(_: asyncio.Task[None]) -> None:
            del self._attempts[job.job_id]
            self._interrupted.discard(job.job_id)
            self._wake.set()

        task = asyncio.create_task(self._attempt(job), name=f"job {job.job_id}")
        self._attempts[job.job_id] = task
        task.add_done_callback(on_end)

    async def _attempt(self, job: TrainingJob) -> None:
        try:
            self._store_result(job, await self._run(job))
        except (
            Exception
        ):  # mostly a full disk; attempts are counted first, so no job fails here forever
            log.exception("the end of the job %s could not be stored", job.job_id)
            if not self._stopping:
                await self._clock.sleep(RETRY_DELAY_S)

    def _end_attempt(self, job_id: str) -> None:
        """Stop the attempt of a job, wherever it is; does nothing without one."""
        if job_id in self._running:
            self._backend.cancel(job_id)
        elif (
            job_id in self._attempts
        ):  # it has not begun, or waits after its end could not be stored
            self._attempts[job_id].cancel()

    def _claim(self, job: TrainingJob) -> TrainingJob | None:
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
            log.info(
                "the job %s begins, attempt %d of %d: %s",
                job.job_id,
                job.attempt + 1,
                MAX_ATTEMPTS,
                request,
            )
        except RequestError as error:  # an invalid row must not block the other jobs
            self._fail(job, TrainingFailed(error.message, error.advice))
            return None
        claimed = self._store.jobs.claim(job, secrets.token_hex(8), self._clock.now())
        if claimed:
            self._starts[job.guild_id] = 1 + max(self._starts.values(), default=0)
        self.publish(claimed)
        return claimed

    async def _run(self, job: TrainingJob) -> RunResult:
        self._running.add(job.job_id)
        try:
            return await self._backend.run(job, lambda event: self._report(job, event))
        except UnderstudyError as error:
            return TrainingFailed(error.message, error.advice)
        except Exception as error:  # a bug in a backend ends one job, not the queue
            log.exception("the job %s failed unexpectedly", job.job_id)
            return TrainingFailed(
                f"{type(error).__name__}: {error}", "This is a fault of the bot; its log says more."
            )
        finally:
            self._running.discard(job.job_id)

    def _report(self, job: TrainingJob, event: TrainerEvent) -> None:
        try:
            changed = self._store.jobs.report(job.job_id, _attempt_token(job), event)
        except StoreError as error:  # a full disk must not end a training: its progress may be lost
            log.warning("the progress of the job %s could not be stored: %s", job.job_id, error)
            return
        self.publish(changed)

    def _store_result(self, job: TrainingJob, result: RunResult) -> None:
        """Store how the attempt ended. A job that was cancelled meanwhile stays cancelled."""
        match result:
            case TrainingSucceeded(adapter, seconds, scorecard, epochs):
                done = JobResult(
                    adapter=str(adapter), seconds=seconds, scorecard=scorecard, epochs=epochs
                )
                self.publish(
                    self._store.jobs.complete(
                        job.job_id, _attempt_token(job), done, self._clock.now()
                    )
                )
            case TrainingFailed():
                self._fail(job, result)
            case TrainingInterrupted() if self._stopping or job.job_id in self._interrupted:
                self.publish(self._store.jobs.release(job.job_id, _attempt_token(job)))
            case TrainingInterrupted(why, advice) if job.attempt >= MAX_ATTEMPTS:
                message = f"{why} That was attempt {job.attempt}.".strip()
                self._fail(job, TrainingFailed(message, advice, can_resume=True))
            case TrainingInterrupted(why):
                # Cancelled; or ended from outside: then its state is still running, and it is run
                # again.
                if why:
                    log.warning(
                        "the job %s was interrupted in attempt %d. %s", job.job_id, job.attempt, why
                    )

    def _fail(self, job: TrainingJob, failure: TrainingFailed) -> None:
        now = self._clock.now()
        can_resume = failure.can_resume
        self.publish(
            self._store.jobs.fail(job, failure.error, failure.advice, now, can_resume=can_resume)
        )

    def take_up(self, job_id: str) -> None:
        """React to a job that another process of the bot has queued, changed or cancelled."""
        job = self._store.jobs.get(job_id)
        if job and job.state == "cancelled":
            self._end_attempt(job_id)
        self.publish(job)
        self._wake.set()

    def publish(self, changed: TrainingJob | None) -> None:
        """Notify the subscribers of a changed job; does nothing for None."""
        if changed is None:
            return
        for listener in list(self._listeners):
            try:
                listener(changed)
            except Exception:  # a listener must not affect the job
                log.exception("a listener failed on the job %s", changed.job_id)


def _attempt_token(job: TrainingJob) -> str:
    assert job.attempt_token is not None  # a claimed job has one
    return job.attempt_token
