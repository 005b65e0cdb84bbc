"""Trains a run in one or two stages, tracks it, and goes on with less memory when that runs out."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personas.errors import TrainingError, is_out_of_memory
from personas.home.atomic_files import atomic_folder
from personas.models.probe import Float16OverflowError
from personas.prompt.renderer import TokenizedSample
from personas.schemas.training_events import TRAINER_EVENT, Epoch, Evaluation, Phase, Progress
from trainer.machine import probe_machine, release_memory
from trainer.process.events import StepEvent
from trainer.recipe.parent_adapter import load_parent_weights
from trainer.schemas import Recipe, epoch_count, optimiser_steps
from trainer.train.experiment_tracker import ExperimentTracker
from trainer.train.job import PreparedJob
from trainer.train.resume_config import ResumeConfig
from trainer.train.training_run import Run, RunControl

if TYPE_CHECKING:
    from trainer.train.sft_trainer import TrainResult
    from trainer.train.trainer_base import StageInputs

FIRST_STAGE_FOLDER = "first-stage"
"""Within the folder of checkpoints: those of the first stage."""
STAGE_RESULT_FOLDER = "done"
"""Within the first stage's folder: its result."""
StepListener = Callable[[StepEvent], None]
AdapterLoader = Callable[[Any], None]
"""Loads weights into a model's new adapter."""
InitialLosses = tuple[float, float]
"""Losses of the untrained model on held-out replies and on general dialogue."""

log = logging.getLogger(__name__)


def train_stages(run: Run, initial_losses: InitialLosses) -> TrainResult:
    """Train to the end; when memory runs out, go on from the last checkpoint with gradient
    checkpointing or smaller batches.

    A model whose numbers overflow in float16 is trained anew in another precision. With several
    processes the run ends in both cases: the others would wait for the one that failed.
    """
    processes = run.control.processes
    processes.join()
    processes.broadcast((run.config, initial_losses))
    while True:
        try:
            return _train_tracked(run, initial_losses)
        except Exception as error:
            changed = _changed_for(error, run.config)
            if changed is None or processes.is_distributed:
                raise
            if changed.used.precision != run.recipe.precision:
                log.warning("%s Training starts anew in %s.", error, changed.used.precision)
                shutil.rmtree(run.checkpoints, ignore_errors=True)
            else:
                log.warning(
                    "out of memory with batches of %d: going on with %d%s",
                    run.recipe.per_device_train_batch_size,
                    changed.used.per_device_train_batch_size,
                    " and gradient checkpointing" if changed.recomputes else "",
                )
        # Outside of the handler, whose traceback holds the tensors of the step that failed.
        run.go_on_with(changed)
        release_memory()


def _changed_for(error: Exception, config: ResumeConfig) -> ResumeConfig | None:
    """Return the configuration with which a run that failed so can go on; None if none helps."""
    if is_out_of_memory(error):
        return config.with_less_memory(is_on_gpu=probe_machine().has_cuda)
    if isinstance(error, Float16OverflowError):
        has_bfloat16 = probe_machine().best == "bf16"
        return config.without_float16("bf16" if has_bfloat16 else "fp32")
    return None


def train_worker(job: PreparedJob, folder: Path, control: RunControl) -> None:
    """Compute this process's share of the training; the run's first process is in
    `train_stages`.
    """
    control.processes.join()
    config, initial_losses = control.processes.broadcast()
    run = Run(folder=folder, job=job, config=config, control=control)
    _StageTrainer(run, initial_losses, lambda event: None).train()


def _train_tracked(run: Run, initial_losses: InitialLosses) -> TrainResult:
    request = run.job.spec.request
    name = f"{request.persona or 'dialogue'}-{run.job.spec.version}"
    settings = {**run.recipe.hyperparameters, "recipe": request.recipe}
    tracking = ExperimentTracker(run.folder, name, settings, os.environ)

    def listen(event: StepEvent) -> None:
        run.control.report(event)
        tracking.log_event(event)

    try:
        return _StageTrainer(run, initial_losses, listen).train()
    finally:
        tracking.close()


