"""General ability: whether the model still predicts general dialogue and instruction replies as the base model does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from personas.prompt import Renderer, Sample
from personas.scorecard import General, Interval, Side
from trainer.dataset import Dataset
from trainer.evaluate import TokenLosses
from trainer.scorecard.bootstrap import interval_of_ratio
from trainer.scorecard.budget import Budget
from trainer.scorecard.measured import Measured, measured_alike
from trainer.scorecard.sides import BASE, NEW, Sides

INSTRUCTIONS = Path(__file__).parents[2] / "data" / "instructions" / "instructions.jsonl"
"""Short tasks and answers, which no run trains on."""


def dialogue_losses(
    sides: Sides,
    data: Dataset,
    budget: Budget | None,
    known: Mapping[Side, Sequence[TokenLosses]],
    between: Callable[[], None],
) -> Measured[Side]:
    """The losses on the general dialogue that measures forgetting, on all of it without a budget.

    `known` are sides that were measured before.
    """
    return measured_alike(sides.use, sides.names, data.general, budget, between, known)


def general_section(dialogue: Measured[Side], data: Dataset, instructions: Measured[Side] | None = None) -> General:
    """The section from both sets of losses; instructions may not have been measured."""
    talks = [it.talk for it in dialogue.chosen(data.said_general)]
    return General(
        dialogue_loss=dialogue.means(),
        dialogue_change=_change(talks, dialogue),
        dialogue_replies=len(dialogue.places),
        instruction_loss=instructions.means() if instructions else {},
        instruction_change=_change([str(n) for n in instructions.places], instructions) if instructions else None,
        instruction_replies=len(instructions.places) if instructions else 0,
    )


def instruction_losses(sides: Sides, budget: Budget, between: Callable[[], None]) -> Measured[Side]:
    """The losses on instruction replies."""
    return measured_alike(sides.use, sides.names, instruction_samples(Renderer(sides.tokenizer)), budget, between)


def instruction_samples(renderer: Renderer) -> list[Sample]:
    """The tasks that ship, each with its answer."""
    lines = [json.loads(line)["messages"] for line in INSTRUCTIONS.read_text(encoding="utf-8").splitlines()]
    return [renderer.sample_of(messages[:-1], messages[-1]["content"]) for messages in lines]


def _change(talks: Sequence[str], measured: Measured[Side]) -> Interval:
    """How much greater the new version's loss is than the base's, as a share of the base's."""
    new, base = ([loss.nll for loss in measured.whole(side)] for side in (NEW, BASE))
    return interval_of_ratio(talks, [one - other for one, other in zip(new, base, strict=True)], base)
