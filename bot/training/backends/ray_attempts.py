"""Attempts at a home's jobs on a Ray cluster: submits, fences and stops the Ray jobs
`<home>-<job>-<attempt>`.

A cluster may take a run for dead that goes on, because its node or its head was cut off. So each
job folder has the number of its latest attempt: an earlier one sees a higher number there and
writes nothing more, whatever Ray knows of it.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from bot.store import TrainingJob
from bot.training.backends.job_folder_backend import job_folder
from bot.training.backends.ray_jobs import (
    RayJob,
    RayJobsClient,
    RayRefusedError,
    RayUnreachableError,
    WorkerResources,
    worker_command,
)
from bot.training.backends.trainer_environment import TRAINER_SECRETS
from personas.errors import UnderstudyError
from personas.home.job_attempt import TRAINER_LOG_FILE, JobAttempt, begin_attempt, read_attempt
from personas.home.job_folder import home_id

STOP_WAIT_S = 20
"""Time in which a trainer has to stop before Ray kills it; Ray's default of 3 s is too short for a
checkpoint.
"""
STOP_TIMEOUT_S = 60.0
"""Time after which the bot no longer waits for a stopped job to end. It can write nothing more in
any case.
"""
SWEEP_RETRY_S = 30.0
log = logging.getLogger(__name__)


def fence_off(folder: Path) -> None:
    """Let no attempt so far write anything more, wherever it runs."""
    if folder.is_dir():
        begin_attempt(folder)


class RayAttempts:
    """The attempts of one home on one cluster."""

    def __init__(
        self,
        home: Path,
        client: RayJobsClient,
        *,
        resources: WorkerResources,
        card: str,
        environ: Mapping[str, str],
        kept_secrets: Collection[str],
        poll_s: float,
    ) -> None:
        self.client = client
        self.resources = resources
        self.environ = {**environ, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
        self.is_detached = False
        """The bot ends: stop nothing more."""
        self._home = home
        self._card = card
        self._kept_secrets = sorted({*TRAINER_SECRETS, *kept_secrets})
        self._poll_s = poll_s
        self._prefix = f"{home_id(home)}-"

    def submission_id(self, job_id: str, attempt: JobAttempt) -> str:
        return f"{self._prefix}{job_id}-{attempt.attempt}"

    async def submit(self, job: TrainingJob, attempt: JobAttempt) -> None:
        """Submit an attempt; does nothing if it was submitted before. Raises as `RayJobsClient`."""
        # Workers do not have the links of `link_shared_folders`.
        folder = await asyncio.to_thread(job_folder(self._home, job.job_id).resolve)
        options = ["--attempt", str(attempt.attempt), "--card", self._card]
        command = [*self.resources.launcher, "run", str(folder), *options, *self.resources.options]
        await self.client.submit(
            self.submission_id(job.job_id, attempt),
            worker_command(command, folder / TRAINER_LOG_FILE, self._kept_secrets),
            cpus=self.resources.cpus,
            gpus=self.resources.gpus,
            environ=self.environ,
            about=f"{job.name} {job.version}",
        )

    async def stop_latest(self, job_id: str) -> None:
        """End the latest attempt of a job for good: it is fenced first, then stopped, then
        deleted.
        """
        folder = job_folder(self._home, job_id)
        attempt = await asyncio.to_thread(read_attempt, folder)
        if attempt.attempt:
            await asyncio.to_thread(fence_off, folder)
            await self._stop(self.submission_id(job_id, attempt))

    async def stop_others(self, job_ids: Collection[str], followed: Collection[str]) -> None:
        """Stop the runs of jobs that are in neither collection, and earlier attempts of those that
        are; repeats until the cluster answers.

        `followed` may change meanwhile.
        """
        last_error = ""
        while True:
            try:
                for ray_job in await self.client.list(self._prefix):
                    await self._stop_unless_wanted(ray_job, job_ids, followed)
                return
            except (UnderstudyError, OSError) as error:
                if str(error) != last_error:  # the same error every half minute fills the log
                    log.warning("earlier Ray jobs cannot be looked for yet: %s", error)
                last_error = str(error)
            await asyncio.sleep(SWEEP_RETRY_S)

    async def _stop_unless_wanted(
        self, ray_job: RayJob, job_ids: Collection[str], followed: Collection[str]
    ) -> None:
        submission_id = ray_job.submission_id or ""
        job_id, _, number = submission_id.removeprefix(self._prefix).rpartition("-")
        folder = job_folder(self._home, job_id)
        latest = await asyncio.to_thread(read_attempt, folder)
        is_wanted = job_id in job_ids or job_id in followed
        if ray_job.has_ended or (is_wanted and number == str(latest.attempt)):
            return
        log.info("the Ray job %s of an earlier run is stopped", submission_id)
        if not is_wanted:
            await asyncio.to_thread(fence_off, folder)
        await self._stop(submission_id)

    async def _stop(self, submission_id: str) -> None:
        """Stop a Ray job, wait for its end, and delete Ray's record of it."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline and not self.is_detached:
            try:
                ray_job = await self.client.get(submission_id)
                if ray_job is None:
                    return
                if ray_job.has_ended:
                    return await self.client.delete(submission_id)
                await self.client.stop(submission_id)
                # Ray stops a pending job only once it has begun; the fenced trainer ends then.
                if ray_job.status == "PENDING":
                    return
            except (RayUnreachableError, RayRefusedError) as error:
                log.warning("the Ray job %s cannot be stopped yet: %s", submission_id, error)
            await asyncio.sleep(self._poll_s)
        log.warning(
            "the Ray job %s has not ended; its trainer can write nothing more", submission_id
        )
