"""Finds by which names and pronouns lore refers to a persona, in the language of the lore."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from personas.lore.passages import Passage, split_sentences
from personas.prompt.renderer import example_turns
from personas.schemas.chat import Persona
from trainer.dataset.synthetic.first_person import LoreSubject
from trainer.dataset.synthetic.language_rules import read_language_rules
from trainer.dataset.synthetic.speaking_style import measure_style
from trainer.dataset.synthetic.substituted_subject import SubstitutedSubject
from trainer.languages import detect_main_language

TITLES = ("Sir", "Lady", "Miss", "Mr")
MIN_PRONOUN_RATIO = 1.5
"""How often a pronoun occurs for each of the other one, to be the persona's."""
PRONOUNS = {"He": "he", "His": "he", "She": "she", "Her": "she", "It": "it", "Its": "it"}
SUBJECT_PRONOUN = re.compile(rf"(?:{'|'.join(PRONOUNS)})\b")
MIN_USES_AS_A_THING = 2


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
    names.update([*_names_as_a_thing(names, text)])
    # Longest first: a pattern tries its alternatives in their order.
    by_length = tuple(sorted(names, key=lambda name: (-len(name), name)))
    pronoun = _pronoun_after_name(by_length, own) or _commonest_pronoun(text)
    return LoreSubject(by_length, pronoun, says_i=measure_style(persona).says_i)


def _names_as_a_thing(names: Iterable[str], text: str) -> Iterator[str]:
    """Yield names with their article: lore calls Booth 19 "the booth"."""
    for name in names:
        if len(re.findall(rf"\b[Tt]he {re.escape(name.lower())}\b", text)) >= MIN_USES_AS_A_THING:
            yield f"The {name.lower()}"
            yield f"the {name.lower()}"


def _pronoun_after_name(names: Sequence[str], own: Iterable[Passage]) -> str:
    """Return the pronoun with which sentences begin after one that begins with the persona's name; ""
    where they do not tell.

    "It" may be whatever the sentence before speaks of: it counts where "he" and "she" are rarer.
    """
    name = re.compile(rf"(?:{'|'.join(map(re.escape, names))})\b")
    after_name = Counter[str]()
    anywhere = Counter[str]()
    for passage in own:
        if not name.search(passage.text):
            continue
        for before, sentence in itertools.pairwise(split_sentences(passage.text)):
            if match := SUBJECT_PRONOUN.match(sentence):
                pronoun = PRONOUNS[match[0]]
                anywhere[pronoun] += 1
                after_name[pronoun] += name.match(before) is not None
    of_person = max(("he", "she"), key=after_name.__getitem__)
    if after_name[of_person] > 0 and after_name[of_person] >= after_name["it"]:
        return of_person
    return "it" if after_name["it"] > anywhere["he"] + anywhere["she"] else ""


def _commonest_pronoun(text: str) -> str:
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
    examples = [turn.text for turn in example_turns(persona)]
    return detect_main_language(texts or [persona.description, *examples])
