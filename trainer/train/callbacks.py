"""Trainer callbacks: events, checkpoints, cancellation, divergence, and heap trimming."""

import ctypes
import math
import platform
import time
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from personas.schemas.training_events import TRAINER_EVENT, Epoch, Evaluation, Progress
from trainer.process.environment import HEAP_SLACK_BYTES
from trainer.process.events import StepEvent
from trainer.process.run_control import RunCancelled
from trainer.train.divergence import require_convergence, require_finite_loss
from trainer.train.trainer_base import StageInputs, TrainerBase


class EventCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Emits events (`history` has all of the run), requests checkpoints, and stops on cancellation
    or divergence.
    """

    def __init__(self, stage: StageInputs, trainer: TrainerBase) -> None:
        self._stage = stage
        self._trainer = trainer
        self.history: list[StepEvent] = []
        self._losses: list[float] = []
        self._started = self._saved_at = self._epoch_started = 0.0
        self._epoch_before_s = self._idle_before_s = self._waited_before_s = 0.0
        self._first_step = self._samples_before = 0
        self._stopped: RunCancelled | None = None

    # ------------------------------------------------------------------------------------- the run

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._started = self._saved_at = time.perf_counter()
        self._waited_before_s = self._stage.control.pause.waited_s
        self._first_step = state.global_step
        remembered = self._trainer.remembered
        self.history = []
        self._losses = []
        for stored in remembered.get("history", []):
            event: StepEvent = TRAINER_EVENT.validate_python(stored)  # type: ignore[assignment]
            self.history.append(event)
            if isinstance(event, Progress):
                self._add_loss(event.loss, event.step)
        self._epoch_before_s = remembered.get("epoch_seconds", 0.0)
        self._samples_before = remembered.get("epoch_samples", 0)
        self._stage.control.usage.load_state_dict(remembered.get("account", {}))
        self._trainer.remembers = self._checkpoint_state
        stage = self._stage
        stage.control.timeline.left.begin(
            "training",
            self._training_clock_s,
            done=stage.earlier_steps + state.global_step,
            total=self._all_steps(state),
        )

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if float(state.epoch or 0).is_integer():
            self._epoch_before_s = 0.0
            self._samples_before = 0
        self._samples_before -= self._trainer.samples_done
        self._epoch_started = time.perf_counter()
        self._idle_before_s = self._idle_s

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._stage.control.pause.begin_step()
        # A checkpoint has the random state of the first process alone: the others draw by step.
        if self._stage.control.processes.is_distributed:
            torch.manual_seed(self._stage.control.processes.seed(args.seed, state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._stage.control.pause.end_step()
        self._stage.control.pause.wait()
        ends_epoch = float(state.epoch).is_integer() or state.global_step >= state.max_steps
        if ends_epoch or control.should_evaluate:  # its event needs the loss of all steps so far
            control.should_log = True
        try:
            self._stage.check()
        except RunCancelled as stopped:
            # No checkpoint at an epoch's last step: a run that is resumed there would miss the
            # evaluation at its end.
            if ends_epoch or self._stage.folder is None:
                raise
            self._stopped = stopped  # raised once the checkpoint is written
            control.should_save = True
        if self._stage.folder and not ends_epoch:
            since_checkpoint_s = time.perf_counter() - self._saved_at
            if since_checkpoint_s > self._stage.control.checkpoint_s:
                control.should_save = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.eval_strategy != "epoch":
            self._emit(self._epoch(state, None))
            control.should_save = self._stage.folder is not None

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._saved_at = time.perf_counter()
        if self._stopped:
            raise self._stopped

    # ------------------------------------------------------------------------------------- events

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" not in logs:  # an evaluation, or the summary at the end
            return
        stage = self._stage
        self._add_loss(logs["loss"], state.global_step)
        require_convergence(
            self._losses,
            state.global_step,
            steps=state.max_steps,
            recipe=stage.recipe,
            start=stage.initial_loss,
        )
        # Each step to come brings its share of evaluations, as each step so far did.
        measuring_s = self._trainer.measuring_s / (state.global_step - self._first_step)
        stage.control.timeline.left.update(
            stage.earlier_steps + state.global_step,
            self._all_steps(state),
            self._training_clock_s,
            beside_s=measuring_s * (state.max_steps - state.global_step),
        )
        self._emit(self._progress(state, logs))

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any
    ) -> None:
        loss = metrics["eval_loss"]
        step = state.global_step
        require_finite_loss(loss, f"the held-out replies after step {step}", self._stage.recipe)
        if args.eval_strategy == "epoch":
            self._emit(self._epoch(state, loss))
        else:
            mean = self._mean_loss_since(Evaluation)
            self._emit(Evaluation(step=step, epoch=state.epoch, train_loss=mean, eval_loss=loss))

    def _add_loss(self, loss: float, step: int) -> None:
        """Record the mean loss of all steps since the last one recorded, up to `step`."""
        self._losses += [loss] * (step - len(self._losses))

    def _emit(self, event: StepEvent) -> None:
        self.history.append(event)
        self._stage.listen(event)

    def _checkpoint_state(self) -> dict[str, Any]:
        return {
            "history": [event.model_dump() for event in self.history],
            "epoch_seconds": self._epoch_s(),
            "epoch_samples": self._epoch_samples(),
            "account": self._stage.control.usage.state_dict(),
        }

    @property
    def _idle_s(self) -> float:
        """Seconds of this process spent on evaluation and pauses since training began."""
        return (
            self._trainer.measuring_s + self._stage.control.pause.waited_s - self._waited_before_s
        )

    @property
    def _training_clock_s(self) -> float:
        """Seconds that the run has worked, without evaluations in this process's training."""
        return self._stage.control.worked_s - self._trainer.measuring_s

    def _all_steps(self, state: Any) -> float:
        """Return the steps of all stages, in steps of this one."""
        return float(self._stage.earlier_steps + state.max_steps + self._stage.later_steps)

    def _epoch_s(self) -> float:
        return (
            self._epoch_before_s
            + time.perf_counter()
            - self._epoch_started
            - (self._idle_s - self._idle_before_s)
        )

    def _epoch_samples(self) -> int:
        """Samples of this epoch that this process has trained on, with those from before a
        resume.
        """
        return self._samples_before + self._trainer.samples_done

    def _epoch(self, state: Any, eval_loss: float | None) -> Epoch:
        seconds = self._epoch_s()
        return Epoch(
            epoch=math.ceil(state.epoch),
            share=state.epoch - math.ceil(state.epoch) + 1,
            train_loss=self._mean_loss_since(Epoch),
            eval_loss=eval_loss,
            seconds=seconds,
            samples_per_s=self._stage.control.processes.sums(self._epoch_samples())[0] / seconds,
            step=state.global_step,
        )

    def _mean_loss_since(self, kind: type[Epoch] | type[Evaluation]) -> float | None:
        earlier = [event.step for event in self.history if isinstance(event, kind)]
        losses = self._losses[max(earlier, default=0) :]
        return math.fsum(losses) / len(losses) if losses else None

    def _progress(self, state: Any, logs: dict[str, float]) -> Progress:
        """Build the event; its rate is the mean of this process over the samples' own tokens,
        without idle time.
        """
        elapsed = time.perf_counter() - self._started - self._idle_s
        steps = state.global_step - self._first_step
        return Progress(
            step=state.global_step,
            of=state.max_steps,
            epoch=state.epoch,
            loss=logs["loss"],
            lr=logs["learning_rate"],
            tokens_per_s=self._stage.control.processes.sums(self._trainer.tokens_done)[0] / elapsed,
            eta_s=elapsed / steps * (state.max_steps - state.global_step),
            memory_bytes=self._stage.control.usage.memory.held(),
            seconds=self._stage.control.usage.seconds,
            held_s=self._stage.control.pause.waited_s,
            trouble=self._trainer.trouble,
        )


class HeapTrimCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Trims the heap after a batch that holds more than any batch which began with a trimmed
    heap.
    """

    def __init__(self, allowed_bytes: int = HEAP_SLACK_BYTES) -> None:
        self._process = psutil.Process()
        self._allowed = allowed_bytes
        self._needed = 0
        self._is_trimmed = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        held = int(self._process.memory_info().rss)
        if self._is_trimmed:
            self._needed = max(self._needed, held)
        self._is_trimmed = held > self._needed + self._allowed
        # By itself, glibc returns freed memory from the top of its heap alone.
        if self._is_trimmed:
            ctypes.CDLL(None).malloc_trim(0)

    on_substep_end = on_step_end


def can_trim_heap(on_cpu: bool) -> bool:
    """Report whether the heap is glibc's and holds the computation."""
    return on_cpu and platform.libc_ver()[0] == "glibc"
