"""Losses of the same replies under several candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from personas.prompt.renderer import TokenizedSample
from trainer.evaluate.time_budget import TimeBudget
from trainer.train.losses import ReplyLoss, TokenLosses, mean_loss, measure_token_losses

REPLIES_PER_STEP = 16  # replies measured under each side between two checks of the time
PERMUTATION_SEED = 0
CandidateName = TypeVar("CandidateName", bound=str)
UseCandidate = Callable[[CandidateName], AbstractContextManager[Any]]


@dataclass(frozen=True)
class PairedLosses(Generic[CandidateName]):
    """`places` are the indices of the measured samples, in order; `losses` their losses by side."""

    places: tuple[int, ...]
    losses: Mapping[CandidateName, Sequence[TokenLosses]]

    def whole(self, name: CandidateName) -> list[ReplyLoss]:
        """Return each reply's loss under a side, end of turn included."""
        return [losses.whole for losses in self.losses[name]]

    def means(self) -> dict[CandidateName, float]:
        """Return nats per reply token, by side."""
        return {name: mean_loss(self.whole(name)) for name in self.losses}

    def chosen(self, items: Sequence[Any]) -> list[Any]:
        """Select the items of the measured samples."""
        return [items[place] for place in self.places]


def paired_losses(
    use: UseCandidate[CandidateName],
    names: Sequence[CandidateName],
    samples: Sequence[TokenizedSample],
    budget: TimeBudget | None = None,
    *,
    between: Callable[[], None] = lambda: None,
    known: Mapping[CandidateName, Sequence[TokenLosses]] | None = None,
) -> PairedLosses[CandidateName]:
    """Measure the losses of the samples under each side.

    With a budget, samples are measured in a fixed random order until it is spent, at least
    `REPLIES_PER_STEP`. `known` are losses of all samples for sides measured before.
    """
    order = list(range(len(samples)))
    step = max(1, len(samples))
    if budget:
        # All sides measure a few samples before any measures more, so that each has the same ones
        # whenever time runs out. A random order makes them a fair sample; a fixed one makes two
        # evaluations comparable.
        order = np.random.default_rng(PERMUTATION_SEED).permutation(len(samples)).tolist()
        step = REPLIES_PER_STEP
    by_side: dict[CandidateName, dict[int, TokenLosses]] = {name: {} for name in names}

    def measure(places: Sequence[int]) -> None:
        chosen = [samples[place] for place in places]
        for name, losses in by_side.items():
            if known and name in known:
                losses.update((place, known[name][place]) for place in places)
                continue
            with use(name) as model:
                measured = measure_token_losses(model, chosen, between)
            losses.update(zip(places, measured, strict=True))

    for begin in range(0, len(order), step):
        if begin and budget and budget.is_spent:
            break
        measure(order[begin : begin + step])
    places = tuple(sorted(next(iter(by_side.values()), {})))
    losses_in_order: dict[CandidateName, list[TokenLosses]] = {}
    for name, losses in by_side.items():
        losses_in_order[name] = [losses[place] for place in places]
    return PairedLosses(places, losses_in_order)
