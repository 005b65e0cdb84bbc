"""What a training run goes by, and what every trainer of ours does alike: measuring, and checkpoints without pickle."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import rotate_checkpoints

from personas.adapters import written_aside
from personas.contracts import Epoch, Evaluation, Progress
from personas.prompt import Sample
from trainer.evaluate import mean_loss, measure
from trainer.frozen import CHECKPOINT_S
from trainer.kernels.choice import Kernels
from trainer.loop.account import Account
from trainer.loop.checkpoints import (
    NAME,
    Checkpoint,
    random_state,
    restore_random_state,
    restore_weights,
    trained_weights,
)
from trainer.loop.processes import Processes
from trainer.process.failures import failure
from trainer.process.holding import Hold
from trainer.recipe import Recipe

TRAINER_STATE = "trainer_state.json"

Heard = Progress | Evaluation | Epoch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Course:
    """What a training run goes by. `listen` gets each event; `check` raises `Stopped` to stop, between steps.

    `folder` is where checkpoints are kept, one every `checkpoint_s`; a run that finds some goes on from the latest.
    `order` is the samples' in every epoch, where it is not to be drawn; else those of `sorted_in` samples are about
    equally long (0: of a batch). `start_loss` is the untrained model's on held-out replies, None where nobody measured
    it. `account` counts time and memory. `hold` is waited for between batches. Where `processes` are many, each
    computes its share. `begin` puts weights into the new adapter before the first step.
    """

    train: Sequence[Sample]
    heldout: Sequence[Sample]
    recipe: Recipe
    listen: Callable[[Heard], None]
    check: Callable[[], None]
    folder: Path | None = None
    checkpoint_s: float = CHECKPOINT_S
    order: Sequence[int] = ()
    sorted_in: int = 0
    start_loss: float | None = None
    account: Account = field(default_factory=Account)
    hold: Hold = field(default_factory=Hold)
    processes: Processes = field(default_factory=Processes)
    begin: Callable[[Any], None] | None = None

    def between(self) -> None:
        """Between two batches that are measured: give way, and stop when asked to; many stop only together."""
        self.hold.wait()
        if not self.processes.are_many:
            self.check()


class CourseTrainer:
    """A trainer of TRL's that goes by a course: put before it among the bases of a class.

    Since this process began, `tokens_done` counts the samples' own tokens, `measuring_s` the seconds of measuring.
    What `remembers` gives is kept in every checkpoint; after a resume `remembered` holds it. `trouble` says why the
    last checkpoint could not be written, empty where it could.
    """

    def __init__(self, course: Course, kernels: Kernels, **options: Any) -> None:
        self._course, self.kernels = course, kernels
        self.tokens_done = 0
        self.measuring_s = 0.0
        self.remembered: dict[str, Any] = {}
        self._resumed: dict[str, Any] = {}
        self.remembers: Callable[[], dict[str, Any]] = dict
        self.trouble = ""
        self._best: dict[str, Any] = {}
        self.optimizer: Any
        self.control: Any
        self.model: Any
        self.args: Any
        self.state: Any
        self.accelerator: Any
        self.lr_scheduler: Any
        self.callback_handler: Any
        self.log: Any
        self.train: Any
        self.add_callback: Any
        self.remove_callback: Any
        super().__init__(**options)

    def create_optimizer(self, model: Any = None) -> Any:
        """The recipe's optimiser; with LoRA+ (arXiv 2402.12354) B learns faster than A by its ratio."""
        ratio = self._course.recipe.loraplus_lr_ratio
        if ratio and self.optimizer is None:
            from peft.optimizers import create_loraplus_optimizer

            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)  # type: ignore[attr-defined]
            self.optimizer = create_loraplus_optimizer(
                self.model, kind, loraplus_lr_ratio=ratio, loraplus_weight_decay=self.args.weight_decay, **options
            )
        given = (model,) if model is not None else ()
        return super().create_optimizer(*given)  # type: ignore[misc]  # the other base is a trainer of TRL's

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """`eval_loss`: nats per held-out reply token, in the precision of training."""
        begun = time.perf_counter()
        loss = self._heldout_loss()
        self.measuring_s += time.perf_counter() - begun
        metrics = {"eval_loss": loss}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _heldout_loss(self) -> float:
        course, processes = self._course, self._course.processes
        share = course.heldout[processes.index :: processes.count]
        losses = measure(self.model, share, course.between, self.kernels.packing)
        if not processes.are_many:
            return mean_loss(losses)
        nll, tokens = processes.sums(math.fsum(loss.nll for loss in losses), sum(loss.tokens for loss in losses))
        return nll / tokens

    # ------------------------------------------------------------------------------------- checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Where it cannot be written the run goes on: it is tried again when the next one is due."""
        if not self._course.processes.is_first:
            return
        try:
            self._keep_checkpoint()
            self.trouble = ""
        except (OSError, SafetensorError) as error:
            if self.state.best_global_step == self.state.global_step:
                self.state.best_model_checkpoint = None
                self._best = {name: weight.clone() for name, weight in trained_weights(self.model).items()}
            cause = failure(error).cause
            self.trouble = f"No checkpoint could be written at step {self.state.global_step}. {cause}"
            log.warning("%s Training goes on; the next one is tried in time.", self.trouble)

    def _keep_checkpoint(self) -> None:
        folder = Path(self.args.output_dir) / f"{NAME}{self.state.global_step}"
        if self.state.best_global_step:
            best = folder.with_name(f"{NAME}{self.state.best_global_step}")
            self.state.best_model_checkpoint = str(best) if best == folder or best.is_dir() else None
        if folder.is_dir():  # of this very step, by a rule that came first
            return
        for part in (part for part in [*self.callback_handler.callbacks, self.control] if _is_exportable(part)):
            self.state.stateful_callbacks[type(part).__name__] = part.state()
        parts = {
            "weights": trained_weights(self.model),
            "optimiser": self.optimizer.state_dict(),
            "schedule": self.lr_scheduler.state_dict(),
            "random": random_state(),
            "remembered": self.remembers(),
        }
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler.state_dict()
        with written_aside(folder) as aside:
            Checkpoint(parts).write(aside)
            self.state.save_to_json(str(aside / TRAINER_STATE))
        if self.state.best_model_checkpoint:
            self._best = {}
        rotate_checkpoints(
            output_dir=self.args.output_dir,
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._resumed = dict(Checkpoint.read(Path(resume_from_checkpoint)).parts)
        restore_weights(self.model, self._resumed.pop("weights"))
        self.remembered = self._resumed.pop("remembered")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint:
            self.optimizer.load_state_dict(self._resumed.pop("optimiser"))
            self.lr_scheduler.load_state_dict(self._resumed.pop("schedule"))

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self._resumed.pop("scaler"))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint:
            restore_random_state(self._resumed.pop("random"))

    def _init_training_state(self, *arguments: Any) -> Any:
        found = super()._init_training_state(*arguments)  # type: ignore[misc]  # as above
        if self.state.best_global_step:  # the folder may have been moved since
            best = Path(self.args.output_dir) / f"{NAME}{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(best) if best.is_dir() else None
            if not best.is_dir():  # it could not be written: the best of those to come takes its place
                self.state.best_global_step = self.state.best_metric = None
        return found

    def take_best(self) -> None:
        """After training: the best weights, where their checkpoint could not be written."""
        if self._best:
            restore_weights(self.model, self._best)

    def _load_best_model(self) -> None:
        restore_weights(self.model, Checkpoint.read(Path(self.state.best_model_checkpoint)).parts["weights"])


def _is_exportable(part: object) -> bool:
    return isinstance(part, ExportableState)
