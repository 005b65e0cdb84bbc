"""Completes score cards in the background: the rest of a first card, once nothing else trains."""

import asyncio
import logging
from collections.abc import Callable

from bot.platform.clock import RETRY_DELAY_S, Clock
from bot.store import Store, StoreError, TrainingJob
from bot.training.backend_protocol import (
    RunResult,
    TrainingBackend,
    TrainingFailed,
    TrainingInterrupted,
    TrainingSucceeded,
)
from personas.errors import UnderstudyError
from personas.schemas.training_events import TrainerEvent

MAX_ATTEMPTS = 3  # counted when they begin, as those of jobs
log = logging.getLogger(__name__)


class CardCompletions:
    """Completes one score card at a time. Use it from the event loop's thread.

    A card makes way for a training, and is then measured on from what is kept of it.
    """

    def __init__(
        self,
        store: Store,
        backend: TrainingBackend,
        clock: Clock,
        *,
        publish: Callable[[TrainingJob | None], None],
        on_end: Callable[[], None],
    ) -> None:
        """`publish` is called with each changed job, `on_end` whenever a completion has ended."""
        self._store = store
        self._backend = backend
        self._clock = clock
        self._publish = publish
        self._on_end = on_end
        self._job_id = ""
        self._task: asyncio.Task[None] | None = None
        self._makes_way = False
        self._waits = False

    @property
    def is_running(self) -> bool:
        """Report whether a card is being completed."""
        return self._task is not None

    def start_next(self) -> None:
        """Begin to complete the oldest card, if there is one and none is being completed."""
        if self._task:
            return
        for job in self._store.jobs.open_cards():
            if job.card_attempt >= MAX_ATTEMPTS:
                error = f"Measuring it was interrupted {job.card_attempt} times."
                self._publish(self._store.jobs.end_card(job.job_id, "failed", error))
                continue
            if claimed := self._store.jobs.claim_card(job.job_id):
                self._start(claimed)
                return

    def _start(self, job: TrainingJob) -> None:
        def on_end(_: asyncio.Task[None]) -> None:
            self._task = None
            self._job_id = ""
            self._on_end()

        log.info("the score card of %s %s is completed", job.name, job.version)
        self._makes_way = False
        self._waits = False
        self._job_id = job.job_id
        self._task = asyncio.create_task(self._complete(job), name=f"score card {job.job_id}")
        self._task.add_done_callback(on_end)
        self._publish(job)

    def cancel(self, job_id: str) -> TrainingJob | None:
        """Leave the rest of a card unmeasured. Returns None where it is not to be completed."""
        cancelled = self._store.jobs.end_card(job_id, "cancelled")
        if cancelled and job_id == self._job_id:
            self._stop_task()
        self._publish(cancelled)
        return cancelled

    def make_way(self) -> None:
        """Stop what is being completed, for a training; it waits again."""
        if self._task:
            self._makes_way = True
            self._stop_task()

    def _stop_task(self) -> None:
        if self._task and self._waits:  # its end could not be stored
            self._task.cancel()
        else:
            self._backend.cancel(self._job_id)

    async def interrupt(self, job_id: str) -> None:
        """Stop the completion of a job's card, if there is one, and wait for its end."""
        if self._task and job_id == self._job_id:
            self.make_way()
            await asyncio.wait({self._task})

    async def stop(self) -> None:
        """Stop, because the bot ends; a card waits for the next start."""
        if self._task:
            task = self._task
            self.make_way()
            await asyncio.wait({task})

    async def _complete(self, job: TrainingJob) -> None:
        try:
            self._store_result(job, await self._run(job))
        except Exception:
            # Mostly a full disk. Attempts are counted when they begin, so no card fails here forever.
            log.exception("the end of the score card of %s could not be stored", job.job_id)
            if not self._makes_way:
                self._waits = True
                await self._clock.sleep(RETRY_DELAY_S)

    async def _run(self, job: TrainingJob) -> RunResult:
        if self._makes_way:
            return TrainingInterrupted()
        try:
            return await self._backend.complete_card(
                job, lambda event: self._store_event(job, event)
            )
        except UnderstudyError as error:
            return TrainingFailed(error.message, error.advice)
        except Exception as error:  # a bug in a backend ends one card, not the queue
            log.exception("the score card of the job %s failed unexpectedly", job.job_id)
            return TrainingFailed(f"{type(error).__name__}: {error}")

    def _store_event(self, job: TrainingJob, event: TrainerEvent) -> None:
        try:
            self._publish(self._store.jobs.report_card(job.job_id, event))
        except StoreError as error:
            log.warning("the progress of the card of %s is not stored: %s", job.job_id, error)

    def _store_result(self, job: TrainingJob, result: RunResult) -> None:
        """Store how the completion ended. A card that was cancelled meanwhile stays cancelled."""
        jobs = self._store.jobs
        match result:
            case TrainingSucceeded():
                self._publish(jobs.complete_card(job.job_id, result.scorecard))
            case TrainingFailed():
                error = f"{result.error} {result.advice}".strip()
                log.warning("the score card of %s is not completed: %s", job.job_id, error)
                self._publish(jobs.end_card(job.job_id, "failed", error))
            case TrainingInterrupted():
                if self._makes_way:
                    self._publish(jobs.release_card(job.job_id))
                elif result.why:
                    # Nothing is stored: it is run again. One that was cancelled has no reason.
                    log.warning("the score card of %s was interrupted. %s", job.job_id, result.why)
