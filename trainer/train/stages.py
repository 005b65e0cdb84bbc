"""Trains a run in one or two stages, tracks it, and retries with smaller batches when memory runs out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personas.errors import TrainingError
from personas.home.atomic_files import atomic_folder
from personas.prompt import TokenizedSample
from personas.schemas.training_events import TRAINER_EVENT, Epoch, Evaluation, Phase, Progress
from trainer.data.preference_policy import PreferenceSet
from trainer.machine import release_memory
from trainer.process.events import StepEvent, is_out_of_memory
from trainer.recipe.parent_adapter import load_parent_weights
from trainer.schemas import Recipe, epoch_count, optimiser_steps
from trainer.train.experiment_tracker import ExperimentTracker
from trainer.train.job import PreparedJob, RunContext, RunUsage
from trainer.train.resume_config import CHECKPOINTS_FOLDER, ResumeConfig, write_resume_config

if TYPE_CHECKING:
    from trainer.train.sft_trainer import TrainResult

FIRST_STAGE_FOLDER, STAGE_RESULT_FOLDER = "first-stage", "done"
"""Within the folder of checkpoints: those of the first stage, and what it has learned."""

StepListener = Callable[[StepEvent], None]
BaseLosses = tuple[float, float]  # losses of the untrained model on held-out replies and on general dialogue

log = logging.getLogger(__name__)


def train_stages(
    job: PreparedJob, frozen: ResumeConfig, folder: Path, run: RunContext, before: BaseLosses
) -> tuple[TrainResult, ResumeConfig]:
    """Train to the end; where memory runs out, go on from the last checkpoint with smaller batches.

    Of several processes only one may run out, and the others would wait for it: then the run ends.
    """
    account = run.account
    run.processes.join()
    run.processes.told((frozen, before))
    while True:
        try:
            return _train_tracked(job, frozen, folder, replace(run, account=account), before), frozen
        except Exception as error:
            smaller = frozen.halved() if is_out_of_memory(error) else None
            if smaller is None or run.processes.is_distributed:
                raise
            log.warning("out of memory with batches of %d: going on with %d", frozen.batch, smaller.batch)
        frozen, account = smaller, RunUsage()
        write_resume_config(folder, frozen)
        release_memory()


def train_worker(job: PreparedJob, folder: Path, run: RunContext) -> None:
    """Compute this process's share, beside the first process of the run, which is in `train_stages`."""
    run.processes.join()
    frozen, before = run.processes.told()
    _StageRunner(job, frozen, folder, run, before, lambda event: None).train()


def _train_tracked(
    job: PreparedJob, frozen: ResumeConfig, folder: Path, run: RunContext, before: BaseLosses
) -> TrainResult:
    request = job.spec.request
    name = f"{request.persona or 'dialogue'}-{job.spec.version}"
    tracking = ExperimentTracker(folder, name, {**frozen.used.hyperparameters, "recipe": request.recipe}, os.environ)

    def listen(event: StepEvent) -> None:
        run.emit(event)
        tracking.note(event)

    try:
        return _StageRunner(job, frozen, folder, run, before, listen).train()
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
        """Reads the stage's result from a folder; None if it is not done. Raises `TrainingError` for a damaged one."""
        from trainer.train.checkpoint import Checkpoint

        if not (folder / STAGE_RESULT_FOLDER).is_dir():
            return None
        parts = Checkpoint.read(folder / STAGE_RESULT_FOLDER).parts
        history = tuple(TRAINER_EVENT.validate_python(event) for event in parts["history"])
        return cls(parts["weights"], history, parts["account"], parts["steps"])  # type: ignore[arg-type]

    def write(self, folder: Path) -> None:
        """Keep it, whole or not at all. Raises `OSError`."""
        from trainer.train.checkpoint import Checkpoint

        history = [event.model_dump() for event in self.history]
        parts = {"weights": self.weights, "history": history, "account": self.account, "steps": self.steps}
        with atomic_folder(folder / STAGE_RESULT_FOLDER) as aside:
            Checkpoint(parts).write(aside)


