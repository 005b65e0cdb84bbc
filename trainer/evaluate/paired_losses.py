"""Losses of the same replies under several candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from personas.prompt.renderer import TokenizedSample
from trainer.evaluate.measurement_cache import NO_KNOWN_LOSSES, KnownLosses
from trainer.evaluate.time_budget import TimeBudget
from trainer.train.losses import ReplyLoss, TokenLosses, mean_loss, measure_token_losses

REPLIES_PER_STEP = 16  # replies measured under each side between two checks of the time
PERMUTATION_SEED = 0
CandidateName = TypeVar("CandidateName", bound=str)
UseCandidate = Callable[[CandidateName], AbstractContextManager[Any]]


def drawn_places(count: int, most: int | None = None, *, in_order: bool = True) -> list[int]:
    """Draw `most` of so many places (None: all), as they are or `in_order`.

    A random order makes them a fair sample; a fixed one makes two evaluations comparable.
    """
    drawn: list[int] = np.random.default_rng(PERMUTATION_SEED).permutation(count).tolist()
    chosen = drawn[:most]
    return sorted(chosen) if in_order else chosen


@dataclass(frozen=True)
class PairedLosses(Generic[CandidateName]):
    """`places` are the indices of the measured samples, in order; `losses` their losses by side, of
    which so many were `computed`, and the others known.
    """

    places: tuple[int, ...]
    losses: Mapping[CandidateName, Sequence[TokenLosses]]
    computed: int = 0

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
    stored: KnownLosses = NO_KNOWN_LOSSES,
    most: int | None = None,
) -> PairedLosses[CandidateName]:
    """Measure the losses of the samples under each side.

    With a budget, samples are measured in a fixed random order until it is spent, at least
    `REPLIES_PER_STEP`. `known` are losses of all samples for sides measured before, `stored` those
    that earlier evaluations have kept. `most` limits the samples, to the same ones each time.
    """
    order = drawn_places(len(samples), most)
    step = max(1, len(order))
    if budget:
        # All sides measure a few samples before any measures more, so that each has the same ones
        # whenever time runs out.
        order = drawn_places(len(samples), most, in_order=False)
        step = REPLIES_PER_STEP
    by_side: dict[CandidateName, dict[int, TokenLosses]] = {name: {} for name in names}

    computed = 0

    def measure_new(name: CandidateName, samples: Sequence[TokenizedSample]) -> list[TokenLosses]:
        nonlocal computed
        computed += len(samples)
        with use(name) as model:
            return measure_token_losses(model, samples, between)

    def measure(places: Sequence[int]) -> None:
        chosen = [samples[place] for place in places]
        for name, losses in by_side.items():
            if known and name in known:
                losses.update((place, known[name][place]) for place in places)
                continue
            measured = stored.measure(name, chosen, partial(measure_new, name))
            losses.update(zip(places, measured, strict=True))

    for begin in range(0, len(order), step):
        if begin and budget and budget.is_spent:
            break
        measure(order[begin : begin + step])
    places = tuple(sorted(next(iter(by_side.values()), {})))
    losses_in_order: dict[CandidateName, list[TokenLosses]] = {}
    for name, losses in by_side.items():
        losses_in_order[name] = [losses[place] for place in places]
    return PairedLosses(places, losses_in_order, computed)
