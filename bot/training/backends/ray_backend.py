"""Trains on a Ray cluster (`TRAINER=ray`): one Ray job for each attempt, over a job folder that its
workers share.
"""

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Unpack

from bot.settings import Settings
from bot.store import TrainingJob
from bot.training.backend_protocol import OnEvent, RunResult, TrainingFailed, TrainingInterrupted
from bot.training.backends.job_folder_backend import (
    JobFolderBackend,
    JobFolderOptions,
    job_folder,
)
from bot.training.backends.ray_attempts import RayAttempts, fence_off
from bot.training.backends.ray_jobs import RayJobsClient, WorkerResources
from bot.training.backends.ray_run import RayRun, RunLeftError
from bot.training.backends.run_end import disk_failure
from bot.training.backends.trainer_environment import evaluation_environ
from bot.training.dataset_catalog import DatasetCatalog
from personas.errors import RunLimitError, UnderstudyError
from personas.home.job_folder import link_shared_folders
from personas.schemas.training_events import Done, PauseDemand

POLL_INTERVAL_S = 2.0


class RayBackend(JobFolderBackend):
    """Runs up to `slots` jobs at once on the cluster. Runs outlive the bot.

    All other jobs wait in the bot's queue: in Ray's own, a job fails after 15 minutes.
    """

    def __init__(
        self,
        home: Path,
        catalogue: DatasetCatalog,
        client: RayJobsClient,
        *,
        slots: int,
        resources: WorkerResources,
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
        self.attempts = RayAttempts(
            home,
            client,
            resources=resources,
            card=self._card,
            environ=environ_of_workers,
            kept_secrets=kept_secrets,
            poll_s=poll_s,
        )
        self._poll_s = poll_s
        self._runs: dict[str, RayRun] = {}
        self._sweep: asyncio.Task[None] | None = None

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Train to the end on the cluster; a run that outlived the bot is followed, a finished one
        only installed.
        """
        folder = job_folder(self._home, job.job_id)
        run = RayRun(
            job,
            folder,
            self.attempts,
            on_event=on_event,
            limits=self._limits,
            poll_s=self._poll_s,
        )
        self._runs[job.job_id] = run
        try:
            end = await run.train(lambda: self._prepare_folder(job, run.pause_for_erasure))
            if isinstance(end, Done):
                return await self._install(job, folder, end)
            await asyncio.to_thread(fence_off, folder)
            return end
        except RunLeftError:
            if run.is_cancelled:
                await self.attempts.stop_latest(job.job_id)
            return TrainingInterrupted()
        except UnderstudyError as error:
            if isinstance(error, RunLimitError):
                await self.attempts.stop_latest(job.job_id)
            return TrainingFailed(error.message, error.advice, error.can_resume)
        except OSError as error:
            return disk_failure(error, self._home)
        finally:
            del self._runs[job.job_id]

    def cancel(self, job_id: str) -> None:
        """SIGTERM, and SIGKILL after `STOP_WAIT_S`; then Ray's record is deleted."""
        if run := self._runs.get(job_id):
            run.is_cancelled = True
            run.leave()

    def detach(self) -> None:
        """Leave all runs to the cluster; one that is being stopped is stopped at the next start, if
        need be.
        """
        self.attempts.is_detached = True
        if self._sweep:
            self._sweep.cancel()
        for run in self._runs.values():
            run.leave()

    def adopt(self, job_ids: Collection[str]) -> Collection[str]:
        """All of them; runs of other jobs, cancelled while the bot could not stop them, are stopped
        now.
        """
        self.attempts.is_detached = False
        stopping = self.attempts.stop_others(frozenset(job_ids), followed=self._runs.keys())
        self._sweep = asyncio.create_task(stopping, name="stop old Ray jobs")
        return job_ids

    def hold(self, demand: PauseDemand) -> None:
        """Do nothing: replies and training are on different machines."""


def open_ray_backend(
    settings: Settings, catalogue: DatasetCatalog, **options: Unpack[JobFolderOptions]
) -> RayBackend:
    """Create the backend that the settings describe. Raises `RequestError` if the shared folder
    cannot be used.
    """
    if settings.shared:
        link_shared_folders(settings.home, Path(settings.shared))
    environ = evaluation_environ(settings)
    kept_secrets: tuple[str, ...] = ()
    if settings.trainer_wandb:
        environ["WANDB_PROJECT"] = settings.wandb_project
        kept_secrets = ("WANDB_API_KEY",)
    return RayBackend(
        settings.home,
        catalogue,
        RayJobsClient(settings.ray_address, settings.ray_auth_token),
        slots=settings.trainer_slots,
        resources=worker_resources(settings),
        environ_of_workers=environ,
        kept_secrets=kept_secrets,
        **options,
    )


def worker_resources(settings: Settings) -> WorkerResources:
    """Return the resources of a run; all of a worker's threads unless TRAINER_THREADS is set."""
    threads = None
    if "trainer_threads" in settings.model_fields_set:
        threads = settings.trainer_threads
    return WorkerResources(threads, settings.trainer_gpus)
