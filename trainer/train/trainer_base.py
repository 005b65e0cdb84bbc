"""The inputs of a training stage, and the base of all trainers: evaluation, pauses and pickle-free
checkpoints.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import rotate_checkpoints

from personas.home.atomic_files import atomic_folder
from personas.home.job_attempt import CHECKPOINT_PREFIX
from personas.prompt.renderer import TokenizedSample
from trainer.process.events import StepEvent, failed_event
from trainer.schemas import Recipe
from trainer.train.checkpoint import (
    TRAINER_STATE_FILE,
    Checkpoint,
    capture_random_state,
    restore_random_state,
    restore_weights,
    trainable_weights,
)
from trainer.train.kernels import KernelSelection
from trainer.train.losses import mean_loss, measure_reply_losses
from trainer.train.training_run import RunControl

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageInputs:
    """Inputs of a training stage. `listen` receives each event; `control` is that of the run.

    `folder` holds the checkpoints; a run resumes from the latest. `order` fixes the samples' order
    in every epoch; otherwise groups of `length_group_batch` samples (0: a batch) have similar
    lengths. `initial_loss` is the untrained model's on held-out replies, None if not measured.
    `begin` loads weights into the new adapter before the first step. `earlier_steps` and
    `later_steps` are those of the run's other stages, in steps of this one by their tokens.
    """

    train: Sequence[TokenizedSample]
    heldout: Sequence[TokenizedSample]
    recipe: Recipe
    listen: Callable[[StepEvent], None]
    control: RunControl = field(default_factory=RunControl)
    folder: Path | None = None
    order: Sequence[int] = ()
    length_group_batch: int = 0
    initial_loss: float | None = None
    begin: Callable[[Any], None] | None = None
    earlier_steps: float = 0.0
    later_steps: float = 0.0

    def check(self) -> None:
        """Between two steps, stop on request, in all processes together. Raises `RunCancelled`."""
        self.control.processes.agreeing(self.control.check)()

    def between(self) -> None:
        """Between two evaluated batches, pause or stop on request.

        Several processes do not stop here: they may have different numbers of batches.
        """
        self.control.pause.wait()
        if not self.control.processes.is_distributed:
            self.control.check()


class TrainerBase:
    """Mixin that makes a TRL trainer follow its stage; comes before the trainer among a class's
    bases.

    In this process, `samples_done` and `tokens_done` count samples and their own tokens,
    `measuring_s` the seconds of evaluation without pauses. The result of `remembers` is saved in
    every checkpoint; after a resume `remembered` holds it. `trouble` says why the last checkpoint
    could not be written, empty if it could.
    """

    def __init__(self, stage: StageInputs, kernels: KernelSelection, **options: Any) -> None:
        self.stage = stage
        self.kernels = kernels
        self.samples_done = self.tokens_done = 0
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
        if stage.recipe.precision == "fp16" and self.accelerator.device.type == "cpu":
            _enable_cpu_fp16(self.accelerator)

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: the count is reported nowhere, and transformers walks all modules for it at
        each batch.
        """
        return 0

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> Any:
        """Measure `eval_loss` in nats per held-out reply token, in the precision of training."""
        started = time.perf_counter()
        waited_s = self.stage.control.pause.waited_s
        loss = self._heldout_loss()
        paused_s = self.stage.control.pause.waited_s - waited_s
        self.measuring_s += time.perf_counter() - started - paused_s
        metrics = {"eval_loss": loss}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _heldout_loss(self) -> float:
        stage = self.stage
        processes = self.stage.control.processes
        share = stage.heldout[processes.index :: processes.count]
        losses = measure_reply_losses(self.model, share, stage.between, self.kernels.layout)
        if not processes.is_distributed:
            return mean_loss(losses)
        nll = math.fsum(loss.nll for loss in losses)
        tokens = sum(loss.tokens for loss in losses)
        all_nll, all_tokens = processes.sums(nll, tokens)
        return all_nll / all_tokens

    # ---------------------------------------------------------------------------------- checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save a checkpoint. If that fails, the run continues and tries again at the next one."""
        if not self.stage.control.processes.is_first:
            return
        try:
            self._write_checkpoint()
            self.trouble = ""
        except (OSError, SafetensorError) as error:
            # The best weights so far would be lost with this checkpoint: they stay in memory.
            if self.state.best_global_step == self.state.global_step:
                self.state.best_model_checkpoint = None
                weights = trainable_weights(self.model)
                self._best = {name: weight.clone() for name, weight in weights.items()}
            cause = failed_event(error).cause
            self.trouble = (
                f"No checkpoint could be written at step {self.state.global_step}. {cause}"
            )
            log.warning("%s Training goes on; the next one is tried in time.", self.trouble)

    def _write_checkpoint(self) -> None:
        folder = Path(self.args.output_dir) / f"{CHECKPOINT_PREFIX}{self.state.global_step}"
        if self.state.best_global_step:
            best = folder.with_name(f"{CHECKPOINT_PREFIX}{self.state.best_global_step}")
            is_kept = best == folder or best.is_dir()
            self.state.best_model_checkpoint = str(best) if is_kept else None
        if folder.is_dir():  # this step's checkpoint was written for another reason
            return
        for part in (*self.callback_handler.callbacks, self.control):
            if isinstance(part, ExportableState):
                self.state.stateful_callbacks[type(part).__name__] = part.state()
        # transformers would pickle them, and reading a pickle can run any code.
        parts = {
            "weights": trainable_weights(self.model),
            "optimiser": self.optimizer.state_dict(),
            "schedule": self.lr_scheduler.state_dict(),
            "random": capture_random_state(),
            "remembered": self.remembers(),
        }
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler.state_dict()
        with atomic_folder(folder, self.stage.control.fence) as partial_folder:
            Checkpoint(parts).write(partial_folder)
            self.state.save_to_json(str(partial_folder / TRAINER_STATE_FILE))
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
        result = super()._init_training_state(*arguments)  # type: ignore[misc]  # as above
        if self.state.best_global_step:  # the folder may have been moved since
            best = Path(self.args.output_dir) / f"{CHECKPOINT_PREFIX}{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(best) if best.is_dir() else None
            if not best.is_dir():  # it could not be written: the best of the later ones replaces it
                self.state.best_global_step = self.state.best_metric = None
        return result

    def load_best_weights(self) -> None:
        """After training, load the best weights if their checkpoint could not be written."""
        if self._best:
            restore_weights(self.model, self._best)

    def _load_best_model(self) -> None:
        best = Checkpoint.read(Path(self.state.best_model_checkpoint))
        restore_weights(self.model, best.parts["weights"])


def _enable_cpu_fp16(accelerator: Any) -> None:
    """Enable float16 autocast with loss scaling on a CPU, which accelerate offers on GPUs; precedes
    `prepare`.
    """
    accelerator.native_amp = True
    accelerator.scaler = torch.amp.GradScaler("cpu")


@contextmanager
def between_layers(model: nn.Module, call: Callable[[], object]) -> Iterator[None]:
    """Call `call` before each decoder layer computes, forward and backward, inside the block.

    Layers are the members of the model's module lists, as in all models of transformers. Replies
    that come meanwhile wait for a layer to end, not for a batch.
    """

    def before_layer(_layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        call()
        # The first input are the hidden states. Their gradient is the last thing that the layer's
        # backward pass computes.
        hidden = inputs[0] if inputs else None
        if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
            hidden.register_hook(before_backward)  # type: ignore[no-untyped-call]

    def before_backward(_gradient: torch.Tensor) -> None:
        call()

    handles = []
    for part in model.modules():
        if isinstance(part, nn.ModuleList):
            for layer in part:
                handles.append(layer.register_forward_pre_hook(before_layer))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
