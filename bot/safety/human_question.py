"""What a persona says to the sincere question whether it is human: the line that its card has for it,
or the one of data/safety. No model is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from bot.platform.localisation import Language, gettext_noop
from bot.safety.actions import PLAIN_DISCLOSURE
from bot.safety.rules import SafetyRules
from personas.prompt.macros import resolve_macros
from personas.prompt.renderer import EXAMPLE_USER, fill_macros
from personas.schemas.chat import Persona

CATALOGUE_LANGUAGES: Mapping[str, Language] = {
    "en": "en",
    "de": "de",
    "es": "es",
    "vi": "vi",
    "zh": "zh_Hans",
}
"""The catalogues' languages by those of the rules."""
AUTHORS_NOTE = gettext_noop("a line by this persona's author")
FIXED_NOTE = gettext_noop("a fixed line, which no model wrote")


@dataclass(frozen=True)
class HumanAnswer:
    """A persona's line in a language, and the note that says whose it is."""

    text: str
    note: str
    language: Language


def answer_if_human(persona: Persona, asked: str, now: datetime) -> HumanAnswer | None:
    """Return the line of a persona where a message asks, in earnest, whether it is human; in the
    language of the question, if its card has none. None for other messages.
    """
    rules = SafetyRules.shipped().find_sincere_question(
        asked, persona.name, persona.nickname, *persona.name.split()
    )
    if rules is None:
        return None
    line = persona.asked_if_human or rules.asked_if_human
    text = fill_macros(resolve_macros(line, persona.name, now).text, persona, EXAMPLE_USER)
    return HumanAnswer(
        text.strip(),
        note=AUTHORS_NOTE if persona.asked_if_human else FIXED_NOTE,
        language=CATALOGUE_LANGUAGES[rules.language],
    )


def whole_answer(persona: Persona | None, asked: str, now: datetime) -> str | None:
    """Return the line with the bot's own below it, for places that have no notes; None where a model
    answers.
    """
    answer = answer_if_human(persona, asked, now) if persona else None
    if answer is None:
        return None
    return f"{answer.text}\n\n{PLAIN_DISCLOSURE.in_language(answer.language)}"
