"""Trains on this machine: a process `python -m trainer run` over the job folder."""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Unpack

from bot.platform.clock import Clock
from bot.store import TrainingJob
from bot.training.backend_protocol import OnEvent, RunResult, TrainingFailed, TrainingInterrupted
from bot.training.backends.job_folder_backend import (
    ERASURE_TEXT,
    JobFolderBackend,
    JobFolderOptions,
)
from bot.training.backends.run_end import classify_exit, disk_failure
from bot.training.backends.trainer_events import OutputReader
from bot.training.backends.trainer_process import TrainerProcess, end_orphan, wait_until
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.run_limits import RunWatch
from personas.errors import RunLimitError
from personas.home.job_attempt import TRAINER_LOG_FILE
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
        card: str = "full",
        **options: Unpack[JobFolderOptions],
    ) -> None:
        """`card` is the extent of a new version's score card."""
        super().__init__(home, catalogue, **options)
        self._clock = clock
        self._run_options = f"--threads {threads} --nice {nice} --card {card} --stop-on-eof".split()
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
            end = await self._train(job, folder, on_event)
            if not isinstance(end, Done):
                return end
            return await self._install(job, folder, end)
        except RunLimitError as error:
            return TrainingFailed(error.message, error.advice, can_resume=True)
        except OSError as error:
            return disk_failure(error, self._home)

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
        self, job: TrainingJob, folder: Path, on_event: OnEvent
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
            code = await self._run_trainer(folder, output)
            if code == LOCKED_EXIT_CODE:
                await self._clock.sleep(LOCK_RETRY_DELAY_S)
            elif self._stop.is_set():
                return TrainingInterrupted()
            else:
                return classify_exit(code, output.final, log_file, log_from)
        return TrainingFailed(f"Another trainer works on {folder}.", "End it.", can_resume=True)

    async def _run_trainer(self, folder: Path, output: OutputReader) -> int:
        """Run a trainer to its exit and return the code. Raises `RunLimitError`."""
        process = await TrainerProcess.start(
            [*self._command, "run", str(folder), *self._run_options],
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
