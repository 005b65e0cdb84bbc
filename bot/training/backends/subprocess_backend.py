"""Trains on this machine: a process `python -m trainer run` over the job folder."""

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Unpack

from bot.platform.clock import Clock
from bot.store import TrainingJob
from bot.training.backend_protocol import (
    OnEvent,
    RunResult,
    TrainingFailed,
    TrainingInterrupted,
    TrainingSucceeded,
)
from bot.training.backends.job_folder_backend import (
    ERASURE_TEXT,
    JobFolderBackend,
    JobFolderOptions,
    install_card,
    job_folder,
)
from bot.training.backends.run_end import classify_exit, disk_failure
from bot.training.backends.trainer_events import OutputReader
from bot.training.backends.trainer_process import TrainerProcess, end_orphan, wait_until
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.resource_sharing import has_gpu_driver
from bot.training.run_limits import RunWatch
from personas.errors import AdapterError, RunLimitError
from personas.home.job_attempt import TRAINER_LOG_FILE
from personas.home.job_folder import ADAPTER_FOLDER
from personas.schemas.training_events import Done, PauseDemand, Phase

LOCKED_EXIT_CODE = 3
"""Exit code when another trainer holds the folder."""
MAX_LOCK_ATTEMPTS = 30
LOCK_RETRY_DELAY_S = 2.0
"""A trainer whose bot died stops within seconds; until then its folder is locked."""
ERASURE_POLL_INTERVAL_S = 1.0


class SubprocessBackend(JobFolderBackend):
    """Runs one trainer at a time, in a process of its own that ends with the bot."""

    slots = 1

    def __init__(
        self,
        home: Path,
        catalogue: DatasetCatalog,
        clock: Clock,
        *,
        threads: int,
        nice: int,
        **options: Unpack[JobFolderOptions],
    ) -> None:
        super().__init__(home, catalogue, **options)
        self.trains_on_cpu = not has_gpu_driver()
        self._clock = clock
        words = f"--threads {threads} --nice {nice} --card {self._card} --stop-on-eof"
        self._card_options = words.split()
        self._run_options = [*self._card_options, "--defer-card"]
        self._stop = asyncio.Event()
        self._job_id = ""
        self._demand: PauseDemand = "go"
        self._process: TrainerProcess | None = None

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Train to the end; every fixable failure is returned as `TrainingFailed`."""
        self._stop.clear()
        self._job_id = job.job_id
        try:
            folder = await self._prepare_folder(job, lambda: self._pause_for_erasure(on_event))
            if not isinstance(folder, Path):
                return folder
            end = await self._train(job, folder, on_event, self._run_options)
            if not isinstance(end, Done):
                return end
            return await self._install(job, folder, end)
        except RunLimitError as error:
            return TrainingFailed(error.message, error.advice, can_resume=True)
        except OSError as error:
            return disk_failure(error, self._home)

    async def complete_card(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Run the finished job's folder once more, which measures the rest of its score card."""
        self._stop.clear()
        self._job_id = job.job_id
        folder = job_folder(self._home, job.job_id)
        if job.result is None or not (folder / ADAPTER_FOLDER).is_dir():
            return TrainingFailed("The files of the training are gone.")
        try:
            end = await self._train(job, folder, on_event, self._card_options)
            if not isinstance(end, Done):
                return end
            adapter = Path(job.result.adapter)
            summary = await asyncio.to_thread(install_card, job, folder, adapter)
        except (RunLimitError, AdapterError) as error:
            return TrainingFailed(error.message, error.advice)
        except OSError as error:
            return disk_failure(error, self._home)
        return TrainingSucceeded(adapter, job.result.seconds, summary)

    async def _pause_for_erasure(self, on_event: OnEvent) -> bool:
        on_event(Phase(name="material", detail=ERASURE_TEXT))
        await wait_until(self._stop.is_set, ERASURE_POLL_INTERVAL_S)
        return self._stop.is_set()

    def cancel(self, job_id: str) -> None:
        """SIGTERM now, SIGKILL after `KILL_TIMEOUT_S`; does nothing for another job than the
        running one.
        """
        if job_id == self._job_id:
            self._stop.set()

    def detach(self) -> None:
        """Stop the trainer: it could not outlive the bot."""
        self._stop.set()

    def adopt(self, job_ids: Collection[str]) -> Collection[str]:
        """None: a trainer ends with the bot."""
        return ()

    def hold(self, demand: PauseDemand) -> None:
        """Pause or continue the running trainer, and one that starts meanwhile."""
        self._demand = demand
        if self._process:
            self._process.hold(demand)

    async def _train(
        self, job: TrainingJob, folder: Path, on_event: OnEvent, options: Sequence[str]
    ) -> Done | TrainingFailed | TrainingInterrupted:
        """Run a trainer over the folder, again while another one holds it."""
        for _ in range(MAX_LOCK_ATTEMPTS):
            await end_orphan(folder, self._stop)
            if self._stop.is_set():
                return TrainingInterrupted()
            log_file = folder / TRAINER_LOG_FILE
            log_from = 0
            if log_file.exists():
                log_from = log_file.stat().st_size
            output = OutputReader(RunWatch(self._limits, job.guild_id), log_file, on_event)
            code = await self._run_trainer(folder, output, options)
            if code == LOCKED_EXIT_CODE:
                await self._clock.sleep(LOCK_RETRY_DELAY_S)
            elif self._stop.is_set():
                return TrainingInterrupted()
            else:
                return classify_exit(code, output.final, log_file, log_from)
        return TrainingFailed(f"Another trainer works on {folder}.", "End it.", can_resume=True)

    async def _run_trainer(self, folder: Path, output: OutputReader, options: Sequence[str]) -> int:
        """Run a trainer to its exit and return the code. Raises `RunLimitError`."""
        process = await TrainerProcess.start(
            [*self._command, "run", str(folder), *options],
            environ=self._environ,
            output=output,
            home=self._home,
            clock=self._clock,
        )
        self._process = process
        # Replies may have begun while it was started.
        if self._demand != "go":
            process.hold(self._demand)
        try:
            return await process.wait(self._stop)
        finally:
            self._process = None
