"""Losses of the same replies under several sides, as many of them as the time allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from personas.prompt import Sample
from trainer.evaluate import ReplyLoss, TokenLosses, mean_loss, measure_tokens
from trainer.scorecard.budget import Budget

AT_ONCE, SEED = 16, 0
"""How many replies are measured under each side before it is looked whether time is left."""

Name = TypeVar("Name", bound=str)
Use = Callable[[Name], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Measured(Generic[Name]):
    """`places` says which of the samples were measured, in order; `losses` has by side the losses of these."""

    places: tuple[int, ...]
    losses: Mapping[Name, Sequence[TokenLosses]]

    def whole(self, name: Name) -> list[ReplyLoss]:
        """Each reply's loss under a side, end of turn included."""
        return [losses.whole for losses in self.losses[name]]

    def means(self) -> dict[Name, float]:
        """Nats per reply token, by side."""
        return {name: mean_loss(self.whole(name)) for name in self.losses}

    def chosen(self, items: Sequence[Any]) -> list[Any]:
        """Those of `items`, one for each sample, that belong to what was measured."""
        return [items[place] for place in self.places]


def measured_alike(
    use: Use[Name],
    names: Sequence[Name],
    samples: Sequence[Sample],
    budget: Budget | None = None,
    between: Callable[[], None] = lambda: None,
    known: Mapping[Name, Sequence[TokenLosses]] | None = None,
) -> Measured[Name]:
    """The losses of the samples under each side.

    Within a budget they are taken in an order that chance decides once for all, until it is spent; `AT_ONCE` are
    measured at least. `known` are sides that all the samples were measured under before.
    """
    order = np.random.default_rng(SEED).permutation(len(samples)).tolist() if budget else list(range(len(samples)))
    step = AT_ONCE if budget else max(1, len(samples))
    found: dict[Name, dict[int, TokenLosses]] = {name: {} for name in names}
    for begin in range(0, len(order), step):
        if begin and budget and budget.is_spent:
            break
        _measure(use, samples, order[begin : begin + step], found, between, known or {})
    places = tuple(sorted(next(iter(found.values()), {})))
    return Measured(places, {name: [losses[place] for place in places] for name, losses in found.items()})


def _measure(
    use: Use[Name],
    samples: Sequence[Sample],
    places: Sequence[int],
    found: dict[Name, dict[int, TokenLosses]],
    between: Callable[[], None],
    known: Mapping[Name, Sequence[TokenLosses]],
) -> None:
    for name, losses in found.items():
        if name in known:
            losses |= {place: known[name][place] for place in places}
            continue
        with use(name) as model:
            losses |= zip(places, measure_tokens(model, [samples[place] for place in places], between), strict=True)
