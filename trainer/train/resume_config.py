"""The configuration a resumed run must match (run.json), and the checkpoints that belong to it."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from personas.errors import RequestError
from personas.home.atomic_files import write_private_file
from personas.prompt import TokenizedSample
from personas.schemas.base import FrozenModel
from personas.schemas.training import JobSpec
from trainer.data.dataset import Dataset
from trainer.estimate.workload import group_by_length
from trainer.schemas import Recipe, ResolvedRecipe

RUN_FILE, CHECKPOINTS_FOLDER = "run.json", "checkpoints"
CHECKPOINT_INTERVAL_S = 45
"""Seconds between checkpoints: a run that is killed loses at most this much."""

log = logging.getLogger(__name__)


class ResumeConfig(FrozenModel):
    """`run.json`. `batches` is a hash over the samples' token ids and masks in the order of the first epoch.

    `base_model` is its name, with the commit of one that came from a hub. `batch` and `accumulation` are those in use:
    the recipe's, until memory runs out. `asked` is a hash of the request; `chosen` says why the recipe `auto` is as it
    is. `start` is the SHA-256 of the weights that are trained further, empty for a new adapter.
    """

    recipe: Recipe
    batches: str
    base_model: str = ""
    base_model_hash: str
    threads: int
    processes: int = 1
    packages: dict[str, str]
    batch: int
    accumulation: int
    asked: str = ""
    chosen: tuple[str, ...] = ()
    start: str = ""

    @property
    def resolved(self) -> ResolvedRecipe:
        """The recipe as it was resolved when the run began."""
        return ResolvedRecipe(self.recipe, self.chosen)

    @property
    def used(self) -> Recipe:
        """The recipe with the batches that are in use."""
        batches = {"per_device_train_batch_size": self.batch, "gradient_accumulation_steps": self.accumulation}
        return self.recipe.model_copy(update=batches)

    @property
    def has_reduced_batch(self) -> bool:
        """Tells whether the batch was reduced after running out of memory: results then differ in the last bits."""
        return self.batch != self.recipe.per_device_train_batch_size

    @property
    def caveats(self) -> tuple[str, ...]:
        """Caveats that this adds to the adapter, for people."""
        together = (f"{self.processes} processes trained it together.",) if self.processes > 1 else ()
        if not self.has_reduced_batch:
            return together
        asked = self.recipe.per_device_train_batch_size
        return (
            *together,
            f"Memory ran out with batches of {asked}, so the rest was trained with {self.batch}: the weights are not, "
            "to the last bit, those of a run with more memory.",
        )

    def halved(self) -> ResumeConfig | None:
        """The same with smaller batches and more of them a step; None when a batch is one sample already."""
        if self.batch == 1:
            return None
        factor = 2 if self.batch % 2 == 0 else self.batch
        smaller = {"batch": self.batch // factor, "accumulation": self.accumulation * factor}
        return self.model_copy(update=smaller)


def request_hash(spec: JobSpec) -> str:
    """SHA-256 over all that a job is asked for."""
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()


def find_resume_config(folder: Path, spec: JobSpec) -> ResumeConfig | None:
    """Finds the resume config of this very request in the folder; None if no run has begun."""
    kept = _read_resume_config(folder) if (folder / CHECKPOINTS_FOLDER).is_dir() else None
    return kept if kept and kept.asked == request_hash(spec) else None


def resume_thread_count(folder: Path) -> int | None:
    """Returns the number of threads of the run in a folder; None if none has begun."""
    kept = _read_resume_config(folder)
    return kept.threads if kept and (folder / CHECKPOINTS_FOLDER).is_dir() else None


def lock_config(folder: Path, wanted: ResumeConfig) -> ResumeConfig:
    """Hold the run to this; what it is held to already is given back where it is the same run.

    The checkpoints of another one are removed. Raises `RequestError` where so many processes cannot go on.
    """
    kept = _read_resume_config(folder)
    if kept and kept.processes != wanted.processes and (folder / CHECKPOINTS_FOLDER).is_dir():
        began, now = f"{kept.processes} processes", wanted.processes
        advice = f"Start it with {began}, or remove {folder / CHECKPOINTS_FOLDER} to start anew."
        raise RequestError(f"The run in {folder} began with {began}, and cannot go on with {now}.", advice)
    if kept and _is_same_run(kept, wanted):
        return kept
    if (folder / CHECKPOINTS_FOLDER).is_dir():
        log.warning(
            "the checkpoints in %s are of a run with other settings, samples or packages: starting anew", folder
        )
        shutil.rmtree(folder / CHECKPOINTS_FOLDER)
    write_resume_config(folder, wanted)
    return wanted


def write_resume_config(folder: Path, frozen: ResumeConfig) -> None:
    """Write `run.json`, aside and renamed."""
    write_private_file(folder / RUN_FILE, frozen.model_dump_json(indent=1).encode() + b"\n")


def batches_hash(data: Dataset, recipe: Recipe) -> str:
    """SHA-256 over which samples come in which order, in both stages where there are two."""
    second = _sample_order_hash(data.train, recipe) + (data.preferences.marks if data.preferences else "")
    return (
        hashlib.sha256((_sample_order_hash(data.first, recipe) + second).encode()).hexdigest() if data.first else second
    )


def _sample_order_hash(samples: Sequence[TokenizedSample], recipe: Recipe) -> str:
    order = group_by_length([len(s.ids) for s in samples], recipe.per_device_train_batch_size, recipe.seed)
    digest = hashlib.sha256()
    for place in order:
        digest.update(repr((samples[place].ids, samples[place].mask)).encode())
    return digest.hexdigest()


def _read_resume_config(folder: Path) -> ResumeConfig | None:
    try:
        return ResumeConfig.model_validate_json((folder / RUN_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be read and is made anew: %s", folder / RUN_FILE, error)
        return None


def _is_same_run(kept: ResumeConfig, wanted: ResumeConfig) -> bool:
    """Whoever resumes takes the threads that the run began with. Smaller batches are the run's own doing."""
    own = {name: getattr(wanted, name) for name in ("threads", "batch", "accumulation", "asked", "chosen")}
    return kept.model_copy(update=own) == wanted
