"""Samples of what a character says in its card, for a version that is trained from the card alone:
nothing else in such a training is its author's voice.
"""

from collections.abc import Iterator

from personas.home.pseudonyms import INVENTED_NAMES
from personas.prompt.renderer import (
    PromptTooLongError,
    Renderer,
    example_conversations,
)
from personas.schemas.chat import Persona, Turn
from trainer.dataset.dataset import SampleRecord
from trainer.dataset.synthetic.speaking_notes import spoken_greeting
from trainer.schemas import PromptReply

CARD_SOURCE = "said in the card"
"""The source of the samples in counts and data sheets."""
CARD_REPEATS = 2
"""Times that each exchange is learned in an epoch, from a guest of another name each."""
GREETED_WITH = "hello"
MAX_GREETING_WORDS = 120
"""Of a longer greeting, which sets a scene, the first paragraphs: it is no model for replies."""


def card_records(
    persona: Persona, renderer: Renderer, max_tokens: int, right: str, arrived: str = ""
) -> list[SampleRecord]:
    """Return samples of the card's examples and greeting under the short card, in whose prompt they
    are not; those that do not fit are left out.
    """
    short = renderer.with_card("short")
    records: list[SampleRecord] = []
    for guest in INVENTED_NAMES[:CARD_REPEATS]:
        for turns, reply in _exchanges(persona, guest):
            try:
                sample = short.sample(persona, turns, reply, max_tokens=max_tokens)
            except PromptTooLongError:
                continue
            said = PromptReply(CARD_SOURCE, turns[-1].text, reply)
            records.append(
                SampleRecord(sample, right, CARD_SOURCE, arrived, said=said, has_short_card=True)
            )
    return records


def _exchanges(persona: Persona, guest: str) -> Iterator[tuple[list[Turn], str]]:
    """Yield the turns before each thing that the character says, and what it says."""
    if greeting := spoken_greeting(persona.first_mes, persona, guest):
        yield [Turn(guest, GREETED_WITH)], _beginning(greeting)
    for conversation in example_conversations(persona, guest):
        for place, turn in enumerate(conversation):
            if turn.by_persona and turn.text.strip():
                yield conversation[:place], turn.text


def _beginning(greeting: str) -> str:
    """Return the paragraphs of a greeting that have `MAX_GREETING_WORDS` together, or the first one."""
    paragraphs = greeting.splitlines()
    words = 0
    for place, paragraph in enumerate(paragraphs):
        words += len(paragraph.split())
        if words > MAX_GREETING_WORDS:
            return "\n".join(paragraphs[: max(place, 1)]).strip()
    return greeting
