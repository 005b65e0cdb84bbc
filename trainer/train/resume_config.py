"""The configuration a resumed run must match (run.json), and the checkpoints that belong to it."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from personas.errors import RequestError
from personas.home.atomic_files import write_private_file
from personas.home.job_attempt import CHECKPOINTS_FOLDER
from personas.prompt.renderer import TokenizedSample
from personas.schemas.base import FrozenModel
from personas.schemas.training import JobSpec
from trainer.dataset.dataset import Dataset
from trainer.estimate.workload import group_by_length
from trainer.schemas import Recipe, ResolvedRecipe

RUN_FILE = "run.json"
CHECKPOINT_INTERVAL_S = 45
"""Seconds between checkpoints: a run that is killed loses at most this much."""

log = logging.getLogger(__name__)


class ResumeConfig(FrozenModel):
    """`run.json`. `batches` is a hash over the samples' token ids and masks in the order of the
    first epoch.

    `recipe` is the one that orders the samples. `used` is the one in use: on a GPU with merged
    batches, with less of them once memory ran out, and in another precision once float16 was too
    small for the model. `base_model` is its name, with the commit of one from a hub. `asked` is a
    hash of the request; `chosen` has the reasons of the recipe `auto`. `start` is the SHA-256 of
    the weights that are trained further, empty for a new adapter.
    """

    recipe: Recipe
    used: Recipe
    batches: str
    base_model: str = ""
    base_model_hash: str
    threads: int
    processes: int = 1
    packages: dict[str, str]
    asked: str = ""
    chosen: tuple[str, ...] = ()
    start: str = ""

    @property
    def recomputes(self) -> bool:
        """Tell whether memory ran out with activations of some or all layers in it, so that
        gradient checkpointing was switched on for all.
        """
        return self.used.recomputes_all and not self.recipe.recomputes_all

    @property
    def has_reduced_batch(self) -> bool:
        """Tell whether the batch was reduced after running out of memory: results then differ in
        the last bits.
        """
        return self.used.per_device_train_batch_size < self.recipe.per_device_train_batch_size

    @property
    def has_other_precision(self) -> bool:
        """Tell whether float16 was too small for the model."""
        return self.used.precision != self.recipe.precision

    @property
    def caveats(self) -> tuple[str, ...]:
        """Caveats of the adapter that follow from this, for people."""
        caveats = []
        if self.processes > 1:
            caveats.append(f"{self.processes} processes trained it together.")
        if self.recomputes:
            caveats.append(
                "Memory ran out with activations in it, so the rest was trained with "
                "gradient_checkpointing of all layers: the weights are not, to the last bit, those "
                "of a run with more memory."
            )
        if self.has_reduced_batch:
            wanted = self.recipe.per_device_train_batch_size
            caveats.append(
                f"Memory ran out with batches of {wanted}, so the rest was trained with "
                f"{self.used.per_device_train_batch_size}: the weights are not, to the last bit, "
                "those of a run with more memory."
            )
        if self.has_other_precision:
            caveats.append(
                "The base model's numbers overflow in float16: it was trained in "
                f"{self.used.precision}."
            )
        return tuple(caveats)

    def without_float16(self, precision: Literal["bf16", "fp32"]) -> ResumeConfig | None:
        """Return it with this precision in place of float16; None if float16 is not in use."""
        if self.used.precision != "fp16":
            return None
        return self._using(precision=precision)

    def with_less_memory(self, *, is_on_gpu: bool) -> ResumeConfig | None:
        """Return it with smaller batches and more of them per step, or with gradient checkpointing
        of all layers; None if neither is left.

        A GPU keeps its batches as long as checkpointing can be switched on: with single samples it
        waits for the host. A CPU does that last: there, a checkpointed batch shares no prefix.
        """
        batch = self.used.per_device_train_batch_size
        if not self.used.recomputes_all and (is_on_gpu or batch == 1):
            return self._using(gradient_checkpointing=True, checkpoint_every_n_layers=1)
        if batch == 1:
            return None
        # A step keeps its samples: a batch that cannot be halved becomes single samples.
        factor = 2 if batch % 2 == 0 else batch
        return self._using(
            per_device_train_batch_size=batch // factor,
            gradient_accumulation_steps=self.used.gradient_accumulation_steps * factor,
        )

    def _using(self, **values: object) -> ResumeConfig:
        return self.model_copy(update={"used": self.used.with_values(**values)})


def request_hash(spec: JobSpec) -> str:
    """Hash a job's whole request (SHA-256)."""
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()


