"""Fits a recipe's length of samples to the persona's card, which each of them begins with."""

import math

from personas.errors import MaterialError
from personas.models.base_model import BaseModel, max_positions
from personas.prompt.renderer import Renderer
from personas.schemas.chat import Persona, Turn
from trainer.dataset.synthetic.card_replies import ReplyLength
from trainer.schemas import Recipe, ResolvedRecipe

QUESTION_TOKENS = 40
"""Room for a question and the marks around question and reply."""
LORE_TOKENS = 192
"""Room for lore that longer samples have besides."""
LENGTH_STEP = 64
UNBOUNDED_TOKENS = 2**20


def card_tokens(persona: Persona | None, renderer: Renderer) -> int:
    """Count the tokens of a persona's card with a question and a reply; 0 without a persona."""
    if persona is None:
        return 0
    card = renderer.prompt(persona, [Turn("", "")], max_tokens=UNBOUNDED_TOKENS)
    return len(card.ids) + _exchange_tokens(persona)


def _exchange_tokens(persona: Persona) -> int:
    """Count the tokens of a question and a reply."""
    return QUESTION_TOKENS + ReplyLength.measure(persona).tokens


def fit_length_to_card(
    recipe: Recipe, tokens: int, base: BaseModel, stored: ResolvedRecipe | None = None
) -> Recipe:
    """Return the recipe with a `max_length` that holds a long card, too: `tokens` of it, a question
    and a reply (`card_tokens`).

    A length that the request sets stays, and so does that of a run that is resumed, whose recipe is
    `stored`. More than the model reads is not chosen.
    """
    if not tokens or "max_length" in recipe.model_fields_set:
        return recipe
    if stored:
        return recipe.with_values(max_length=stored.recipe.max_length)
    if tokens <= recipe.max_length:
        return recipe
    longest = math.ceil((tokens + LORE_TOKENS) / LENGTH_STEP) * LENGTH_STEP
    longest = min(longest, max_positions(base) or longest)
    return recipe.with_values(max_length=max(longest, recipe.max_length))


def require_room_beside_card(persona: Persona, tokens: int, recipe: Recipe) -> None:
    """Raise `MaterialError` for a card that fills samples of `max_length` alone: before thousands of
    them are made, and each is too long. `tokens` are those of `card_tokens`.
    """
    card = tokens - _exchange_tokens(persona)
    if card >= recipe.max_length:
        raise MaterialError(
            f"The card of {persona.name} has {card:,} tokens in a prompt, and a sample at most "
            f"{recipe.max_length:,} (max_length): no reply fits behind it.",
            "Raise max_length if the base model reads more. Or shorten the description, or move parts "
            "of it into the lore.",
        )


def length_notes(recipe: Recipe, fitted: Recipe) -> tuple[str, ...]:
    """Say for people that samples are longer than their recipe has them."""
    if fitted.max_length == recipe.max_length:
        return ()
    return (
        f"max_length is {fitted.max_length:,} instead of {recipe.max_length:,}: the persona's card "
        "is long. Training takes longer for it.",
    )
