"""How much of every prompt a card takes, and whether it leaves room to talk."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from personas.base_model import EMBEDDED, locate
from personas.card.show import CountTokens, token_counter
from personas.contracts import Persona
from personas.errors import BaseModelError, CardError
from personas.prompt import CONTEXT_TOKENS, EXAMPLE_USER, MAX_CARD_TOKENS, system_text

MAX_GREETING = 6000
"""Characters of a greeting: more than four messages at once are nobody's wish."""
CHARACTERS_A_TOKEN = 3
"""How many characters a token stands for where no tokenizer is at hand: cautiously few."""


@dataclass(frozen=True)
class Room:
    """What a card takes, in tokens: its prose, which is in every prompt, and its examples, as far as they fit."""

    prose: int
    examples: int

    @property
    def examples_used(self) -> int:
        """How many tokens of examples a prompt holds at most."""
        return min(self.examples, max(0, MAX_CARD_TOKENS - self.prose))

    @property
    def tokens(self) -> int:
        """What it takes in all."""
        return self.prose + self.examples_used

    @property
    def share(self) -> float:
        """Of what prompt and reply hold together."""
        return self.tokens / CONTEXT_TOKENS


@functools.cache
def tokenizer_of(base_model: str) -> CountTokens | None:
    """Counts tokens as a base model does; None where its tokenizer is not on this machine. Reads a file once."""
    try:
        return token_counter(base_model if base_model == EMBEDDED else str(locate(base_model, fetch=False).folder))
    except BaseModelError:
        return None


def count_of(base_model: str) -> CountTokens:
    """Counts tokens as a base model does, or about so where its tokenizer is not on this machine."""
    return tokenizer_of(base_model) or (lambda text: len(text) // CHARACTERS_A_TOKEN)


def room_of(persona: Persona, base_model: str) -> Room:
    """What the card takes with this base model."""
    count = count_of(base_model)
    prose = system_text(persona, EXAMPLE_USER) + persona.post_history_instructions
    return Room(count(prose), count(persona.mes_example))


def require_room(persona: Persona, where: str, room: Room) -> None:
    """Raise `CardError` when the card's prose alone leaves no room to talk, or it greets at length."""
    if len(persona.first_mes) > MAX_GREETING:
        raise CardError(
            f"The greeting in {where} has {len(persona.first_mes)} characters, more than {MAX_GREETING}.",
            "Shorten first_mes.",
        )
    if room.prose > MAX_CARD_TOKENS:
        raise CardError(
            f"{where} would take about {room.prose} tokens of every prompt; at most {MAX_CARD_TOKENS} leave room to "
            "talk.",
            "Shorten the description, or move what is told there into the character book.",
        )
