"""Losses of the same replies under several candidates, within a time budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from personas.prompt import TokenizedSample
from trainer.train.losses import ReplyLoss, TokenLosses, mean_loss, measure_token_losses

"""All sections; all of them in a fifth of the time; the losses on held-out replies and general dialogue alone."""


class TimeBudget:
    """Seconds for a part of the card, which count from when it is made.

    Who has some takes fewer prompts where there is little left, but never none, and says how many.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.seconds = seconds
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left, 0 at least."""
        return max(0.0, self._end - self._clock())

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.left <= 0

    def part(self, share: float) -> TimeBudget:
        """A share (0 to 1) of what is left, which counts from now."""
        return TimeBudget(self.left * share, self._clock)


REPLIES_PER_STEP, PERMUTATION_SEED = 16, 0


"""How many replies are measured under each side before it is looked whether time is left."""


CandidateName = TypeVar("CandidateName", bound=str)


UseCandidate = Callable[[CandidateName], AbstractContextManager[Any]]


@dataclass(frozen=True)
class PairedLosses(Generic[CandidateName]):
    """`places` says which of the samples were measured, in order; `losses` has by side the losses of these."""

    places: tuple[int, ...]
    losses: Mapping[CandidateName, Sequence[TokenLosses]]

    def whole(self, name: CandidateName) -> list[ReplyLoss]:
        """Each reply's loss under a side, end of turn included."""
        return [losses.whole for losses in self.losses[name]]

    def means(self) -> dict[CandidateName, float]:
        """Nats per reply token, by side."""
        return {name: mean_loss(self.whole(name)) for name in self.losses}

    def chosen(self, items: Sequence[Any]) -> list[Any]:
        """Those of `items`, one for each sample, that belong to what was measured."""
        return [items[place] for place in self.places]


def paired_losses(
    use: UseCandidate[CandidateName],
    names: Sequence[CandidateName],
    samples: Sequence[TokenizedSample],
    budget: TimeBudget | None = None,
    between: Callable[[], None] = lambda: None,
    known: Mapping[CandidateName, Sequence[TokenLosses]] | None = None,
) -> PairedLosses[CandidateName]:
    """The losses of the samples under each side.

    Within a budget they are taken in an order that chance decides once for all, until it is spent; `REPLIES_PER_STEP` are
    measured at least. `known` are sides that all the samples were measured under before.
    """
    order = (
        np.random.default_rng(PERMUTATION_SEED).permutation(len(samples)).tolist()
        if budget
        else list(range(len(samples)))
    )
    step = REPLIES_PER_STEP if budget else max(1, len(samples))
    found: dict[CandidateName, dict[int, TokenLosses]] = {name: {} for name in names}
    for begin in range(0, len(order), step):
        if begin and budget and budget.is_spent:
            break
        _measure(use, samples, order[begin : begin + step], found, between, known or {})
    places = tuple(sorted(next(iter(found.values()), {})))
    return PairedLosses(places, {name: [losses[place] for place in places] for name, losses in found.items()})


def _measure(
    use: UseCandidate[CandidateName],
    samples: Sequence[TokenizedSample],
    places: Sequence[int],
    found: dict[CandidateName, dict[int, TokenLosses]],
    between: Callable[[], None],
    known: Mapping[CandidateName, Sequence[TokenLosses]],
) -> None:
    for name, losses in found.items():
        if name in known:
            losses |= {place: known[name][place] for place in places}
            continue
        with use(name) as model:
            losses |= zip(
                places, measure_token_losses(model, [samples[place] for place in places], between), strict=True
            )
