"""The part that all backends share: checks and plans requests, writes job folders, and installs
verified adapters.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Required, TypedDict, Unpack

from pydantic import ValidationError

from bot.store import TrainingJob
from bot.training.backend_protocol import (
    OnEvent,
    RunResult,
    TrainingFailed,
    TrainingInterrupted,
    TrainingSucceeded,
)
from bot.training.backends.trainer_environment import TRAINER_COMMAND, trainer_environment
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.request_materials import check_request, gather_materials
from bot.training.run_limits import RunLimits
from bot.training.training_plan import TrainingPlan, plan_run
from personas.errors import (
    AdapterError,
    ErasedMeanwhileError,
    ErasureRunningError,
    RequestError,
    UnderstudyError,
)
from personas.home.adapters import (
    adapter_ref,
    dialogue_adapter_folder,
    install_adapter_folder,
    install_completed_card,
    read_epochs,
    score_card_file,
    verify_adapter,
)
from personas.home.comparison_targets import (
    NO_COMPARISON,
    ComparisonTargets,
    write_comparison_targets,
)
from personas.home.data_subjects import ErasureFence, Storing
from personas.home.job_folder import ADAPTER_FOLDER, ensure_job_folder, store_new_holdout
from personas.home.job_material import SourceMaterial
from personas.home.written_replies import review_file, write_earlier_jobs
from personas.schemas.scorecard import ScoreCard
from personas.schemas.training import AdapterManifest, ServingPrecision, TrainingRequest
from personas.schemas.training_events import Done, ScoreSummary

ERASURE_TEXT = "A member is being erased; it begins afterwards."
log = logging.getLogger(__name__)


def job_folder(home: Path, job_id: str) -> Path:
    """Return the folder of a job, which need not exist yet."""
    return home / "jobs" / job_id


def write_job_folder(
    home: Path,
    job: TrainingJob,
    materials: Iterable[SourceMaterial],
    *,
    precision: ServingPrecision,
    compare: ComparisonTargets = NO_COMPARISON,
    earlier: Iterable[str] = (),
    storing: Storing = nullcontext,
) -> Path:
    """Write the folder of a job, with today's consent, holdout and live versions, and the `earlier`
    jobs whose written replies it may take over; an earlier attempt's is used again.

    Raises `OSError`, and `UnderstudyError` when the home's key, consent or holdout cannot be read.
    """
    folder = job_folder(home, job.job_id)
    ensure_job_folder(
        folder,
        home,
        job_id=job.job_id,
        version=job.version,
        request=job.request,
        materials=materials,
        precision=precision,
        storing=storing,
    )
    write_comparison_targets(folder, compare)
    write_earlier_jobs(folder, earlier)
    return folder


def install_adapter(home: Path, job: TrainingJob, folder: Path) -> tuple[Path, AdapterManifest]:
    """Install a finished job's adapter and return its folder; idempotent. Raises `AdapterError` and
    `OSError`.
    """
    manifest = verify_adapter(folder / ADAPTER_FOLDER)
    named = (manifest.job_id, manifest.version, manifest.persona)
    if named != (job.job_id, job.version, job.persona):
        raise AdapterError(
            f"The adapter in {folder} is not of this job but of {manifest.job_id}.",
            "Train it again.",
        )
    if job.persona:
        installed = adapter_ref(home, job.persona, job.version).folder
    else:
        installed = dialogue_adapter_folder(home, job.request.job_name)
    return installed, install_adapter_folder(folder / ADAPTER_FOLDER, installed)


def install_card(job: TrainingJob, folder: Path, adapter: Path) -> ScoreSummary:
    """Install the completed score card of a finished job beside its adapter, and return its
    summary. Raises `AdapterError` and `OSError`.
    """
    install_completed_card(folder / ADAPTER_FOLDER, adapter)
    try:
        file = score_card_file(adapter, "scorecard.json")
        summary = ScoreCard.model_validate_json(file.read_bytes()).short
    except ValidationError as error:
        raise AdapterError(
            f"The score card of {job.name} {job.version} is damaged.", "Evaluate it again."
        ) from error
    return summary.after(job.result.scorecard.verdict) if job.result else summary


def compare_with_nothing(job: TrainingJob) -> ComparisonTargets:
    """Return no versions to compare a job's with."""
    return NO_COMPARISON


def take_over_nothing(job: TrainingJob) -> Sequence[str]:
    """Return no jobs whose written replies a job may take over."""
    return ()


