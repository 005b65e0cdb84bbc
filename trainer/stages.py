"""The training of a run: one stage, or two, of which the first learns from general dialogue and the second goes on.

What the first stage has learned is kept in the job folder until the run is done, so that a run which is taken up in its
second stage begins that as it would have.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personas.adapters import written_aside
from personas.contracts import TRAINER_EVENT, Epoch, Evaluation, Phase, Progress
from personas.errors import TrainingError
from personas.prompt import Sample
from trainer.fitted import epochs_of, steps_of
from trainer.frozen import CHECKPOINTS, Frozen, refreeze
from trainer.job import Job, Run
from trainer.loop.account import Account
from trainer.loop.memory import release_memory
from trainer.preference.judged import Preferences
from trainer.process.failures import is_out_of_memory
from trainer.recipe import Recipe
from trainer.report.curves import Told
from trainer.report.tracking import Tracking
from trainer.start import put_weights

if TYPE_CHECKING:
    from trainer.loop.qlora import Trained

FIRST_STAGE, DONE = "first-stage", "done"
"""Within the folder of checkpoints: those of the first stage, and what it has learned."""

Listen = Callable[[Told], None]
Losses = tuple[float, float]
"""Of the untrained model: on held-out replies, and on general dialogue."""

log = logging.getLogger(__name__)


def train(job: Job, frozen: Frozen, folder: Path, run: Run, before: Losses) -> tuple[Trained, Frozen]:
    """Train to the end; where memory runs out, go on from the last checkpoint with smaller batches.

    Of several processes only one may run out, and the others would wait for it: then the run ends.
    """
    account = run.account
    run.processes.join()
    run.processes.told((frozen, before))
    while True:
        try:
            return _tracked(job, frozen, folder, replace(run, account=account), before), frozen
        except Exception as error:
            smaller = frozen.halved() if is_out_of_memory(error) else None
            if smaller is None or run.processes.are_many:
                raise
            log.warning("out of memory with batches of %d: going on with %d", frozen.batch, smaller.batch)
        frozen, account = smaller, Account()
        refreeze(folder, frozen)
        release_memory()


def help_to_train(job: Job, folder: Path, run: Run) -> None:
    """Compute this process's share, beside the first process of the run, which is in `train`."""
    run.processes.join()
    frozen, before = run.processes.told()
    _Stages(job, frozen, folder, run, before, lambda event: None).train()


def _tracked(job: Job, frozen: Frozen, folder: Path, run: Run, before: Losses) -> Trained:
    request = job.spec.request
    name = f"{request.persona or 'dialogue'}-{job.spec.version}"
    tracking = Tracking(folder, name, {**frozen.used.hyperparameters, "recipe": request.recipe}, os.environ)

    def listen(event: Told) -> None:
        run.emit(event)
        tracking.note(event)

    try:
        return _Stages(job, frozen, folder, run, before, listen).train()
    finally:
        tracking.close()


@dataclass(frozen=True)
class FirstStage:
    """What the first of two stages has learned, and told."""

    weights: dict[str, Any]
    history: tuple[Told, ...]
    account: dict[str, Any]
    steps: int

    @classmethod
    def read(cls, folder: Path) -> FirstStage | None:
        """What is kept in a folder; None where the stage is not done. Raises `TrainingError` for a damaged one."""
        from trainer.loop.checkpoints import Checkpoint

        if not (folder / DONE).is_dir():
            return None
        parts = Checkpoint.read(folder / DONE).parts
        history = tuple(TRAINER_EVENT.validate_python(event) for event in parts["history"])
        return cls(parts["weights"], history, parts["account"], parts["steps"])  # type: ignore[arg-type]

    def write(self, folder: Path) -> None:
        """Keep it, whole or not at all. Raises `OSError`."""
        from trainer.loop.checkpoints import Checkpoint

        history = [event.model_dump() for event in self.history]
        parts = {"weights": self.weights, "history": history, "account": self.account, "steps": self.steps}
        with written_aside(folder / DONE) as aside:
            Checkpoint(parts).write(aside)


