"""Prepares a job (recipe, base model, tokenizer, data) and carries a run's context: events, checks, usage."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personas.models.base_model import BaseModel, load_tokenizer, read_tokenizer
from personas.prompt import Renderer
from personas.schemas.scorecard import EvaluationExtent
from personas.schemas.training import JobSpec
from personas.schemas.training_events import Phase, TrainerEvent
from trainer.data.dataset import Dataset
from trainer.data.job_inputs import read_job_inputs, read_spec
from trainer.data.loader import load_dataset
from trainer.data.run_dataset import job_dataset
from trainer.machine import MemoryWatch
from trainer.process.pause import PauseControl
from trainer.recipe.model_fit import require_context_length
from trainer.recipe.parent_adapter import ParentAdapter
from trainer.recipe.resolve import resolve_job
from trainer.schemas import Recipe
from trainer.train.distributed import DistributedContext
from trainer.train.resume_config import CHECKPOINT_INTERVAL_S, find_resume_config

log = logging.getLogger(__name__)


class RunUsage:
    """Counts from when it is made. What was spent after the last checkpoint of an earlier process is not known."""

    def __init__(self) -> None:
        self.memory = MemoryWatch()
        self._begun = time.perf_counter()
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Since the run began, without the time in which nothing ran."""
        return self._seconds_before + time.perf_counter() - self._begun

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"seconds": self.seconds, "peak_bytes": self.memory.peak().bytes}

    def load_state_dict(self, kept: Mapping[str, Any]) -> None:
        """Add what an earlier process spent, as a checkpoint has it; nothing where there is none."""
        if not kept:
            return
        self._seconds_before = float(kept.get("seconds", 0.0))
        self.memory.peak_before = int(kept.get("peak_bytes", 0))


def load_fast_tokenizer(base: BaseModel) -> Any:
    """The same tokens as `load_tokenizer` gives, in half a second.

    transformers' automatic class loads torch, which takes seconds. What a tokenizer does stands in `tokenizer.json`,
    where a model has one. Raises `BaseModelError`.
    """
    if not (base.folder / "tokenizer.json").exists():
        return load_tokenizer(base)
    from transformers import PreTrainedTokenizerFast

    tokenizer = read_tokenizer(PreTrainedTokenizerFast, base)
    return tokenizer if tokenizer.chat_template else load_tokenizer(base)  # which says what is missing


@dataclass(frozen=True)
class PreparedJob:
    """A job that is ready to run. `tokenizer` is the base model's; `notes` say what it has other than as asked.

    `start` is the adapter that is trained further, None for a new one.
    """

    spec: JobSpec
    recipe: Recipe
    base: BaseModel
    tokenizer: Any
    data: Dataset
    notes: tuple[str, ...] = ()
    start: ParentAdapter | None = None


@dataclass(frozen=True)
class RunContext:
    """One run: who hears of it (`emit`), what may stop it (`check`, called between steps), how often it is kept.

    `account` counts its time from here on; `hold` is waited for between batches. `processes` compute it together.
    `ignores_memory`: it begins even where the memory that it needs is not free. `card` says how much is measured of the
    adapter (`trainer.evaluate.evaluate_version`).
    """

    emit: Callable[[TrainerEvent], None]
    check: Callable[[], None]
    checkpoint_s: float = CHECKPOINT_INTERVAL_S
    account: RunUsage = field(default_factory=RunUsage)
    hold: PauseControl = field(default_factory=PauseControl)
    processes: DistributedContext = field(default_factory=DistributedContext)
    skips_memory_check: bool = False
    card: EvaluationExtent = "losses"

    def between(self) -> None:
        """Between two batches that are measured: give way, and stop when asked to."""
        self.hold.wait()
        self.check()

    def enter(self, phase: Phase) -> None:
        """Report a phase, and stop before it when asked to."""
        self.check()
        log.info("%s %s", phase.name, phase.detail)
        self.emit(phase)


def prepare_job(folder: Path, spec: JobSpec, *, stores_dataset: bool = False) -> PreparedJob:
    """Resolve a job's recipe and load its samples, before any model is. The same folder gives the same every time.

    `stores_dataset`: what is built for it stays in the job's folder. Raises `UnderstudyError`.
    """
    return _prepare_job(folder, spec, load_tokenizer, stores_dataset)


def prepare_job_without_torch(folder: Path) -> PreparedJob:
    """Prepare a job without the model libraries, for a plan of its run."""
    return _prepare_job(folder, read_spec(folder), load_fast_tokenizer, False)


def _prepare_job(
    folder: Path, spec: JobSpec, tokenizer_of: Callable[[BaseModel], Any], stores_dataset: bool
) -> PreparedJob:
    begun = find_resume_config(folder, spec)
    of = resolve_job(folder, spec, begun.resolved if begun else None)
    tokenizer, content = tokenizer_of(of.base), read_job_inputs(folder, spec)
    renderer = Renderer(tokenizer)
    with job_dataset(folder, spec, content, renderer, of.recipe, of.base, stores=stores_dataset) as built:
        data = load_dataset(built, content, renderer, of.recipe)
    data = of.parent.with_people(data) if of.parent else data
    require_context_length(of.base, max(len(sample.ids) for sample in (*data.trained, *data.heldout, *data.general)))
    return PreparedJob(spec, of.recipe, of.base, tokenizer, data, (*of.notes, *data.caveats), of.parent)