class JobFolderOptions(TypedDict, total=False):
    """Options of all backends. `environ` is for trainers on this machine, without secrets except
    `secrets`.

    `compare` returns the versions to compare a job's new one with, `earlier` the ids of the jobs whose
    written replies it may take over. Runs beyond the `limits` are
    ended. `card` is the extent of a new version's score card.
    """

    serving_precision: Required[ServingPrecision]
    environ: Required[Mapping[str, str]]
    secrets: Mapping[str, str]
    command: Sequence[str]
    compare: Callable[[TrainingJob], ComparisonTargets]
    earlier: Callable[[TrainingJob], Sequence[str]]
    limits: RunLimits
    card: str


class JobFolderBackend:
    """Base of all backends. A run is: prepare the folder, train over it, install its adapter."""

    trains_on_cpu = False

    def __init__(
        self, home: Path, catalogue: DatasetCatalog, **options: Unpack[JobFolderOptions]
    ) -> None:
        self._home = home
        self._catalogue = catalogue
        self._command = tuple(options.get("command", TRAINER_COMMAND))
        self._precision = options["serving_precision"]
        self._compare = options.get("compare", compare_with_nothing)
        self._earlier = options.get("earlier", take_over_nothing)
        self._limits = options.get("limits", RunLimits())
        self._card = options.get("card", "full")
        self._environ = trainer_environment(options["environ"], options.get("secrets", {}))
        self._installing = asyncio.Lock()

    def check(self, request: TrainingRequest, guild_id: int = 0) -> None:
        """Raise an `UnderstudyError` when the request names something unknown, not allowed, or
        taken.
        """
        check_request(self._catalogue, request, guild_id)
        if request.persona:
            return
        if dialogue_adapter_folder(self._home, request.job_name).exists():
            raise RequestError(
                f"There is a dialogue adapter named {request.job_name} already.",
                "Choose another job_name.",
            )

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> TrainingPlan:
        """Plan a run with the trainer of this machine. Raises an `UnderstudyError` where it could
        not be run.
        """
        self.check(request, guild_id)
        materials = await asyncio.to_thread(gather_materials, self._catalogue, request, guild_id)
        return await plan_run(
            self._command,
            self._home,
            request,
            materials,
            precision=self._precision,
            environ={**self._environ, "UNDERSTUDY_HOME": str(self._home)},
            card=self._card,
        )

    def accept_written(self, job_id: str) -> None:
        """Note in the job's folder that its written replies were read."""
        with suppress(FileNotFoundError):  # the folder is gone: the replies are written anew
            review_file(job_folder(self._home, job_id)).touch()

    async def complete_card(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Fail: the runs of this backend measure the whole card."""
        return TrainingFailed("The rest of the score card is measured on the bot's machine only.")

    async def _prepare_folder(
        self, job: TrainingJob, pause: Callable[[], Awaitable[object]]
    ) -> Path | TrainingFailed | TrainingInterrupted:
        """Write the job folder; fails, resumably, where inputs are missing now.

        Waits while a member is erased, which may take long: until `pause` returns true, for a run
        to be stopped.
        """
        while True:
            try:
                fence = await asyncio.to_thread(ErasureFence.begin, self._home, 0.0)
                materials = await asyncio.to_thread(
                    gather_materials, self._catalogue, job.request, job.guild_id
                )
                return await asyncio.to_thread(
                    write_job_folder,
                    self._home,
                    job,
                    materials,
                    precision=self._precision,
                    compare=self._compare(job),
                    earlier=self._earlier(job),
                    storing=fence.storing,
                )
            except ErasureRunningError:
                if await pause():
                    return TrainingInterrupted()
            except ErasedMeanwhileError:
                log.info(
                    "job %s: its material is gathered again, without a member who was erased",
                    job.job_id,
                )
            except UnderstudyError as error:
                return TrainingFailed(error.message, error.advice, can_resume=True)

    async def _install(
        self, job: TrainingJob, folder: Path, done: Done
    ) -> TrainingSucceeded | TrainingFailed:
        try:
            # Two runs of a persona may end at once, and extend one hold-out index.
            async with self._installing:
                await asyncio.to_thread(store_new_holdout, self._home, job.persona, folder)
            adapter, manifest = await asyncio.to_thread(install_adapter, self._home, job, folder)
        except UnderstudyError as error:
            return TrainingFailed(error.message, error.advice)
        return TrainingSucceeded(adapter, done.seconds, manifest.metrics, read_epochs(adapter))
