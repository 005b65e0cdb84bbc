"""The two cards that a version can be served with, and the tokens that each takes in a prompt."""

from bot.personas.base_model_compat import count_card_tokens
from bot.personas.web.lookup import OwnedPersona
from bot.platform.web_kit.openapi import ApiModel
from personas.prompt.short_card import short_card


class CardChoiceTokens(ApiModel):
    """Tokens that each card takes in a prompt, examples included."""

    full: int
    short: int


def count_card_choice_tokens(owned: OwnedPersona) -> CardChoiceTokens:
    """Count the tokens of both cards of a persona. To be called in a thread: it may load a
    tokenizer.
    """
    services = owned.services
    counts = []
    for persona in (owned.persona, short_card(owned.persona)):
        room = count_card_tokens(persona, services.base_model, services.engine.context_tokens)
        counts.append(room.tokens)
    return CardChoiceTokens(full=counts[0], short=counts[1])
