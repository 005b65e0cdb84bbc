"""A prepared job (recipe, base model, tokenizer, data), and a run's context: events, checks,
usage.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from personas.home.job_folder import read_spec
from personas.models.base_model import BaseModel, load_tokenizer, read_config, read_tokenizer
from personas.models.known_tokens import require_known_tokens
from personas.prompt.renderer import Renderer
from personas.schemas.scorecard import EvaluationExtent
from personas.schemas.training import JobSpec
from personas.schemas.training_events import Phase, TrainerEvent
from trainer.dataset.dataset import Dataset
from trainer.dataset.job_inputs import read_job_inputs
from trainer.dataset.loader import load_job_dataset
from trainer.estimate.workload import Workload, workload_of
from trainer.machine import MemoryWatch
from trainer.process.run_control import PauseControl
from trainer.recipe.parent_adapter import ParentAdapter
from trainer.recipe.resolve import require_context_length, resolve_job
from trainer.schemas import Recipe
from trainer.train.distributed import DistributedContext
from trainer.train.resume_config import CHECKPOINT_INTERVAL_S, resumed_recipe

log = logging.getLogger(__name__)


class RunUsage:
    """Time and memory that a run takes, counted from its creation on.

    The usage of an earlier process is known up to that process's last checkpoint.
    """

    def __init__(self) -> None:
        self.memory = MemoryWatch()
        self._begun = time.perf_counter()
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the run began, without the time in which no process ran."""
        return self._seconds_before + time.perf_counter() - self._begun

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


def load_fast_tokenizer(base: BaseModel) -> Any:
    """Load a tokenizer that gives the same tokens as `load_tokenizer`, in half a second.

    transformers' automatic class imports torch, which takes seconds; where the model has a
    `tokenizer.json`, that is enough. Raises `BaseModelError`.
    """
    if not (base.folder / "tokenizer.json").exists():
        return load_tokenizer(base)
    from transformers import PreTrainedTokenizerFast  # importing takes half a second

    return read_tokenizer(PreTrainedTokenizerFast, base)


@dataclass(frozen=True)
class PreparedJob:
    """A job that is ready to run. `tokenizer` is the base model's; `notes` say what differs from
    the request.

    `start` is the adapter that is trained further, None for a new one.
    """

    spec: JobSpec
    recipe: Recipe
    base: BaseModel
    tokenizer: Any
    data: Dataset
    notes: tuple[str, ...] = ()
    start: ParentAdapter | None = None

    @property
    def workload(self) -> Workload:
        """The workload of all stages together."""
        method = self.data.preferences.method if self.data.preferences else None
        return workload_of(self.data.trained, self.data.heldout, self.data.general, method)


@dataclass(frozen=True)
class RunContext:
    """The context of one run: where its events go (`emit`), what may stop it (`check`, called
    between steps).

    A checkpoint is written every `checkpoint_s` seconds. `account` counts the run's usage from now
    on; `hold` is waited for between layers. `processes` train together. `skips_memory_check` starts
    the run even if the memory it needs is not free. `card` is the extent of the evaluation
    (`trainer.evaluate.evaluate_version`). `fence` is called before anything gets its final name,
    and raises if a newer attempt of the job runs elsewhere.
    """

    emit: Callable[[TrainerEvent], None]
    check: Callable[[], None]
    checkpoint_s: float = CHECKPOINT_INTERVAL_S
    account: RunUsage = field(default_factory=RunUsage)
    hold: PauseControl = field(default_factory=PauseControl)
    processes: DistributedContext = field(default_factory=DistributedContext)
    skips_memory_check: bool = False
    card: EvaluationExtent = "losses"
    fence: Callable[[], None] = lambda: None

    def between(self) -> None:
        """Pause or stop, between two layers of what is measured, if requested."""
        self.hold.wait()
        self.check()

    def enter(self, phase: Phase) -> None:
        """Report a phase, or stop before it if requested."""
        self.check()
        log.info("%s %s", phase.name, phase.detail)
        self.emit(phase)


def prepare_job(
    folder: Path,
    spec: JobSpec,
    *,
    stores_dataset: bool = False,
    between: Callable[[], object] = lambda: None,
) -> PreparedJob:
    """Resolve a job's recipe and load its samples, before any model is loaded; the same folder
    gives the same result.

    `stores_dataset` keeps the built samples in the job's folder. `between` is called between two
    conversations or samples. Raises `UnderstudyError`.
    """
    return _prepare_job(folder, spec, load_tokenizer, stores_dataset, between)


def prepare_job_without_torch(folder: Path) -> PreparedJob:
    """Prepare a job without the model libraries, for a plan of its run."""
    return _prepare_job(folder, read_spec(folder), load_fast_tokenizer, False, lambda: None)


def _prepare_job(
    folder: Path,
    spec: JobSpec,
    load: Callable[[BaseModel], Any],
    stores_dataset: bool,
    between: Callable[[], object],
) -> PreparedJob:
    inputs = replace(read_job_inputs(folder, spec), between=between)
    resolved = resolve_job(spec, inputs, resumed_recipe(folder, spec))
    recipe = resolved.recipe
    base = resolved.base
    parent = resolved.parent
    tokenizer = load(base)
    data = load_job_dataset(
        folder, spec, inputs, Renderer(tokenizer), recipe, base, stores=stores_dataset
    )
    samples = (*data.trained, *data.heldout, *data.general)
    require_known_tokens(
        (sample.ids for sample in samples), read_config(base).get("vocab_size"), tokenizer
    )
    require_context_length(base, max(len(sample.ids) for sample in samples))
    data = parent.with_people(data) if parent else data
    return PreparedJob(
        spec, recipe, base, tokenizer, data, (*resolved.notes, *data.caveats), parent
    )
