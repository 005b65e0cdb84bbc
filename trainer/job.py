"""A job that is ready to run, and what a run of it goes by: everything that is known before a model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personas.base_model import BaseModel, load_tokenizer, locate, scaled
from personas.contracts import JobSpec, Phase, TrainerEvent
from personas.prompt import Renderer
from trainer.auto import for_samples
from trainer.dataset import Dataset, make_dataset
from trainer.frozen import CHECKPOINT_S, begun
from trainer.loop.account import Account
from trainer.loop.positions import require_positions
from trainer.loop.processes import Processes
from trainer.loop.target_modules import suited
from trainer.material import read_content, read_spec
from trainer.preference.use import only_filters
from trainer.process.holding import Hold
from trainer.recipe import Recipe, resolve
from trainer.scorecard.budget import Extent
from trainer.start import Start, start_of
from trainer.tokenizers import counting_tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A job that is ready to run. `tokenizer` is the base model's; `notes` say what it has other than as asked.

    `start` is the adapter that is trained further, None for a new one.
    """

    spec: JobSpec
    recipe: Recipe
    base: BaseModel
    tokenizer: Any
    data: Dataset
    notes: tuple[str, ...] = ()
    start: Start | None = None


@dataclass(frozen=True)
class Run:
    """One run: who hears of it (`emit`), what may stop it (`check`, called between steps), how often it is kept.

    `account` counts its time from here on; `hold` is waited for between batches. `processes` compute it together.
    `ignores_memory`: it begins even where the memory that it needs is not free. `card` says how much is measured of the
    adapter (`trainer.scorecard.card`).
    """

    emit: Callable[[TrainerEvent], None]
    check: Callable[[], None]
    checkpoint_s: float = CHECKPOINT_S
    account: Account = field(default_factory=Account)
    hold: Hold = field(default_factory=Hold)
    processes: Processes = field(default_factory=Processes)
    ignores_memory: bool = False
    card: Extent = "losses"

    def between(self) -> None:
        """Between two batches that are measured: give way, and stop when asked to."""
        self.hold.wait()
        self.check()

    def enter(self, phase: Phase) -> None:
        """Report a phase, and stop before it when asked to."""
        self.check()
        log.info("%s %s", phase.name, phase.detail)
        self.emit(phase)


def prepare(folder: Path, spec: JobSpec) -> Job:
    """Everything that is known before a model is loaded. The same folder gives the same samples every time."""
    return _prepared(folder, spec, load_tokenizer)


def planned(folder: Path) -> Job:
    """The same, without the model libraries: for a plan of the run."""
    return _prepared(folder, read_spec(folder), counting_tokenizer)


def _prepared(folder: Path, spec: JobSpec, tokenizer_of: Callable[[BaseModel], Any]) -> Job:
    recipe = resolve(spec.request)
    base = scaled(locate(spec.request.base_model), recipe.rope_scaling_type, recipe.rope_scaling_factor)
    start = start_of(folder, spec, base)
    if start and only_filters(folder, spec, recipe):
        recipe, start = start.trained_by(recipe, spec.request.hyperparameters), None
    recipe = for_samples(spec.request.recipe, recipe, base, begun(folder, spec))
    recipe, notes = suited(start.shaped(recipe, spec.request.hyperparameters) if start else recipe, base)
    tokenizer = tokenizer_of(base)
    data = make_dataset(read_content(folder, spec, recipe), Renderer(tokenizer), recipe)
    data = start.with_people(data) if start else data
    require_positions(base, max(len(sample.ids) for sample in (*data.trained, *data.heldout, *data.general)))
    return Job(spec, recipe, base, tokenizer, data, (*notes, *(start.notes if start else ()), *data.caveats), start)
