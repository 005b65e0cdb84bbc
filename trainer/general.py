"""General dialogue beside a persona's own talk: what of it is trained on, and what measures forgetting.

A recipe mixes it in by a share (`general_share`), or takes it first, in a stage of its own (`first_stage_epochs`). It
is a named data set's, or two thirds of the dialogue that measures forgetting: what is trained on tells nothing of what
training makes a model forget, so a third is kept from it, drawn by what was said and hence always the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from personas.errors import MaterialError
from trainer.building.split import drawn
from trainer.conversation import Conversation
from trainer.recipe import Recipe

Item = TypeVar("Item")
MEASURED = 1 / 3
"""Share of general dialogue that is never trained on where the rest is."""


def mixes(recipe: Recipe) -> bool:
    """Whether a persona's recipe trains on general dialogue besides."""
    return recipe.general_share > 0 or recipe.first_stage_epochs > 0


def parted(
    messages: Sequence[Conversation], general: Sequence[Conversation]
) -> tuple[list[Conversation], list[Conversation]]:
    """What measures forgetting, and what may be trained on, in the order in which it is taken.

    `messages` were named to be trained on; `general` is the dialogue that measures. Raises `MaterialError` when there
    is too little to do both.
    """
    named = {talk.raw_text for talk in messages}
    apart = [talk for talk in general if talk.raw_text not in named]
    if not (messages and apart):  # what is trained on is what would measure
        apart = _third(general)
    kept = {talk.raw_text for talk in apart}
    return apart, in_order([talk for talk in messages or general if talk.raw_text not in kept], _text)


def in_order(items: Sequence[Item], text: Callable[[Item], str]) -> list[Item]:
    """General talk in the order in which it is taken, which nothing but its text decides."""
    return sorted(items, key=lambda item: drawn("general", text(item)))


def wanted(recipe: Recipe, own: int) -> int | None:
    """How many general samples go with so many of the persona's; None for all there are."""
    share = recipe.general_share
    return round(own * share / (1 - share)) if share else None


def told_ratio(recipe: Recipe, own: int, taken: int) -> str:
    """What to say of a share that there was too little general dialogue to reach; empty where it was reached."""
    asked = wanted(recipe, own)
    if asked is None or taken >= asked:
        return ""
    return (
        f"General dialogue was to be {recipe.general_share:.0%} of what is trained on. There are {taken:,} samples of "
        f"it to {own:,} of the persona's: it is {taken / (taken + own):.0%}."
    )


def _third(general: Sequence[Conversation]) -> list[Conversation]:
    """The conversations below the border in their draw, and where none or all are, the one that comes nearest."""
    ordered = in_order(general, _text)
    if len({talk.raw_text for talk in ordered}) < 2:
        raise MaterialError(
            "There is only one general dialogue; training on some and measuring with others takes two.",
            "Give more of them.",
        )
    below = [talk for talk in ordered if drawn("general", talk.raw_text) < MEASURED]
    if len(below) == len(ordered):
        below = [talk for talk in below if talk.raw_text != ordered[-1].raw_text]
    return below or ordered[:1]


def _text(conversation: Conversation) -> str:
    return conversation.raw_text
