"""The training queue: persistent, fair between guilds, one trainer at a time."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bot.clock import Clock
from bot.store import JobResult, Store, StoreError, TrainingJob
from bot.store.training_jobs import NewTrainingJob
from bot.training.subprocess_backend import (
    RunResult,
    TrainingBackend,
    TrainingFailed,
    TrainingInterrupted,
    TrainingSucceeded,
)
from bot.training.training_plan import TrainingPlan
from personas.errors import RequestError, UnderstudyError
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import TrainerEvent

log = logging.getLogger(__name__)
MAX_QUEUED_PER_GUILD = 20
MAX_ATTEMPTS = 3
STOP_POLL_INTERVAL_S = 0.05
RETRY_DELAY_S = 30.0  # delay before the worker tries again, for instance when the database cannot be written
OnChange = Callable[[TrainingJob], None]


def fair_order(waiting: Sequence[TrainingJob], last_served: Mapping[int, float]) -> list[TrainingJob]:
    """The order in which waiting jobs, given oldest first, will start.

    The guild that was served longest ago comes first, then age; so guilds take turns, and a guild's first jobs all
    come before anybody's second.
    """
    oldest: dict[int, int] = {}
    turns: Counter[int] = Counter()
    keys = {}
    for job in waiting:
        oldest.setdefault(job.guild_id, job.seq)
        keys[job.seq] = (turns[job.guild_id], last_served.get(job.guild_id, 0.0), oldest[job.guild_id])
        turns[job.guild_id] += 1
    return sorted(waiting, key=lambda job: keys[job.seq])


class QueueConflictError(RequestError):
    """The request is in order, but other jobs stand in its way."""


class JobQueue:
    """Takes training jobs and runs them one after another. Use it from the event loop's thread."""

    def __init__(self, store: Store, backend: TrainingBackend, clock: Clock) -> None:
        self._store, self._backend, self._clock = store, backend, clock
        self._listeners: list[OnChange] = []
        self._wake = asyncio.Event()
        self._running: str | None = None
        self._stopping = False
        self._set_aside: str | None = None
        self._free = asyncio.Event()
        self._free.set()
        self._worker: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------------------------------- asking for work

    def enqueue(
        self, request: TrainingRequest, *, guild_id: int, channel_id: int, requested_by: int, job_id: str = ""
    ) -> TrainingJob:
        """Queue a job, under a new id unless one is given. Once this returns, the job survives a crash.

        Raises an `UnderstudyError`, and stores nothing, when the request cannot be run here, when the guild has an
        unfinished job for the same persona, or too many queued ones.
        """
        new = NewTrainingJob(job_id or secrets.token_hex(5), guild_id, channel_id, requested_by, request)
        self.check(request, guild_id)
        job = self._store.jobs.add(new, self._clock.now())
        self.publish(job)
        self._wake.set()
        return job

    def check(self, request: TrainingRequest, guild_id: int) -> None:
        """Raise what `enqueue` would; nothing is stored."""
        self._backend.check(request, guild_id)
        if found := self.conflict(request, guild_id):
            raise found

    def conflict(self, request: TrainingRequest, guild_id: int = 0) -> QueueConflictError | None:
        """Find what in the queue conflicts with a valid request; None where nothing does."""
        name = NewTrainingJob("", guild_id, 0, 0, request).name
        queued, running = self._store.jobs.in_state("queued"), self._store.jobs.in_state("running")
        for job in [*queued, *running]:
            # Two guilds may train the same persona, each its own version; a dialogue adapter's name is its place.
            if job.name == name and (job.guild_id == guild_id or job.persona is None):
                already = f"The job {job.job_id} for {job.name} is {job.state} already."
                return QueueConflictError(already, "Wait, or cancel it.")
        if sum(job.guild_id == guild_id for job in queued) >= MAX_QUEUED_PER_GUILD:
            most = f"{MAX_QUEUED_PER_GUILD} jobs of this server are queued, which is the most."
            return QueueConflictError(most, "Wait, or cancel one of them.")
        return None

    def cancel(self, job_id: str) -> TrainingJob:
        """End a queued or running job for good; a running trainer stops within seconds.

        Raises `RequestError` when there is no such job or it has ended.
        """
        cancelled = self._store.jobs.cancel(job_id, self._clock.now())
        if cancelled is None:
            job = self._store.jobs.get(job_id)
            state = f"is {job.state} already" if job else "does not exist"
            raise QueueConflictError(f"The job {job_id} {state}.", "Only a queued or running job can be cancelled.")
        if job_id == self._running:
            self._backend.cancel()
        self.publish(cancelled)
        return cancelled

    def resume(self, job_id: str) -> TrainingJob:
        """Queue a job again that has failed and can go on: from its last checkpoint, where it has come so far.

        Raises an `UnderstudyError` when there is no such job, or it cannot be run here now.
        """
        job = self._store.jobs.get(job_id)
        if job is None or not job.can_resume:
            state = f"is {job.state}" if job else "does not exist"
            raise QueueConflictError(
                f"The job {job_id} {state}.", "Resumed can be what failed for a reason that somebody can mend."
            )
        self.check(job.request, job.guild_id)
        resumed = self._store.jobs.resume(job_id)
        assert resumed is not None  # nothing else has run since it was looked at
        self.publish(resumed)
        self._wake.set()
        return resumed

    def position(self, job_id: str) -> int | None:
        """Count the jobs that start up to and including this one: 1 is the next. None when it is not queued."""
        order = [job.job_id for job in self._waiting()]
        return order.index(job_id) + 1 if job_id in order else None

    def order(self) -> list[TrainingJob]:
        """The jobs that wait, in the order in which they would start."""
        return self._waiting()

    @property
    def is_held(self) -> bool:
        """Report whether the queue is on hold: see `hold`."""
        return not self._free.is_set()

    def position_for_guild(self, guild_id: int) -> int:
        """Count the jobs that would start up to and including a new one of this guild, without the running one."""
        waiting = self._waiting()
        if not waiting:
            return 1
        new = replace(waiting[0], seq=max(job.seq for job in waiting) + 1, guild_id=guild_id)
        by_age = sorted(waiting, key=lambda job: job.seq)
        return fair_order([*by_age, new], self._store.jobs.last_served()).index(new) + 1

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> TrainingPlan:
        """Plan a run without queueing it. Raises an `UnderstudyError` where it could not be run."""
        return await self._backend.plan(request, guild_id)

    def subscribe(self, on_change: OnChange) -> None:
        """Call `on_change`, which must not block, at every change of a job, progress included."""
        self._listeners.append(on_change)

    def unsubscribe(self, on_change: OnChange) -> None:
        """End a subscription."""
        self._listeners.remove(on_change)

    # ---------------------------------------------------------------------------------------- doing the work

    def start(self) -> None:
        """Begin to work, first on jobs that an earlier end of the bot cut off. Once started, does nothing."""
        if self._worker is None:
            self._stopping = False
            self._worker = asyncio.create_task(self._work(), name="training queue")

    async def stop(self) -> None:
        """Stop the running trainer and the work. The job is taken up again at the next start; may be called twice."""
        if self._worker is None:
            return
        self._stopping = True
        if self._running:
            self._backend.cancel()
        else:
            self._worker.cancel()  # it only waits
        await asyncio.wait({self._worker})
        self._worker = None

    def hold(self) -> None:
        """Begin no further job until `go_on`."""
        self._free.clear()

    def go_on(self) -> None:
        """Begin jobs again."""
        self._free.set()
        self._wake.set()

    async def set_aside(self, job_id: str) -> None:
        """Stop the trainer if it works on this job; the attempt does not count, and the job is taken up again."""
        if self._running == job_id:
            self._set_aside = job_id
            self._backend.cancel()
            while self._running == job_id:
                await self._clock.sleep(STOP_POLL_INTERVAL_S)

    async def _work(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                await self._free.wait()
                job = self._next()
                if job is None:
                    await self._wake.wait()
                else:
                    await self._attempt(job)
            except Exception:  # above all a full disk; the attempts are counted first, so no job comes here for ever
                log.exception("the training queue could not go on")
                if not self._stopping:
                    await self._clock.sleep(RETRY_DELAY_S)

    def _next(self) -> TrainingJob | None:
        """The job to work on. One that is `running` here was cut off: this is the only worker."""
        cut_off = self._store.jobs.in_state("running")
        return next(iter([*cut_off, *self._waiting()]), None)

    def _waiting(self) -> list[TrainingJob]:
        return fair_order(self._store.jobs.in_state("queued"), self._store.jobs.last_served())

    async def _attempt(self, job: TrainingJob) -> None:
        claimed = self._claim(job)
        if claimed is None:
            return
        self._set_aside = None
        self._running = claimed.job_id
        try:
            outcome = await self._outcome(claimed)
        finally:
            self._running = None
        self._settle(claimed, outcome)

    def _claim(self, job: TrainingJob) -> TrainingJob | None:
        """Begin an attempt. None when there can be none: the job has failed, then, or was cancelled meanwhile."""
        if job.attempt >= MAX_ATTEMPTS:
            cut_off = f"The training was cut off {job.attempt} times."
            self._fail(job, TrainingFailed(cut_off, "See the bot's log.", can_resume=True))
            return None
        try:
            log.info("the job %s begins: %s", job.job_id, job.request.model_dump_json(exclude_defaults=True))
        except RequestError as error:  # a row that cannot be read gets out of the way of the others
            self._fail(job, TrainingFailed(error.message, error.advice))
            return None
        claimed = self._store.jobs.claim(job, secrets.token_hex(8), self._clock.now())
        self.publish(claimed)
        return claimed

    async def _outcome(self, job: TrainingJob) -> RunResult:
        try:
            return await self._backend.run(job, lambda event: self._report(job, event))
        except UnderstudyError as error:
            return TrainingFailed(error.message, error.advice)
        except Exception as error:  # a slip in a backend ends one job, not the queue
            log.exception("the job %s failed unexpectedly", job.job_id)
            return TrainingFailed(f"{type(error).__name__}: {error}", "This is a fault of the bot; its log says more.")

    def _report(self, job: TrainingJob, event: TrainerEvent) -> None:
        try:
            changed = self._store.jobs.report(job.job_id, _attempt_token(job), event)
        except StoreError as error:  # a full disk must not cost a training: progress can be lost
            log.warning("the progress of the job %s could not be stored: %s", job.job_id, error)
            return
        self.publish(changed)

    def _settle(self, job: TrainingJob, outcome: RunResult) -> None:
        """Store how the attempt ended. A job that was cancelled meanwhile stays so."""
        match outcome:
            case TrainingSucceeded(adapter, seconds, scorecard):
                result = JobResult(adapter=str(adapter), seconds=seconds, scorecard=scorecard)
                self.publish(self._store.jobs.complete(job.job_id, _attempt_token(job), result, self._clock.now()))
            case TrainingFailed():
                self._fail(job, outcome)
            case TrainingInterrupted() if self._stopping or self._set_aside == job.job_id:
                self.publish(self._store.jobs.release(job.job_id, _attempt_token(job)))
            case TrainingInterrupted(why, advice) if job.attempt >= MAX_ATTEMPTS:
                cut_off = f"{why} That was attempt {job.attempt}.".strip()
                self._fail(job, TrainingFailed(cut_off, advice, can_resume=True))
            case TrainingInterrupted(why):
                # Cancelled; or ended from outside: then the row still says running, and it is taken up again.
                if why:
                    log.warning("the job %s was cut off in attempt %d. %s", job.job_id, job.attempt, why)

    def _fail(self, job: TrainingJob, why: TrainingFailed) -> None:
        now, can_resume = self._clock.now(), why.can_resume
        self.publish(self._store.jobs.fail(job, why.error, why.advice, now, can_resume=can_resume))

    def publish(self, changed: TrainingJob | None) -> None:
        """Notify the subscribers of a changed job; does nothing for None."""
        if changed is None:
            return
        for listener in list(self._listeners):
            try:
                listener(changed)
            except Exception:  # whoever watches a job must not be able to end it
                log.exception("a listener failed on the job %s", changed.job_id)


def _attempt_token(job: TrainingJob) -> str:
    assert job.attempt_token is not None  # a claimed job has one
    return job.attempt_token
