"""The curves of a run, from what it told: losses by step, smoothed, held out; the learning rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from personas.contracts import Epoch, Evaluation, Progress

Told = Progress | Evaluation | Epoch

MEMORY = 0.9
FORMULA = "sₙ = Σ 0.9ⁿ⁻ⁱ·lossᵢ ⁄ Σ 0.9ⁿ⁻ⁱ, over all i ≤ n"
"""What `smoothed` computes, in words for a legend."""


@dataclass(frozen=True)
class Curves:
    """Steps and values belong together; `heldout` pairs them, where held-out replies were measured on the way."""

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    rates: tuple[float, ...]
    heldout: tuple[tuple[int, float], ...]


def curves_of(history: Sequence[Told]) -> Curves:
    """The curves of a run's whole history."""
    progress = [event for event in history if isinstance(event, Progress)]
    measured = [event for event in history if isinstance(event, Evaluation | Epoch)]
    return Curves(
        tuple(event.step for event in progress),
        tuple(event.loss for event in progress),
        tuple(event.lr for event in progress),
        tuple((event.step, event.eval_loss) for event in measured if event.eval_loss is not None),
    )


def smoothed(values: Sequence[float]) -> Iterator[float]:
    """The mean of all values so far, each worth 0.9 of the next: an exponential moving average without a bias to 0."""
    total = weight = 0.0
    for value in values:
        total, weight = MEMORY * total + value, MEMORY * weight + 1
        yield total / weight
