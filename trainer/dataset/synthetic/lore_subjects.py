"""Finds by which names and pronouns lore refers to a persona, in the language of the lore."""

import re
from collections.abc import Iterable

from personas.lore.passages import Passage
from personas.schemas.chat import Persona
from trainer.dataset.quality_filters import detect_main_language
from trainer.dataset.synthetic.first_person import LoreSubject
from trainer.dataset.synthetic.language_rules import read_language_rules
from trainer.dataset.synthetic.substituted_subject import SubstitutedSubject

TITLES = ("Sir", "Lady", "Miss", "Mr")
MIN_PRONOUN_RATIO = 1.5
"""How often a pronoun occurs for each of the other one, to be the persona's."""


def find_subject(persona: Persona, passages: Iterable[Passage]) -> LoreSubject:
    """Derive the references from the persona's name, its id, its card and its lore, in the lore's
    language.
    """
    own = [passage for passage in passages if passage.owner == persona.id]
    text = " ".join(passage.text for passage in own)
    rules = read_language_rules(find_language(persona, own))
    if rules is not None:
        return SubstitutedSubject.find(persona, text, rules)
    names = {persona.name, persona.name.removeprefix("Sir "), persona.id.capitalize()}
    for word in persona.name.split():
        if word[:1].isupper() and word not in TITLES:
            names.add(word)
    # Longest first: a pattern tries its alternatives in their order.
    by_length = sorted(names, key=lambda name: (-len(name), name))
    return LoreSubject(tuple(by_length), _english_pronoun(text))


def _english_pronoun(text: str) -> str:
    he = len(re.findall(r"\bhe\b", text, re.IGNORECASE))
    she = len(re.findall(r"\bshe\b", text, re.IGNORECASE))
    if he and he >= MIN_PRONOUN_RATIO * she:
        return "he"
    if she and she >= MIN_PRONOUN_RATIO * he:
        return "she"
    return ""


def find_language(persona: Persona, passages: Iterable[Passage]) -> str:
    """Return the language code of the persona's lore, or of its card if there is none."""
    texts = [passage.text for passage in passages]
    return detect_main_language(texts or [persona.description, persona.mes_example])
