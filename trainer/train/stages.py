"""Trains a run in one or two stages, tracks it, and retries with smaller batches when memory runs
out.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personas.errors import TrainingError, is_out_of_memory
from personas.home.atomic_files import atomic_folder
from personas.home.job_attempt import CHECKPOINTS_FOLDER
from personas.models.base_model import fingerprint
from personas.models.probe import Float16OverflowError
from personas.prompt.renderer import TokenizedSample
from personas.schemas.training_events import TRAINER_EVENT, Epoch, Evaluation, Phase, Progress
from trainer.dataset.preference_policy import PreferenceSet
from trainer.machine import package_versions, probe_machine, release_memory
from trainer.process.events import StepEvent
from trainer.recipe.parent_adapter import load_parent_weights
from trainer.schemas import Recipe, ResolvedRecipe, epoch_count, optimiser_steps
from trainer.train.experiment_tracker import ExperimentTracker
from trainer.train.job import PreparedJob, RunContext, RunUsage
from trainer.train.resume_config import (
    ResumeConfig,
    batches_hash,
    lock_config,
    request_hash,
    write_resume_config,
)

if TYPE_CHECKING:
    from trainer.train.sft_trainer import TrainResult

FIRST_STAGE_FOLDER, STAGE_RESULT_FOLDER = "first-stage", "done"
"""Within the folder of checkpoints: those of the first stage, and its result."""

StepListener = Callable[[StepEvent], None]
BaseLosses = tuple[
    float, float
]  # losses of the untrained model on held-out replies and on general dialogue

log = logging.getLogger(__name__)


def resume_note(folder: Path) -> str:
    """Say for people at which step a stopped run goes on; empty for a new one."""
    from trainer.train.checkpoint import checkpoint_step, list_checkpoints  # imports torch: seconds

    checkpoints = list_checkpoints(folder / CHECKPOINTS_FOLDER)
    return f", then on from step {checkpoint_step(checkpoints[0])}" if checkpoints else ""


def lock_run(
    job: PreparedJob, resolved: ResolvedRecipe, folder: Path, run: RunContext
) -> ResumeConfig:
    """Fix the configuration that this run and its resumptions must match.

    Raises `RequestError` where the processes cannot share a step, or cannot go on with the folder's
    run.
    """
    recipe = resolved.recipe
    run.processes.share(recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps)
    config = ResumeConfig(
        recipe=recipe,
        batches=batches_hash(job.data, recipe),
        base_model=job.base.name,
        base_model_hash=fingerprint(job.base),
        threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        packages=package_versions(),
        batch=recipe.per_device_train_batch_size,
        accumulation=recipe.gradient_accumulation_steps,
        processes=run.processes.count,
        asked=request_hash(job.spec),
        chosen=resolved.chosen,
        start=job.start.weights if job.start else "",
    )
    return lock_config(folder, config)


def train_stages(
    job: PreparedJob, config: ResumeConfig, folder: Path, run: RunContext, before: BaseLosses
) -> tuple[TrainResult, ResumeConfig]:
    """Train to the end; when memory runs out, go on from the last checkpoint with smaller batches.

    A model whose numbers overflow in float16 is trained anew in another precision. With several
    processes the run ends in both cases: the others would wait for the one that failed.
    """
    account = run.account
    run.processes.join()
    run.processes.broadcast((config, before))
    while True:
        try:
            return _train_tracked(
                job, config, folder, replace(run, account=account), before
            ), config
        except Exception as error:
            changed = _changed_for(error, config)
            if changed is None or run.processes.is_distributed:
                raise
            if changed.precision != config.precision:
                log.warning("%s Training starts anew in %s.", error, changed.precision)
                shutil.rmtree(folder / CHECKPOINTS_FOLDER, ignore_errors=True)
            else:
                log.warning(
                    "out of memory with batches of %d: going on with %d",
                    config.batch,
                    changed.batch,
                )
        config = changed
        account = RunUsage()
        write_resume_config(folder, config)
        release_memory()


def _changed_for(error: Exception, config: ResumeConfig) -> ResumeConfig | None:
    """Return the configuration with which a run that failed so can go on; None if none helps."""
    if is_out_of_memory(error):
        return config.halved()
    if isinstance(error, Float16OverflowError):
        return config.without_float16("bf16" if probe_machine().best == "bf16" else "fp32")
    return None


def train_worker(job: PreparedJob, folder: Path, run: RunContext) -> None:
    """Compute this process's share of the training; the run's first process is in
    `train_stages`.
    """
    run.processes.join()
    config, before = run.processes.broadcast()
    _StageRunner(job, config, folder, run, before, lambda event: None).train()


def _train_tracked(
    job: PreparedJob, config: ResumeConfig, folder: Path, run: RunContext, before: BaseLosses
) -> TrainResult:
    request = job.spec.request
    name = f"{request.persona or 'dialogue'}-{job.spec.version}"
    tracking = ExperimentTracker(
        folder, name, {**config.used.hyperparameters, "recipe": request.recipe}, os.environ
    )

    def listen(event: StepEvent) -> None:
        run.emit(event)
        tracking.log_event(event)

    try:
        return _StageRunner(job, config, folder, run, before, listen).train()
    finally:
        tracking.close()


@dataclass(frozen=True)
class FirstStageResult:
    """Result of the first of two stages, with its events."""

    weights: dict[str, Any]
    history: tuple[StepEvent, ...]
    account: dict[str, Any]
    steps: int

    @classmethod
    def read(cls, folder: Path) -> FirstStageResult | None:
        """Read the stage's result from a folder; None if it is not done. Raises `TrainingError` for
        a damaged one.
        """
        from trainer.train.checkpoint import Checkpoint  # imports torch: seconds

        if not (folder / STAGE_RESULT_FOLDER).is_dir():
            return None
        parts = Checkpoint.read(folder / STAGE_RESULT_FOLDER).parts
        try:
            history = tuple(TRAINER_EVENT.validate_python(event) for event in parts["history"])
            return cls(parts["weights"], history, parts["account"], parts["steps"])  # type: ignore[arg-type]
        except (ValueError, LookupError) as error:
            what = (
                f"The result of the first stage in {folder / STAGE_RESULT_FOLDER} cannot be read: "
                f"{error}."
            )
            raise TrainingError(what, "Remove it and run again.") from error

    def write(self, folder: Path) -> None:
        """Write it atomically. Raises `OSError`."""
        from trainer.train.checkpoint import Checkpoint  # imports torch: seconds

        history = [event.model_dump() for event in self.history]
        parts = {
            "weights": self.weights,
            "history": history,
            "account": self.account,
            "steps": self.steps,
        }
        with atomic_folder(folder / STAGE_RESULT_FOLDER) as staging:
            Checkpoint(parts).write(staging)


@dataclass(frozen=True)
class _StageRunner:
    job: PreparedJob
    config: ResumeConfig
    folder: Path
    run: RunContext
    before: BaseLosses
    listen: StepListener

    def train(self) -> TrainResult:
        """Train all stages; the result's history covers all of them."""
        data = self.job.data
        recipe = self.config.used
        start = self.job.start
        begin = partial(load_parent_weights, start.folder) if start else None
        if data.preferences:
            self._enter(f"{len(data.train)} judged replies, by {data.preferences.method.upper()}")
            return self._stage(
                data.train, recipe, begin, None, CHECKPOINTS_FOLDER, self.listen, data.preferences
            )
        if not data.first:
            self._enter(f"{len(data.train)} replies")
            return self._stage(
                data.train, recipe, begin, self.before[0], CHECKPOINTS_FOLDER, self.listen
            )
        first = self._first(begin)
        self._enter(f"stage 2 of 2: {len(data.train)} replies")
        self.run.account.load_state_dict(first.account)
        shift = partial(_shift_event, stage=2, before=first.steps)
        restore = partial(_restore_first_stage, first.weights)
        trained = self._stage(
            data.train,
            recipe,
            restore,
            self.before[0],
            CHECKPOINTS_FOLDER,
            lambda event: self.listen(shift(event)),
        )
        return replace(trained, history=(*first.history, *map(shift, trained.history)))

    def _first(self, begin: Callable[[Any], None] | None) -> FirstStageResult:
        """Return the first stage's result: read if it is done, else trained now."""
        data = self.job.data
        recipe = self.config.used
        folder = self.folder / CHECKPOINTS_FOLDER / FIRST_STAGE_FOLDER
        if done := self.run.processes.broadcast(
            FirstStageResult.read(folder) if self.run.processes.is_first else None
        ):
            return done  # type: ignore[no-any-return]
        self._enter(f"stage 1 of 2: {len(data.first)} general replies")
        steps = optimiser_steps(recipe, len(data.train))
        tokens = sum(len(sample.ids) for sample in data.train) * epoch_count(
            recipe, len(data.train)
        )
        shift = partial(_shift_event, stage=1, after=steps, after_tokens=tokens)
        checkpoints = f"{CHECKPOINTS_FOLDER}/{FIRST_STAGE_FOLDER}"

        def listen(event: StepEvent) -> None:
            self.listen(shift(event))

        try:
            trained = self._stage(
                data.first, recipe.first_stage, begin, self.before[1], checkpoints, listen
            )
        except Float16OverflowError:  # which `train_stages` answers
            raise
        except TrainingError as error:
            advice = error.advice.replace("set learning_rate=", "set first_stage_learning_rate=")
            raise TrainingError(f"In the first stage: {error.message}", advice) from error
        done = _first_stage_result(trained, tuple(map(shift, trained.history)))
        del trained  # the model of the second stage takes its place
        release_memory()
        if self.run.processes.is_first:
            self.run.fence()
            done.write(folder)
        return done

    def _enter(self, detail: str) -> None:
        if self.config.has_reduced_batch:
            wanted = self.config.recipe.per_device_train_batch_size
            detail += f", memory allows batches of {self.config.batch} instead of {wanted}"
        if self.config.precision:
            detail += f", in {self.config.precision} because float16 overflows"
        if self.run.processes.is_first:
            self.run.enter(Phase(name="training", detail=detail))

    def _stage(
        self,
        samples: tuple[TokenizedSample, ...],
        recipe: Recipe,
        begin: Callable[[Any], None] | None,
        start_loss: float | None,
        folder: str,
        listen: StepListener,
        preferences: PreferenceSet | None = None,
    ) -> TrainResult:
        from trainer.train.sft_trainer import train_sft  # imports torch: seconds
        from trainer.train.trainer_base import StageInputs

        run = self.run
        course = StageInputs(
            samples,
            self.job.data.heldout,
            recipe,
            listen,
            run.processes.agreeing(run.check),
            folder=self.folder / folder,
            checkpoint_s=run.checkpoint_s,
            length_group_batch=self.config.recipe.per_device_train_batch_size,
            initial_loss=start_loss,
            account=run.account,
            hold=run.hold,
            processes=run.processes,
            begin=begin,
            fence=run.fence,
        )
        if preferences:
            from trainer.train.preference_trainer import train_preferences

            return train_preferences(self.job.base, self.job.tokenizer, course, preferences)
        return train_sft(self.job.base, self.job.tokenizer, course)


def _first_stage_result(trained: TrainResult, history: tuple[StepEvent, ...]) -> FirstStageResult:
    from trainer.train.checkpoint import trainable_weights  # imports torch: seconds

    weights = {
        name: weight.cpu().clone() for name, weight in trainable_weights(trained.model).items()
    }
    return FirstStageResult(weights, history, trained.account.state_dict(), history[-1].step)


def _restore_first_stage(weights: dict[str, Any], model: Any) -> None:
    from trainer.train.checkpoint import restore_weights  # imports torch: seconds

    restore_weights(model, weights)


def _shift_event(
    event: StepEvent, *, stage: int, before: int = 0, after: int = 0, after_tokens: float = 0.0
) -> Any:
    """Convert an event of one stage to one of the whole run, which counts the steps of both."""
    changes: dict[str, Any] = {"stage": stage, "step": event.step + before}
    if isinstance(event, Progress):
        later_s = after_tokens / event.tokens_per_s if event.tokens_per_s else 0.0
        changes |= {"of": before + event.of + after, "eta_s": event.eta_s + later_s}
    assert isinstance(event, Progress | Evaluation | Epoch)
    return event.model_copy(update=changes)