@dataclass(frozen=True)
class FirstStageResult:
    """Result of the first of two stages, with its events; `usage` is the state of `RunUsage`."""

    weights: dict[str, Any]
    history: tuple[StepEvent, ...]
    usage: dict[str, Any]
    steps: int

    @classmethod
    def read(cls, folder: Path) -> FirstStageResult | None:
        """Read the stage's result from a folder; None if it is not done. Raises `TrainingError` for
        a damaged one.
        """
        from trainer.train.checkpoint import Checkpoint  # imports torch: seconds

        if not (folder / STAGE_RESULT_FOLDER).is_dir():
            return None
        parts: dict[str, Any] = dict(Checkpoint.read(folder / STAGE_RESULT_FOLDER).parts)
        try:
            return cls(
                weights=parts["weights"],
                history=tuple(map(TRAINER_EVENT.validate_python, parts["history"])),  # type: ignore[arg-type]
                usage=parts["account"],
                steps=parts["steps"],
            )
        except (ValueError, LookupError) as error:
            raise TrainingError(
                f"The result of the first stage in {folder / STAGE_RESULT_FOLDER} cannot be read: "
                f"{error}.",
                "Remove it and run again.",
            ) from error

    def write(self, folder: Path) -> None:
        """Write it atomically. Raises `OSError`."""
        from trainer.train.checkpoint import Checkpoint  # imports torch: seconds

        parts = {
            "weights": self.weights,
            "history": [event.model_dump() for event in self.history],
            "account": self.usage,
            "steps": self.steps,
        }
        with atomic_folder(folder / STAGE_RESULT_FOLDER) as staging:
            Checkpoint(parts).write(staging)


@dataclass(frozen=True)
class _StagePlan:
    """One of two stages: its samples and recipe. `detail` says for people what it trains on, and
    `rate_setting` names its learning rate.
    """

    samples: tuple[TokenizedSample, ...]
    detail: str
    recipe: Recipe
    initial_loss: float | None = None
    rate_setting: str = "learning_rate"

    @property
    def steps(self) -> int:
        """The optimiser steps of the stage."""
        return optimiser_steps(self.recipe, len(self.samples))

    @property
    def tokens(self) -> float:
        """The tokens that the stage trains on, each as often as it does."""
        samples = self.samples
        return sum(len(sample.ids) for sample in samples) * epoch_count(self.recipe, len(samples))


@contextmanager
def _naming(plan: _StagePlan, where: str) -> Iterator[None]:
    """For a `with` block, let errors name the stage and its own learning rate, if it has one."""
    try:
        yield
    except Float16OverflowError:  # which `train_stages` answers
        raise
    except TrainingError as error:
        if plan.rate_setting == "learning_rate":
            raise
        advice = error.advice.replace("set learning_rate=", f"set {plan.rate_setting}=")
        raise TrainingError(f"{where}: {error.message}", advice) from error