@dataclass(frozen=True)
class _StageRunner:
    job: PreparedJob
    frozen: ResumeConfig
    folder: Path
    run: RunContext
    before: BaseLosses
    listen: StepListener

    def train(self) -> TrainResult:
        """All stages; the history is of them all."""
        data, recipe, start = self.job.data, self.frozen.used, self.job.start
        begin = partial(load_parent_weights, start.folder) if start else None
        if data.preferences:
            self._enter(f"{len(data.train)} judged replies, by {data.preferences.method.upper()}")
            return self._stage(data.train, recipe, begin, None, CHECKPOINTS_FOLDER, self.listen, data.preferences)
        if not data.first:
            self._enter(f"{len(data.train)} replies")
            return self._stage(data.train, recipe, begin, self.before[0], CHECKPOINTS_FOLDER, self.listen)
        first = self._first(begin)
        self._enter(f"stage 2 of 2: {len(data.train)} replies")
        self.run.account.load_state_dict(first.account)
        told = partial(_shift_event, stage=2, before=first.steps)
        goes_on = partial(_restore_first_stage, first.weights)
        trained = self._stage(
            data.train, recipe, goes_on, self.before[0], CHECKPOINTS_FOLDER, lambda it: self.listen(told(it))
        )
        return replace(trained, history=(*first.history, *map(told, trained.history)))

    def _first(self, begin: Callable[[Any], None] | None) -> FirstStageResult:
        """Returns the first stage's result: read if it is done, else trained now."""
        data, recipe = self.job.data, self.frozen.used
        kept = self.folder / CHECKPOINTS_FOLDER / FIRST_STAGE_FOLDER
        if done := self.run.processes.told(FirstStageResult.read(kept) if self.run.processes.is_first else None):
            return done  # type: ignore[no-any-return]
        self._enter(f"stage 1 of 2: {len(data.first)} general replies")
        steps = optimiser_steps(recipe, len(data.train))
        tokens = sum(len(sample.ids) for sample in data.train) * epoch_count(recipe, len(data.train))
        told = partial(_shift_event, stage=1, after=steps, after_tokens=tokens)
        own = recipe.first_stage
        try:
            trained = self._stage(
                data.first,
                own,
                begin,
                self.before[1],
                f"{CHECKPOINTS_FOLDER}/{FIRST_STAGE_FOLDER}",
                lambda it: self.listen(told(it)),
            )
        except TrainingError as error:
            advice = error.advice.replace("set learning_rate=", "set first_stage_learning_rate=")
            raise TrainingError(f"In the first stage: {error.message}", advice) from error
        done = _first_stage_result(trained, tuple(map(told, trained.history)))
        del trained  # the model of the second stage takes its place
        release_memory()
        if self.run.processes.is_first:
            done.write(kept)
        return done

    def _enter(self, detail: str) -> None:
        if self.frozen.has_reduced_batch:
            asked = self.frozen.recipe.per_device_train_batch_size
            detail += f", memory allows batches of {self.frozen.batch} instead of {asked}"
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
        from trainer.train.sft_trainer import train_sft
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
            length_group_batch=self.frozen.recipe.per_device_train_batch_size,
            initial_loss=start_loss,
            account=run.account,
            hold=run.hold,
            processes=run.processes,
            begin=begin,
        )
        if preferences:
            from trainer.train.preference_trainer import train_preferences

            return train_preferences(self.job.base, self.job.tokenizer, course, preferences)
        return train_sft(self.job.base, self.job.tokenizer, course)


def _first_stage_result(trained: TrainResult, history: tuple[StepEvent, ...]) -> FirstStageResult:
    from trainer.train.checkpoint import trainable_weights

    weights = {name: weight.cpu().clone() for name, weight in trainable_weights(trained.model).items()}
    return FirstStageResult(weights, history, trained.account.state_dict(), history[-1].step)


def _restore_first_stage(weights: dict[str, Any], model: Any) -> None:
    from trainer.train.checkpoint import restore_weights

    restore_weights(model, weights)


def _shift_event(event: StepEvent, *, stage: int, before: int = 0, after: int = 0, after_tokens: float = 0.0) -> Any:
    """An event of one stage as one of the whole run: steps are counted over both."""
    changes: dict[str, Any] = {"stage": stage, "step": event.step + before}
    if isinstance(event, Progress):
        later_s = after_tokens / event.tokens_per_s if event.tokens_per_s else 0.0
        changes |= {"of": before + event.of + after, "eta_s": event.eta_s + later_s}
    assert isinstance(event, Progress | Evaluation | Epoch)
    return event.model_copy(update=changes)