def resumed_recipe(folder: Path, spec: JobSpec) -> ResolvedRecipe | None:
    """Return the recipe of the run that is resumed in a folder; None if no run of this request has
    begun there.
    """
    if not (folder / CHECKPOINTS_FOLDER).is_dir():
        return None
    config = _read_resume_config(folder)
    if config is None or config.asked != request_hash(spec):
        return None
    order_batch = config.recipe.per_device_train_batch_size
    batch = config.used.per_device_train_batch_size
    if batch <= order_batch:
        return ResolvedRecipe(config.recipe, config.chosen)
    merged = config.recipe.with_values(
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=config.used.gradient_accumulation_steps,
    )
    return ResolvedRecipe(merged, config.chosen, order_batch=order_batch)


def resume_thread_count(folder: Path) -> int | None:
    """Return the number of threads of the run in a folder; None if none has begun."""
    config = _read_resume_config(folder)
    if config is None or not (folder / CHECKPOINTS_FOLDER).is_dir():
        return None
    return config.threads


def lock_config(folder: Path, wanted: ResumeConfig) -> ResumeConfig:
    """Return the folder's stored configuration if it belongs to the same run; else store and return
    `wanted`.

    The checkpoints of another run are removed. Raises `RequestError` if the number of processes has
    changed.
    """
    stored = _read_resume_config(folder)
    if stored and stored.processes != wanted.processes and (folder / CHECKPOINTS_FOLDER).is_dir():
        began = f"{stored.processes} processes"
        now = wanted.processes
        advice = f"Start it with {began}, or remove {folder / CHECKPOINTS_FOLDER} to start anew."
        raise RequestError(
            f"The run in {folder} began with {began}, and cannot go on with {now}.", advice
        )
    if stored and _is_same_run(stored, wanted):
        return stored
    # Anything that determines the computation has changed. Weights of such checkpoints would belong
    # to neither run.
    if (folder / CHECKPOINTS_FOLDER).is_dir():
        log.warning(
            "the checkpoints in %s are of a run with other settings, samples or packages: starting "
            "anew",
            folder,
        )
        shutil.rmtree(folder / CHECKPOINTS_FOLDER)
    write_resume_config(folder, wanted)
    return wanted


def write_resume_config(folder: Path, config: ResumeConfig) -> None:
    """Write `run.json` atomically."""
    write_private_file(folder / RUN_FILE, config.model_dump_json(indent=1).encode() + b"\n")


def batches_hash(data: Dataset, recipe: Recipe) -> str:
    """Hash the samples in their order (SHA-256), those of both stages if there are two."""
    digest = _sample_order_hash(data.train, recipe)
    if data.preferences:
        digest += data.preferences.marks
    if not data.first:
        return digest
    return hashlib.sha256((_sample_order_hash(data.first, recipe) + digest).encode()).hexdigest()


def _sample_order_hash(samples: Sequence[TokenizedSample], recipe: Recipe) -> str:
    digest = hashlib.sha256()
    lengths = [len(sample.ids) for sample in samples]
    for index in group_by_length(lengths, recipe.per_device_train_batch_size, recipe.seed):
        digest.update(repr((samples[index].ids, samples[index].mask)).encode())
    return digest.hexdigest()


def _read_resume_config(folder: Path) -> ResumeConfig | None:
    try:
        return ResumeConfig.model_validate_json((folder / RUN_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be read and is written anew: %s", folder / RUN_FILE, error)
        return None


def _is_same_run(stored: ResumeConfig, wanted: ResumeConfig) -> bool:
    """Compare all but what a resumed run takes over from the stored one: threads, and what was
    reduced on the way.
    """
    taken_over = ("threads", "used", "asked", "chosen")
    return stored.model_copy(update={name: getattr(wanted, name) for name in taken_over}) == wanted