@dataclass(frozen=True)
class _StageTrainer:
    run: Run
    initial_losses: InitialLosses
    listen: StepListener

    def train(self) -> TrainResult:
        """Train all stages; the result's history covers all of them."""
        job = self.run.job
        data = job.data
        begin = partial(load_parent_weights, job.parent.folder) if job.parent else None
        if data.preferences:
            self._enter(f"{len(data.train)} judged replies, by {data.preferences.method.upper()}")
            return self._train_stage(self._stage(data.train, begin=begin))
        loss, _ = self.initial_losses
        if not data.first:
            self._enter(f"{len(data.train)} replies")
            return self._train_stage(self._stage(data.train, begin=begin, initial_loss=loss))

        first_plan, second = self._two_stages()
        first = self._first_stage(first_plan, second, begin)
        self._enter(f"stage 2 of 2: {second.detail}")
        shift = partial(_shift_event, stage=2, before=first.steps)
        stage = self._stage(
            second.samples,
            recipe=second.recipe,
            begin=partial(_restore_first_stage, first.weights),
            initial_loss=second.initial_loss,
            listen=lambda event: self.listen(shift(event)),
            earlier_steps=first_plan.tokens / second.tokens * second.steps,
        )
        with _naming(second, "In the second stage"):
            trained = self._train_stage(stage)
        return replace(trained, history=(*first.history, *map(shift, trained.history)))

    def _two_stages(self) -> tuple[_StagePlan, _StagePlan]:
        """Return what the two stages train on, and how."""
        data = self.run.job.data
        recipe = self.run.recipe
        loss, general_loss = self.initial_losses
        own = _StagePlan(
            data.train, detail=f"{len(data.train)} replies", recipe=recipe, initial_loss=loss
        )
        general = _StagePlan(
            data.first,
            detail=f"{len(data.first)} general replies",
            recipe=recipe.first_stage,
            initial_loss=general_loss,
            rate_setting="first_stage_learning_rate",
        )
        return general, own

    def _first_stage(
        self, plan: _StagePlan, later: _StagePlan, begin: AdapterLoader | None
    ) -> FirstStageResult:
        """Return the first stage's result: read if it is done, else trained now."""
        control = self.run.control
        folder = self.run.checkpoints / FIRST_STAGE_FOLDER
        stored = FirstStageResult.read(folder) if control.processes.is_first else None
        result: FirstStageResult | None = control.processes.broadcast(stored)
        if result:
            # An earlier process trained it; this one has counted what it trains itself.
            control.usage.load_state_dict(result.usage)
            return result
        self._enter(f"stage 1 of 2: {plan.detail}")
        shift = partial(_shift_event, stage=1, after=later.steps, after_tokens=later.tokens)
        stage = self._stage(
            plan.samples,
            recipe=plan.recipe,
            begin=begin,
            initial_loss=plan.initial_loss,
            folder=folder,
            listen=lambda event: self.listen(shift(event)),
            later_steps=later.tokens / plan.tokens * plan.steps,
        )
        with _naming(plan, "In the first stage"):
            trained = self._train_stage(stage)
        history = tuple(map(shift, trained.history))
        result = FirstStageResult(
            weights=_adapter_weights(trained.model),
            history=history,
            usage=control.usage.state_dict(),
            steps=history[-1].step,
        )
        del trained  # the model of the second stage takes its place
        release_memory()
        if control.processes.is_first:
            control.fence()
            result.write(folder)
        return result

    def _enter(self, detail: str) -> None:
        config = self.run.config
        if config.has_reduced_batch:
            wanted = config.recipe.per_device_train_batch_size
            batch = config.used.per_device_train_batch_size
            detail += f", memory allows batches of {batch} instead of {wanted}"
        if config.recomputes:
            detail += ", with gradient checkpointing because memory ran out"
        if config.has_other_precision:
            detail += f", in {config.used.precision} because float16 overflows"
        if self.run.control.processes.is_first:
            self.run.control.enter(Phase(name="training", detail=detail, share=0.0))

    def _stage(
        self,
        samples: tuple[TokenizedSample, ...],
        *,
        recipe: Recipe | None = None,
        begin: AdapterLoader | None,
        initial_loss: float | None = None,
        folder: Path | None = None,
        listen: StepListener | None = None,
        earlier_steps: float = 0.0,
        later_steps: float = 0.0,
    ) -> StageInputs:
        """Return the inputs of a stage; by default those of the last one."""
        from trainer.train.trainer_base import StageInputs  # imports torch: seconds

        run = self.run
        return StageInputs(
            train=samples,
            heldout=run.job.data.heldout,
            recipe=recipe or run.recipe,
            listen=listen or self.listen,
            control=run.control,
            folder=folder or run.checkpoints,
            # Smaller batches after an out-of-memory error keep the order of the samples.
            length_group_batch=run.config.recipe.per_device_train_batch_size,
            initial_loss=initial_loss,
            begin=begin,
            earlier_steps=earlier_steps,
            later_steps=later_steps,
        )

    def _train_stage(self, stage: StageInputs) -> TrainResult:
        job = self.run.job
        if job.data.preferences:
            from trainer.train.preference_trainer import train_preferences  # imports torch

            return train_preferences(job.base, job.tokenizer, stage, job.data.preferences)
        from trainer.train.sft_trainer import train_sft  # imports torch: seconds

        return train_sft(job.base, job.tokenizer, stage)


def _adapter_weights(model: Any) -> dict[str, Any]:
    from trainer.train.checkpoint import trainable_weights  # imports torch: seconds

    return {name: weight.cpu().clone() for name, weight in trainable_weights(model).items()}


def _restore_first_stage(weights: dict[str, Any], model: Any) -> None:
    from trainer.train.checkpoint import restore_weights  # imports torch: seconds

    restore_weights(model, weights)


def _shift_event(
    event: StepEvent, *, stage: int, before: int = 0, after: int = 0, after_tokens: float = 0.0
) -> Any:
    """Convert an event of one stage to one of the whole run, which counts the steps of both."""
    changes: dict[str, Any] = {"stage": stage, "step": event.step + before}
    if isinstance(event, Progress):
        later_s = 0.0
        if event.tokens_per_s:
            later_s = after_tokens / event.tokens_per_s
        changes["of"] = before + event.of + after
        changes["eta_s"] = event.eta_s + later_s
    assert isinstance(event, Progress | Evaluation | Epoch)
    return event.model_copy(update=changes)
