"""Fits a recipe's length of samples to the persona's card, which each of them begins with."""

import math

from personas.models.base_model import BaseModel, max_positions
from personas.prompt.renderer import Renderer
from personas.schemas.chat import Persona, Turn
from trainer.schemas import Recipe, ResolvedRecipe

MIN_EXCHANGE_TOKENS = 64
"""With less room beside the card, hardly a reply would be left to train on."""
EXCHANGE_TOKENS = 256
"""Room beside such a card: for lore, a question and a reply."""
LENGTH_STEP = 64
UNBOUNDED_TOKENS = 2**20


def fit_length_to_card(
    recipe: Recipe,
    persona: Persona | None,
    renderer: Renderer,
    base: BaseModel,
    stored: ResolvedRecipe | None = None,
) -> Recipe:
    """Return the recipe with a `max_length` that also a long card fits with a question and a reply.

    A length that the request sets stays, and so does that of a run that is resumed, whose recipe is
    `stored`. More than the model reads is not chosen.
    """
    if persona is None or "max_length" in recipe.model_fields_set:
        return recipe
    if stored:
        return recipe.with_values(max_length=stored.recipe.max_length)
    card = len(renderer.prompt(persona, [Turn("", "")], max_tokens=UNBOUNDED_TOKENS).ids)
    if card + MIN_EXCHANGE_TOKENS <= recipe.max_length:
        return recipe
    longest = math.ceil((card + EXCHANGE_TOKENS) / LENGTH_STEP) * LENGTH_STEP
    longest = min(longest, max_positions(base) or longest)
    return recipe.with_values(max_length=max(longest, recipe.max_length))


def length_notes(recipe: Recipe, fitted: Recipe) -> tuple[str, ...]:
    """Say for people that samples are longer than their recipe has them."""
    if fitted.max_length == recipe.max_length:
        return ()
    return (
        f"max_length is {fitted.max_length:,} instead of {recipe.max_length:,}: the persona's card "
        "is long. Training takes longer for it.",
    )
