"""Stops a training whose loss diverges, or is no number."""

import math
from collections.abc import Sequence

from personas.errors import TrainingError
from personas.models.probe import OVERFLOW_ADVICE, Float16OverflowError
from trainer.schemas import Recipe

DIVERGENCE_RISE_NATS = 3.0
DIVERGENCE_WINDOW_STEPS = 10
MIN_LOGGED_LOSSES = 2
MIN_ADVISED_LEARNING_RATE = 1e-6
SHORT_WARMUP_SHARE = 0.1


def require_convergence(
    losses: Sequence[float], step: int, steps: int, recipe: Recipe, start: float | None
) -> None:
    """Raise `TrainingError` if the losses so far, one per step up to `step` of `steps`, have
    diverged.

    `start` is the untrained model's loss on held-out replies (nats per token); None takes the first
    logged loss.
    """
    last = losses[-1]
    if not math.isfinite(last):
        raise _not_finite_error(f"The loss is {last} at step {step}", steps, recipe)
    # All losses of a window: a single high one comes from an unusual batch.
    window = max(DIVERGENCE_WINDOW_STEPS, MIN_LOGGED_LOSSES * recipe.logging_steps)
    begin_loss = losses[0] if start is None else start
    limit = begin_loss + DIVERGENCE_RISE_NATS
    if len(losses) > window and min(losses[-window:]) > limit:
        raise _divergence_error(
            f"The loss began at {begin_loss:.2f} and has been above {limit:.2f} for {window} "
            f"steps; it is {last:.2f} at step {step}: training has diverged.",
            steps,
            recipe,
        )


def require_finite_loss(loss: float, what: str, recipe: Recipe) -> None:
    """Raise `TrainingError` if the measured loss of `what` is not finite."""
    if not math.isfinite(loss):
        raise _not_finite_error(f"The loss of {what} is {loss}", 0, recipe)


def _not_finite_error(what: str, steps: int, recipe: Recipe) -> TrainingError:
    """Build the error about a loss that is no number, which float16 explains where it is the
    precision.
    """
    if recipe.precision == "fp16":
        return Float16OverflowError(
            f"{what}: the model's numbers overflow in float16.", OVERFLOW_ADVICE
        )
    return _divergence_error(f"{what}: training has diverged.", steps, recipe)


def _divergence_error(message: str, steps: int, recipe: Recipe) -> TrainingError:
    rate = recipe.learning_rate
    lower = max(rate / 10, MIN_ADVISED_LEARNING_RATE)
    advice = [f"Lower the learning rate, which was {rate:g}: set learning_rate={lower:g}."]
    warmup = recipe.warmup_steps or recipe.warmup_ratio * steps
    if warmup < SHORT_WARMUP_SHARE * steps:
        advice.append(f"A longer warm-up helps too: warmup_ratio={SHORT_WARMUP_SHARE:g}.")
    if recipe.max_grad_norm > 1:
        advice.append(f"So does a smaller max_grad_norm than {recipe.max_grad_norm:g}: 1 is usual.")
    return TrainingError(message, " ".join(advice))
