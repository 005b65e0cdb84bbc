"""Trainer callbacks: events, checkpoints, cancellation, divergence, and heap trimming."""

from __future__ import annotations

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
from trainer.train.losses import require_convergence, require_finite_loss
from trainer.train.trainer_base import StageInputs, TrainerBase


class EventCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Turns the trainer's callbacks into events; asks for checkpoints; stops when asked to, or without a number.

    `history` holds every event of the run, those before a resume included.
    """

    def __init__(self, course: StageInputs, trainer: TrainerBase) -> None:
        self._course, self._trainer = course, trainer
        self.history: list[StepEvent] = []
        self._losses: list[float] = []
        self._begun = self._kept_at = self._epoch_begun = 0.0
        self._epoch_before_s = self._idle_before_s = 0.0
        self._held_s = 0.0
        self._first_step = 0
        self._stopped: RunCancelled | None = None

    # ------------------------------------------------------------------------------------- the run

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._begun = self._kept_at = time.perf_counter()
        self._first_step = state.global_step
        remembered = self._trainer.remembered
        self.history = [TRAINER_EVENT.validate_python(event) for event in remembered.get("history", [])]  # type: ignore[misc]
        self._losses = []
        for event in self.history:
            if isinstance(event, Progress):
                self._take_in(event.loss, event.step)
        self._epoch_before_s = remembered.get("epoch_seconds", 0.0)
        self._course.account.load_state_dict(remembered.get("account", {}))
        self._trainer.remembers = self._remembered

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if float(state.epoch or 0).is_integer():
            self._epoch_before_s = 0.0
        self._epoch_begun, self._idle_before_s = time.perf_counter(), self._idle_s

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._course.hold.begin_step()
        if self._course.processes.is_distributed:
            torch.manual_seed(self._course.processes.seed(args.seed, state.global_step))

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._held_s += self._course.hold.wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._course.hold.end_step()
        self._held_s += self._course.hold.wait()
        ends_epoch = float(state.epoch).is_integer() or state.global_step >= state.max_steps
        if ends_epoch or control.should_evaluate:  # what is told of it then needs the loss of all steps until now
            control.should_log = True
        try:
            self._course.check()
        except RunCancelled as stopped:
            if ends_epoch or self._course.folder is None:  # what is measured at its end would be missing after a resume
                raise
            self._stopped, control.should_save = stopped, True
        if self._course.folder and time.perf_counter() - self._kept_at > self._course.checkpoint_s and not ends_epoch:
            control.should_save = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.eval_strategy != "epoch":
            self._hear(self._epoch(state, None))
            control.should_save = self._course.folder is not None

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._kept_at = time.perf_counter()
        if self._stopped:
            raise self._stopped

    # ------------------------------------------------------------------------------------- what is told

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" not in logs:  # a measurement, or the summary at the end
            return
        course = self._course
        self._take_in(logs["loss"], state.global_step)
        require_convergence(self._losses, state.global_step, state.max_steps, course.recipe, course.initial_loss)
        self._hear(self._progress(state, logs))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        require_finite_loss(
            metrics["eval_loss"], f"the held-out replies after step {state.global_step}", self._course.recipe
        )
        if args.eval_strategy == "epoch":
            self._hear(self._epoch(state, metrics["eval_loss"]))
        else:
            self._hear(
                Evaluation(
                    step=state.global_step,
                    epoch=state.epoch,
                    train_loss=self._mean_loss_since(Evaluation),
                    eval_loss=metrics["eval_loss"],
                )
            )

    def _take_in(self, loss: float, step: int) -> None:
        """`_losses` has one for each step until `step`; those that were logged together have their mean."""
        self._losses += [loss] * (step - len(self._losses))

    def _hear(self, event: StepEvent) -> None:
        self.history.append(event)
        self._course.listen(event)

    def _remembered(self) -> dict[str, Any]:
        return {
            "history": [event.model_dump() for event in self.history],
            "epoch_seconds": self._epoch_s(),
            "account": self._course.account.state_dict(),
        }

    @property
    def _idle_s(self) -> float:
        """Since this process began, the time in which it did not train: it measured, or others had the machine."""
        return self._trainer.measuring_s + self._held_s

    def _epoch_s(self) -> float:
        return self._epoch_before_s + time.perf_counter() - self._epoch_begun - (self._idle_s - self._idle_before_s)

    def _epoch(self, state: Any, eval_loss: float | None) -> Epoch:
        return Epoch(
            epoch=math.ceil(state.epoch),
            share=state.epoch - math.ceil(state.epoch) + 1,
            train_loss=self._mean_loss_since(Epoch),
            eval_loss=eval_loss,
            seconds=self._epoch_s(),
            step=state.global_step,
        )

    def _mean_loss_since(self, kind: type[Epoch] | type[Evaluation]) -> float | None:
        losses = self._losses[max((event.step for event in self.history if isinstance(event, kind)), default=0) :]
        return math.fsum(losses) / len(losses) if losses else None

    def _progress(self, state: Any, logs: dict[str, float]) -> Progress:
        """The rate is the mean since this process began to train, of the samples' own tokens, idle time left out."""
        elapsed = time.perf_counter() - self._begun - self._idle_s
        steps = state.global_step - self._first_step
        return Progress(
            step=state.global_step,
            of=state.max_steps,
            epoch=state.epoch,
            loss=logs["loss"],
            lr=logs["learning_rate"],
            tokens_per_s=self._course.processes.sums(self._trainer.tokens_done)[0] / elapsed,
            eta_s=elapsed / steps * (state.max_steps - state.global_step),
            memory_bytes=self._course.account.memory.held(),
            seconds=self._course.account.seconds,
            held_s=self._course.hold.waited_s,
            trouble=self._trainer.trouble,
        )


class HeapTrimCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Looks after every batch. The most that one held by itself, begun with a trimmed heap, is what is needed."""

    def __init__(self, allowed_bytes: int = HEAP_SLACK_BYTES) -> None:
        self._process, self._allowed = psutil.Process(), allowed_bytes
        self._needed = 0
        self._is_trimmed = True

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._look()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._look()

    def _look(self) -> None:
        held = int(self._process.memory_info().rss)
        if self._is_trimmed:
            self._needed = max(self._needed, held)
        self._is_trimmed = held > self._needed + self._allowed
        if self._is_trimmed:
            ctypes.CDLL(None).malloc_trim(0)


def can_trim_heap(on_cpu: bool) -> bool:
    """Tells whether the heap is glibc's and holds the computation."""
    return on_cpu and platform.libc_ver()[0] == "glibc"
