"""The inputs of a training stage, and the base of all trainers: evaluation and pickle-free checkpoints."""

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

from personas.home.atomic_files import atomic_folder
from personas.prompt import TokenizedSample
from trainer.process.events import StepEvent, failed_event
from trainer.process.run_control import PauseControl
from trainer.schemas import Recipe
from trainer.train.checkpoint import (
    CHECKPOINT_PREFIX,
    Checkpoint,
    capture_random_state,
    restore_random_state,
    restore_weights,
    trainable_weights,
)
from trainer.train.distributed import DistributedContext
from trainer.train.job import RunUsage
from trainer.train.kernels import KernelSelection
from trainer.train.losses import mean_loss, measure_reply_losses
from trainer.train.resume_config import CHECKPOINT_INTERVAL_S

TRAINER_STATE_FILE = "trainer_state.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageInputs:
    """Inputs of a training run. `listen` receives each event; `check` raises `Stopped` between steps to stop.

    `folder` is where checkpoints are kept, one every `checkpoint_s`; a run that finds some goes on from the latest.
    `order` is the samples' in every epoch, where it is not to be drawn; else those of `sorted_in` samples are about
    equally long (0: of a batch). `start_loss` is the untrained model's on held-out replies, None where nobody measured
    it. `account` counts time and memory. `hold` is waited for between batches. Where `processes` are many, each
    computes its share. `begin` puts weights into the new adapter before the first step.
    """

    train: Sequence[TokenizedSample]
    heldout: Sequence[TokenizedSample]
    recipe: Recipe
    listen: Callable[[StepEvent], None]
    check: Callable[[], None]
    folder: Path | None = None
    checkpoint_s: float = CHECKPOINT_INTERVAL_S
    order: Sequence[int] = ()
    length_group_batch: int = 0
    initial_loss: float | None = None
    account: RunUsage = field(default_factory=RunUsage)
    hold: PauseControl = field(default_factory=PauseControl)
    processes: DistributedContext = field(default_factory=DistributedContext)
    begin: Callable[[Any], None] | None = None

    def between(self) -> None:
        """Between two batches that are measured: give way, and stop when asked to; many stop only together."""
        self.hold.wait()
        if not self.processes.is_distributed:
            self.check()


class TrainerBase:
    """A trainer of TRL's that goes by a course: put before it among the bases of a class.

    Since this process began, `tokens_done` counts the samples' own tokens, `measuring_s` the seconds of measuring.
    What `remembers` gives is kept in every checkpoint; after a resume `remembered` holds it. `trouble` says why the
    last checkpoint could not be written, empty where it could.
    """

    def __init__(self, course: StageInputs, kernels: KernelSelection, **options: Any) -> None:
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
        losses = measure_reply_losses(self.model, share, course.between, self.kernels.packing)
        if not processes.is_distributed:
            return mean_loss(losses)
        nll, tokens = processes.sums(math.fsum(loss.nll for loss in losses), sum(loss.tokens for loss in losses))
        return nll / tokens

    # ------------------------------------------------------------------------------------- checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Saves a checkpoint. If that fails the run goes on and tries again at the next one."""
        if not self._course.processes.is_first:
            return
        try:
            self._keep_checkpoint()
            self.trouble = ""
        except (OSError, SafetensorError) as error:
            if self.state.best_global_step == self.state.global_step:
                self.state.best_model_checkpoint = None
                self._best = {name: weight.clone() for name, weight in trainable_weights(self.model).items()}
            cause = failed_event(error).cause
            self.trouble = f"No checkpoint could be written at step {self.state.global_step}. {cause}"
            log.warning("%s Training goes on; the next one is tried in time.", self.trouble)

    def _keep_checkpoint(self) -> None:
        folder = Path(self.args.output_dir) / f"{CHECKPOINT_PREFIX}{self.state.global_step}"
        if self.state.best_global_step:
            best = folder.with_name(f"{CHECKPOINT_PREFIX}{self.state.best_global_step}")
            self.state.best_model_checkpoint = str(best) if best == folder or best.is_dir() else None
        if folder.is_dir():  # of this very step, by a rule that came first
            return
        for part in (part for part in [*self.callback_handler.callbacks, self.control] if _is_exportable(part)):
            self.state.stateful_callbacks[type(part).__name__] = part.state()
        parts = {
            "weights": trainable_weights(self.model),
            "optimiser": self.optimizer.state_dict(),
            "schedule": self.lr_scheduler.state_dict(),
            "random": capture_random_state(),
            "remembered": self.remembers(),
        }
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler.state_dict()
        with atomic_folder(folder) as aside:
            Checkpoint(parts).write(aside)
            self.state.save_to_json(str(aside / TRAINER_STATE_FILE))
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
            best = Path(self.args.output_dir) / f"{CHECKPOINT_PREFIX}{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(best) if best.is_dir() else None
            if not best.is_dir():  # it could not be written: the best of those to come takes its place
                self.state.best_global_step = self.state.best_metric = None
        return found

    def load_best_weights(self) -> None:
        """After training: the best weights, where their checkpoint could not be written."""
        if self._best:
            restore_weights(self.model, self._best)

    def _load_best_model(self) -> None:
        restore_weights(self.model, Checkpoint.read(Path(self.state.best_model_checkpoint)).parts["weights"])


def _is_exportable(part: object) -> bool:
    return isinstance(part, ExportableState)
