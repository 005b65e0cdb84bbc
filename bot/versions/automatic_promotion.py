"""Decides for each finished training job whether its version goes live automatically, also after a crash."""

import asyncio
import logging

from bot.store import Store, StoreError, TrainingJob
from bot.training.queue import JobQueue
from bot.versions.live_versions import LiveVersions

log = logging.getLogger(__name__)

RETRY_DELAY_S = 30.0
"""Pause before the next attempt when the database cannot be written."""


class AutomaticPromotion:
    """Decides on every finished job once, stores the decision, and publishes the job, so that its result is posted."""

    def __init__(self, store: Store, versions: LiveVersions, jobs: JobQueue) -> None:
        self._store, self._versions, self._jobs = store, versions, jobs
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Work off the undecided jobs, and those that finish from now on."""
        self._jobs.subscribe(self._on_change)
        self._worker = asyncio.create_task(self._work(), name="automatic promotion")

    async def stop(self) -> None:
        """Stop working; undecided jobs stay stored as such."""
        if self._worker:
            self._jobs.unsubscribe(self._on_change)
            self._worker.cancel()
            await asyncio.wait({self._worker})
            self._worker = None

    def _on_change(self, job: TrainingJob) -> None:
        if job.state == "done" and job.decision is None:
            self._wake.set()

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            try:
                for job in self._store.jobs.undecided():
                    if decided := await self._decide(job):
                        self._jobs.publish(decided)
            except StoreError as error:
                log.warning("an automatic promotion could not be stored: %s", error)
                await asyncio.sleep(RETRY_DELAY_S)
            else:
                await self._wake.wait()

    async def _decide(self, job: TrainingJob) -> TrainingJob | None:
        try:
            return await self._versions.decide(job)
        except StoreError:
            raise
        except Exception:  # one job must not hold up the others: a moderator can still promote its version
            log.exception("the automatic promotion of %s %s failed", job.name, job.version)
            return self._store.jobs.decide(job.job_id, "manual")
