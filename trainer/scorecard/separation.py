"""Separation: whether each persona's held-out replies are predicted best by its own adapter.

Every reply is asked for in the same way: with the last message before it and nothing else, no card, no lore, no earlier
turns, no name. So nothing in the prompt tells who speaks, and what tells the personas apart is the adapters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personas.contracts import AdapterRef, Turn
from personas.prompt import Renderer, Sample
from personas.scorecard import Interval, Separation
from trainer.dataset import Dataset
from trainer.evaluate import ReplyLoss, mean_loss
from trainer.exchange import Exchange
from trainer.scorecard.bootstrap import interval_of_ratio
from trainer.scorecard.budget import Budget
from trainer.scorecard.measured import Measured, measured_alike
from trainer.scorecard.neighbours import Neighbour
from trainer.scorecard.sides import NEW, Sides

Losses = Mapping[str, Mapping[str, Sequence[ReplyLoss]]]
"""By the persona that spoke, then by the one whose adapter predicts: each reply's loss, in the same order."""

NO_NEIGHBOUR = "No other persona has an adapter of its own that could be compared."


@dataclass(frozen=True)
class Fitting:
    """How personas and adapters go together. `fits` says of each reply whether no other adapter predicts it as well as
    its persona's own, by persona."""

    fits: Mapping[str, NDArray[np.bool_]]
    losses: Mapping[str, Mapping[str, float]]

    @property
    def own_best(self) -> float:
        """The share of all replies that their own adapter fits best."""
        return float(np.concatenate(list(self.fits.values())).mean())


def fitting(losses: Losses) -> Fitting:
    """What the losses of all personas' replies under all their adapters come to."""
    means = {persona: {name: mean_loss(replies) for name, replies in row.items()} for persona, row in losses.items()}
    return Fitting({persona: _advantages(losses, persona) > 0 for persona in losses}, means)


def margin_bits(losses: Losses, talks: Mapping[str, Sequence[str]]) -> Interval:
    """By how many bits per token own adapters are better than the best other one."""
    nats = [float(more) for persona in losses for more in _advantages(losses, persona)]
    bits = [loss.tokens * math.log(2) for persona, row in losses.items() for loss in row[persona]]
    return interval_of_ratio([f"{persona} {talk}" for persona in losses for talk in talks[persona]], nats, bits)


def separation_section(
    sides: Sides,
    own: str,
    data: Dataset,
    neighbours: Sequence[Neighbour],
    budget: Budget,
    between: Callable[[], None],
) -> Separation:
    """Measure the new version's persona `own` beside its neighbours, of which there is one at least."""
    said = {own: spoken(data)} | {it.persona: spoken(it.data) for it in neighbours}
    refs = {own: sides.ref(NEW)} | {it.persona: it.ref for it in neighbours}
    renderer = Renderer(sides.tokenizer)
    measured = {
        persona: _under_all(sides, refs, [_alone(renderer, it) for it in exchanges], budget.part(1 / left), between)
        for left, (persona, exchanges) in zip(range(len(said), 0, -1), said.items(), strict=True)
    }
    for it in neighbours:
        sides.adapted.drop(it.ref)
    losses = {persona: {name: found.whole(name) for name in refs} for persona, found in measured.items()}
    talks = {persona: [it.talk for it in measured[persona].chosen(said[persona])] for persona in said}
    found = fitting(losses)
    return Separation(
        replies=sum(len(it) for it in talks.values()),
        loss={persona: dict(row) for persona, row in found.losses.items()},
        own_best=found.own_best,
        own_best_new=float(found.fits[own].mean()),
        margin_bits=margin_bits(losses, talks),
    )


def spoken(data: Dataset) -> list[Exchange]:
    """The held-out replies that are the persona's own, or all where none is."""
    return [it for it in data.said_heldout if it.by_persona] or list(data.said_heldout)


def _under_all(
    sides: Sides,
    refs: Mapping[str, AdapterRef | None],
    samples: Sequence[Sample],
    budget: Budget,
    between: Callable[[], None],
) -> Measured[str]:
    return measured_alike(lambda name: sides.use_adapter(refs[name]), tuple(refs), samples, budget, between)


def _alone(renderer: Renderer, said: Exchange) -> Sample:
    """The reply after its message alone."""
    return renderer.sample(None, [Turn("", said.message)], said.reply)


def _advantages(losses: Losses, persona: str) -> NDArray[np.float64]:
    """By how many nats each of a persona's replies is likelier under its own adapter than under the best other one."""
    others = [[loss.nll for loss in replies] for name, replies in losses[persona].items() if name != persona]
    own = np.array([loss.nll for loss in losses[persona][persona]])
    return np.asarray(np.min(others, axis=0) - own, dtype=np.float64)
