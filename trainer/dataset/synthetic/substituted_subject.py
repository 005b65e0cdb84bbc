"""Rewrites lore in the first person where verbs do not change with the person: names and pronouns
are replaced by the word that the persona uses for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from personas.prompt.renderer import example_turns
from personas.schemas.chat import Persona
from personas.schemas.scripts import UNSEGMENTED_SCRIPTS
from trainer.dataset.synthetic.first_person import FactKind, LoreSubject
from trainer.dataset.synthetic.language_rules import LanguageRules

QUOTATION = re.compile('["“”«»„「『]')
CLAUSE_BREAK = re.compile("[，。；,;]")
SCRIPTS_WITH_CAPITALS = (*range(0x250), *range(0x370, 0x590), *range(0x1E00, 0x2000))
UPPER = "".join(filter(str.isupper, map(chr, SCRIPTS_WITH_CAPITALS)))
"""Capital letters of the Latin, Greek, Cyrillic and Armenian scripts, for a character class."""


@dataclass(frozen=True)
class SubstitutedSubject(LoreSubject):
    """References to a persona in lore of another language. `own_word` is its word for itself in the
    card.
    """

    rules: LanguageRules
    own_word: str

    @classmethod
    def find(cls, persona: Persona, text: str, rules: LanguageRules) -> SubstitutedSubject:
        """Derive the references from the persona's name, its card, and the text of its lore."""
        words = persona.name.split()
        has_title = words[0].casefold() in rules.pronouns
        names = {persona.name, persona.nickname, "" if has_title else words[-1]}
        for start in range(len(words)):
            for end in range(start + 2, len(words) + 1):
                names.add(" ".join(words[start:end]))
        for name in (persona.name, persona.nickname):
            # In a Chinese name, the given name follows the family name without a space.
            if re.fullmatch(f"[{UNSEGMENTED_SCRIPTS}]{{3,4}}", name):
                names.add(name[-2:])
        by_length = sorted(filter(None, names), key=lambda name: (-len(name), name))
        pronoun = words[0].casefold() if has_title else _commonest_pronoun(text, rules)
        own_words = [*rules.self, *(title for title in rules.titles if title == pronoun)]
        own_word = _commonest_word(own_words, persona)
        return cls(tuple(by_length), pronoun, rules, own_word)

    @cached_property
    def _name(self) -> re.Pattern[str]:
        return re.compile("|".join(map(_word_pattern, self.names)), re.IGNORECASE)

    @cached_property
    def _pronoun(self) -> re.Pattern[str]:
        return re.compile(_pronoun_pattern(self.rules.pronouns.get(self.pronoun, "(?!)")))

    @property
    def _you(self) -> str:
        """The word for the persona in a question to it, as a replacement of `re.sub`."""
        return self.own_word if self.own_word == self.pronoun else self.rules.you or r"\g<0>"

    def is_named_in(self, text: str) -> bool:
        return self._name.search(text) is not None

    def opens(self, sentence: str) -> bool:
        return self._name.match(sentence) is not None

    def has_pronoun(self, sentence: str) -> bool:
        return self._pronoun.search(sentence) is not None

    def is_referred_to(self, text: str) -> bool:
        return not self.rules.self or self.is_named_in(text) or self.has_pronoun(text)

    def names_in(self, text: str) -> list[str]:
        """Find names of other people."""
        person = self.rules.person.replace("{upper}", f"[{UPPER}]")
        return [match["name"] for match in re.finditer(person, self._name.sub("", text))]

    def people_in(self, text: str) -> list[str]:
        return self.names_in(text)

    def is_beside_others(self, sentence: str) -> bool:
        people = self.people_in(sentence)
        if self.pronoun in self.rules.titles:
            # The pronoun is a title, so nobody with another title is meant.
            return any(name.casefold().startswith(f"{self.pronoun} ") for name in people)
        if people:
            return True
        return re.search(self.rules.animate, sentence, re.IGNORECASE) is not None

    def fact_kind(self, sentence: str, names: Iterable[str], about: bool) -> FactKind:
        if about and re.search(self.rules.style, sentence, re.IGNORECASE):
            return "style"
        if names and re.search(self.rules.relation, sentence, re.IGNORECASE):
            return "relation"
        return "trait" if about and re.search(self.rules.trait, sentence, re.IGNORECASE) else "fact"

    def stays_clear(self, sentence: str, clear: bool) -> bool:
        return (clear or self.opens(sentence)) and not self.is_beside_others(sentence)

    @property
    def follow_ups(self) -> tuple[str, ...]:
        return self.rules.follow_ups

    def who_is(self, name: str) -> str:
        return self.rules.who_to_you.format(name=name, you=self._you)

    def likes(self, thing: str) -> str:
        """Phrase the question whether the persona likes something."""
        return self.rules.likes.format(thing=thing, you=self._you)

    def to_first_person(self, sentence: str, *, clear: bool = True) -> str | None:
        """Replace names and pronouns, unless a pronoun may mean somebody else or the sentence
        quotes somebody.
        """
        if not self.rules.self or QUOTATION.search(sentence):
            return None
        has_pronoun = self.has_pronoun(sentence)
        if not has_pronoun and not self.is_named_in(sentence):
            return None
        if has_pronoun and (not clear or self.is_beside_others(sentence)):
            return None

        def replace(pronoun: re.Match[str]) -> str:
            clause = CLAUSE_BREAK.split(sentence[: pronoun.start()])[-1]
            object_marker = f"(?:{self.rules.object_marker})$"
            if self.is_named_in(clause) and re.search(object_marker, clause):
                # The persona is this clause's subject, so its object is somebody else.
                return pronoun.group()
            return self.own_word

        # Pronouns first: `replace` looks for the persona's name in the original sentence, whose
        # places the replacement of names would move.
        spoken = self._name.sub(self.own_word, self._pronoun.sub(replace, sentence))
        return spoken[0].upper() + spoken[1:]

    def question_about(self, topic: str) -> str:
        """Phrase a question about a section's heading."""
        if topic in self.people_in(topic):
            return self.rules.who.format(name=topic)
        asked = self._pronoun.sub(self._you, self._name.sub(self._you, topic))
        if self.rules.self and not asked.istitle():
            asked = asked[:1].lower() + asked[1:]
        return self.rules.about.format(topic=asked)


def _commonest_pronoun(text: str, rules: LanguageRules) -> str:
    counts: dict[str, int] = {}
    for pronoun, pattern in rules.pronouns.items():
        counts[pronoun] = len(re.findall(_pronoun_pattern(pattern), text))
    return max(counts, key=counts.__getitem__, default="")


def _commonest_word(words: Sequence[str], persona: Persona) -> str:
    """Return the word that the persona's example replies have most often."""
    replies = [turn.text for turn in example_turns(persona) if turn.by_persona]
    spoken = " ".join([persona.first_mes, *replies])
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = len(re.findall(_word_pattern(word), spoken, re.IGNORECASE))
    return max(counts, key=counts.__getitem__, default="")


def _word_pattern(word: str) -> str:
    """Return a pattern of a whole word; words of scripts without spaces may stand anywhere."""
    escaped = re.escape(word)
    return escaped if re.search(f"[{UNSEGMENTED_SCRIPTS}]", word) else rf"\b{escaped}\b"


def _pronoun_pattern(pattern: str) -> str:
    """Return a pattern of a pronoun; before a name, the word is that person's title."""
    return rf"(?i:{pattern})(?! [{UPPER}])"