@dataclass(frozen=True)
class _Stages:
    job: Job
    frozen: Frozen
    folder: Path
    run: Run
    before: Losses
    listen: Listen

    def train(self) -> Trained:
        """All stages; the history is of them all."""
        data, recipe, start = self.job.data, self.frozen.used, self.job.start
        begin = partial(put_weights, start.folder) if start else None
        if data.preferences:
            self._enter(f"{len(data.train)} judged replies, by {data.preferences.method.upper()}")
            return self._stage(data.train, recipe, begin, None, CHECKPOINTS, self.listen, data.preferences)
        if not data.first:
            self._enter(f"{len(data.train)} replies")
            return self._stage(data.train, recipe, begin, self.before[0], CHECKPOINTS, self.listen)
        first = self._first(begin)
        self._enter(f"stage 2 of 2: {len(data.train)} replies")
        self.run.account.go_on_from(first.account)
        told = partial(_shifted, stage=2, before=first.steps)
        goes_on = partial(_restored, first.weights)
        trained = self._stage(
            data.train, recipe, goes_on, self.before[0], CHECKPOINTS, lambda it: self.listen(told(it))
        )
        return replace(trained, history=(*first.history, *map(told, trained.history)))

    def _first(self, begin: Callable[[Any], None] | None) -> FirstStage:
        """What the first stage has learned: read where it is done, else trained now."""
        data, recipe = self.job.data, self.frozen.used
        kept = self.folder / CHECKPOINTS / FIRST_STAGE
        if done := self.run.processes.told(FirstStage.read(kept) if self.run.processes.is_first else None):
            return done  # type: ignore[no-any-return]
        self._enter(f"stage 1 of 2: {len(data.first)} general replies")
        steps = steps_of(recipe, len(data.train))
        tokens = sum(len(sample.ids) for sample in data.train) * epochs_of(recipe, len(data.train))
        told = partial(_shifted, stage=1, after=steps, after_tokens=tokens)
        own = recipe.first_stage
        try:
            trained = self._stage(
                data.first, own, begin, self.before[1], f"{CHECKPOINTS}/{FIRST_STAGE}", lambda it: self.listen(told(it))
            )
        except TrainingError as error:
            advice = error.advice.replace("set learning_rate=", "set first_stage_learning_rate=")
            raise TrainingError(f"In the first stage: {error.message}", advice) from error
        done = _kept(trained, tuple(map(told, trained.history)))
        del trained  # the model of the second stage takes its place
        release_memory()
        if self.run.processes.is_first:
            done.write(kept)
        return done

    def _enter(self, detail: str) -> None:
        if self.frozen.is_halved:
            asked = self.frozen.recipe.per_device_train_batch_size
            detail += f", memory allows batches of {self.frozen.batch} instead of {asked}"
        if self.run.processes.is_first:
            self.run.enter(Phase(name="training", detail=detail))

    def _stage(
        self,
        samples: tuple[Sample, ...],
        recipe: Recipe,
        begin: Callable[[Any], None] | None,
        start_loss: float | None,
        folder: str,
        listen: Listen,
        preferences: Preferences | None = None,
    ) -> Trained:
        from trainer.loop.course import Course
        from trainer.loop.qlora import train_adapter

        run = self.run
        course = Course(
            samples,
            self.job.data.heldout,
            recipe,
            listen,
            run.processes.agreeing(run.check),
            folder=self.folder / folder,
            checkpoint_s=run.checkpoint_s,
            sorted_in=self.frozen.recipe.per_device_train_batch_size,
            start_loss=start_loss,
            account=run.account,
            hold=run.hold,
            processes=run.processes,
            begin=begin,
        )
        if preferences:
            from trainer.preference.training import train_by_preference

            return train_by_preference(self.job.base, self.job.tokenizer, course, preferences)
        return train_adapter(self.job.base, self.job.tokenizer, course)


def _kept(trained: Trained, history: tuple[Told, ...]) -> FirstStage:
    from trainer.loop.checkpoints import trained_weights

    weights = {name: weight.cpu().clone() for name, weight in trained_weights(trained.model).items()}
    return FirstStage(weights, history, trained.account.as_kept(), history[-1].step)


def _restored(weights: dict[str, Any], model: Any) -> None:
    from trainer.loop.checkpoints import restore_weights

    restore_weights(model, weights)


def _shifted(event: Told, *, stage: int, before: int = 0, after: int = 0, after_tokens: float = 0.0) -> Any:
    """An event of one stage as one of the whole run: steps are counted over both."""
    changes: dict[str, Any] = {"stage": stage, "step": event.step + before}
    if isinstance(event, Progress):
        later_s = after_tokens / event.tokens_per_s if event.tokens_per_s else 0.0
        changes |= {"of": before + event.of + after, "eta_s": event.eta_s + later_s}
    assert isinstance(event, Progress | Evaluation | Epoch)
    return event.model_copy(update=changes)
