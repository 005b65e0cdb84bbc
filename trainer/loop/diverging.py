"""Telling a run that has diverged from one that is noisy.

A loss that is no number is the end. So is one that stands far above where the run began for many steps on end: single
steps may be as bad as they like, because a batch of few, short or odd replies can cost anything. Three nats above the
untrained model's loss mean that a reply's tokens have become twenty times less likely; a run that keeps this up for ten
steps is not learning. Healthy runs begin at their highest loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from personas.errors import TrainingError
from trainer.recipe import Recipe

RISE_NATS = 3.0
WINDOW_STEPS, FEWEST_LOGS = 10, 2
LOWEST_RATE = 1e-6
SHORT_WARMUP = 0.1


def require_learning(losses: Sequence[float], step: int, steps: int, recipe: Recipe, start: float | None) -> None:
    """Raise `TrainingError` when the losses so far, one a step, the last one at `step` of `steps`, have diverged.

    `start` is the untrained model's loss on held-out replies (nats per token), None where it was not measured: then
    the first logged loss stands for it.
    """
    last = losses[-1]
    if not math.isfinite(last):
        raise _diverged(f"The loss is {last} at step {step}: training has diverged.", steps, recipe)
    window = max(WINDOW_STEPS, FEWEST_LOGS * recipe.logging_steps)
    begin = losses[0] if start is None else start
    if len(losses) > window and min(losses[-window:]) > begin + RISE_NATS:
        far = f"The loss began at {begin:.2f} and has been above {begin + RISE_NATS:.2f}"
        how_long = f"for {window} steps; it is {last:.2f} at step {step}"
        raise _diverged(f"{far} {how_long}: training has diverged.", steps, recipe)


def require_number(loss: float, what: str, recipe: Recipe) -> None:
    """Raise `TrainingError` when a measured loss is no number. `what` says what was measured."""
    if not math.isfinite(loss):
        raise _diverged(f"The loss of {what} is {loss}: training has diverged.", 0, recipe)


def _diverged(message: str, steps: int, recipe: Recipe) -> TrainingError:
    rate = recipe.learning_rate
    advice = [f"Lower the learning rate, which was {rate:g}: set learning_rate={max(rate / 10, LOWEST_RATE):g}."]
    warmup = recipe.warmup_steps or recipe.warmup_ratio * steps
    if warmup < SHORT_WARMUP * steps:
        advice.append(f"A longer warm-up helps too: warmup_ratio={SHORT_WARMUP:g}.")
    if recipe.max_grad_norm > 1:
        advice.append(f"So does a smaller max_grad_norm than {recipe.max_grad_norm:g}: 1 is usual.")
    return TrainingError(message, " ".join(advice))
