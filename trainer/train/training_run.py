"""A training run: its job, the recipe that `run.json` holds it to, and its control."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personas.home.job_attempt import CHECKPOINTS_FOLDER
from personas.models.base_model import fingerprint
from personas.schemas.scorecard import EvaluationExtent
from personas.schemas.training_events import Phase, TrainerEvent
from trainer.machine import MemoryWatch, package_versions
from trainer.process.run_control import PauseControl
from trainer.process.timeline import RunTimeline
from trainer.recipe.machine_fit import CHECKPOINTING_NOTES
from trainer.recipe.resolve import resolve_run
from trainer.schemas import Recipe, ResolvedRecipe
from trainer.train.distributed import DistributedContext
from trainer.train.job import PreparedJob
from trainer.train.resume_config import (
    CHECKPOINT_INTERVAL_S,
    ResumeConfig,
    batches_hash,
    lock_config,
    request_hash,
    resumed_recipe,
    write_resume_config,
)

log = logging.getLogger(__name__)


class RunUsage:
    """Time and memory that a run takes, counted from its creation on.

    The usage of an earlier process is known up to that process's last checkpoint.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count from now on; the last checkpoint adds what came before."""
        self.memory = MemoryWatch()
        self._started_at = time.perf_counter()
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the run began, without the time in which no process ran."""
        return self._seconds_before + time.perf_counter() - self._started_at

    def state_dict(self) -> dict[str, Any]:
        """Return the state to store in a checkpoint."""
        return {"seconds": self.seconds, "peak_bytes": self.memory.peak().bytes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Add the usage of an earlier process from its checkpoint; an empty state changes
        nothing.
        """
        if not state:
            return
        self._seconds_before = float(state.get("seconds", 0.0))
        self.memory.peak_before = int(state.get("peak_bytes", 0))


@dataclass(frozen=True)
class RunControl:
    """How a process reports, stops and pauses its run.

    `emit` receives the events; `check` is called between steps, and raises to stop. `pause` is
    waited for between layers. A checkpoint is written every `checkpoint_s` seconds. `fence` is
    called before anything gets its final name, and raises if a newer attempt of the job runs
    elsewhere. `processes` train together; `usage` counts time and memory. `skips_memory_check`
    starts the run even if the memory it needs is not free. `card` is the extent of the evaluation
    (`trainer.evaluate.evaluate_version`). `timeline` knows how far the run is. `home`
    has the measurements of earlier runs, if there is one. `defers_card` ends the run with the first
    card of a recipe that has one; otherwise it goes on until the card is complete. `only_writes`
    ends a run from a card once its replies are written. `is_by_hand`: somebody started the run, and
    no bot.
    """

    emit: Callable[[TrainerEvent], None] = lambda event: None
    check: Callable[[], None] = lambda: None
    checkpoint_s: float = CHECKPOINT_INTERVAL_S
    usage: RunUsage = field(default_factory=RunUsage)
    pause: PauseControl = field(default_factory=PauseControl)
    processes: DistributedContext = field(default_factory=DistributedContext)
    skips_memory_check: bool = False
    card: EvaluationExtent = "losses"
    fence: Callable[[], None] = lambda: None
    timeline: RunTimeline = field(default_factory=RunTimeline)
    home: Path | None = None
    defers_card: bool = False
    only_writes: bool = False
    is_by_hand: bool = False

    @property
    def worked_s(self) -> float:
        """Seconds of the run without those in which it was paused."""
        return self.usage.seconds - self.pause.waited_s

    def between(self) -> None:
        """Pause or stop, between two layers of what is measured, if requested."""
        self.pause.wait()
        self.check()

    def report(self, event: TrainerEvent) -> None:
        """Emit an event, which tells how far the whole run is."""
        self.emit(self.timeline.locate(event, self.worked_s))

    def enter(self, phase: Phase) -> None:
        """Report a phase, or stop before it if requested."""
        self.check()
        log.info("%s %s", phase.name, phase.detail)
        self.report(phase)


@dataclass
class Run:
    """A run of a job in a folder, which holds `run.json` and the checkpoints.

    `config` is the content of `run.json`; it changes when memory runs out or float16 overflows.
    `notes` say for people what differs from the request.
    """

    folder: Path
    job: PreparedJob
    config: ResumeConfig
    control: RunControl
    notes: tuple[str, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe in use."""
        return self.config.used

    @property
    def caveats(self) -> tuple[str, ...]:
        """The notes and the caveats of the configuration, for people."""
        notes = self.notes
        if self.config.recomputes:  # memory did not hold these activations after all
            notes = tuple(note for note in notes if note not in CHECKPOINTING_NOTES)
        return (*notes, *self.config.caveats)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / CHECKPOINTS_FOLDER

    def go_on_with(self, config: ResumeConfig) -> None:
        """Go on from the last checkpoint with another configuration."""
        self.config = config
        write_resume_config(self.folder, config)
        self.control.usage.restart()


def resolve_job_run(job: PreparedJob, folder: Path) -> ResolvedRecipe:
    """Resolve a job's recipe on this machine, as the run in the folder began with it if it has."""
    return resolve_run(
        job.spec.request.recipe,
        job.recipe,
        job.base,
        job.data,
        work=job.workload,
        stored=resumed_recipe(folder, job.spec),
    )


def begin_run(job: PreparedJob, folder: Path, control: RunControl) -> Run:
    """Resolve a job's recipe, and hold the run in the folder and its resumptions to it (`run.json`).

    Raises `RequestError` where the processes cannot share a step, or cannot go on with the folder's
    run.
    """
    resolved = resolve_job_run(job, folder)
    notes = (*resolved.chosen, *job.notes, *resolved.notes)
    for note in notes:
        log.warning("%s", note)

    recipe = resolved.recipe
    batch = recipe.per_device_train_batch_size
    accumulation = recipe.gradient_accumulation_steps
    control.processes.share(batch, accumulation)
    if resolved.order_batch:
        # Merged batches have the samples of the recipe's own, step by step.
        recipe = recipe.with_values(
            per_device_train_batch_size=resolved.order_batch,
            gradient_accumulation_steps=batch * accumulation // resolved.order_batch,
        )
    config = ResumeConfig(
        recipe=recipe,
        used=resolved.recipe,
        batches=batches_hash(job.data, recipe),
        base_model=job.base.name,
        base_model_hash=fingerprint(job.base),
        # Sums over another number of threads differ in their last bits.
        threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        packages=package_versions(),
        processes=control.processes.count,
        asked=request_hash(job.spec),
        chosen=resolved.chosen,
        start=job.parent.weights if job.parent else "",
    )
    return Run(
        folder=folder,
        job=job,
        config=lock_config(folder, config),
        control=control,
        notes=notes,
    )
