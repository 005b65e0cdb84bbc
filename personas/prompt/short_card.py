"""The short card: a persona's name and one line, for versions that were trained to know the rest."""

import re
from dataclasses import replace

from personas.prompt.abbreviations import ABBREVIATION_LOOKBEHIND
from personas.schemas.chat import Persona

MAX_LINE_CHARS = 200
"""Characters of a line that is taken from the description; a tagline has no more, either."""

SENTENCE_END_PATTERN = re.compile(
    rf"{ABBREVIATION_LOOKBEHIND}(?<!\b\w\.)(?<=[.!?])\s|(?<=[。！？])|\n"
)
"""No sentence ends in a single letter: too long a line harms less than half a name."""


def short_card(persona: Persona) -> Persona:
    """Return the persona with a card of one line: its name and its tagline.

    Without a tagline, the first sentence of the description is the line. Speech, examples and
    instructions are left out.
    """
    line = persona.tagline.strip()
    opening = "You are {{char}}."
    if not line:
        line = _first_sentence(persona.description or persona.personality)
        if "{{char}}" in line or persona.name in line:
            opening = ""
    return replace(
        persona,
        description=f"{opening} {line}".strip(),
        personality="",
        scenario="",
        speech="",
        system_prompt="",
        post_history_instructions="",
        mes_example="",
    )


def _first_sentence(text: str) -> str:
    sentence = SENTENCE_END_PATTERN.split(text.strip(), maxsplit=1)[0].strip()
    if len(sentence) <= MAX_LINE_CHARS:
        return sentence
    cut = sentence[:MAX_LINE_CHARS]
    return cut.rpartition(" ")[0] or cut  # a language without spaces
