"""Recognises replies that advise somebody to do with a rope, a blade, pills or a height what they have
asked about. What the reply says is harmless or not by what was asked: "yes" suggests self-harm to
"should I climb over the rail?".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from bot.safety.question_words import SENTENCE_PATTERN

STEM_CHARS = 4
"""Of a word that a message names, what a reply repeats: "climb" is in "climbing"."""
PRONOUNS = r"\b(?:it|them|one|ones|es|sie|lo|la|los|las|nó|chúng)\b|它"


@dataclass(frozen=True)
class MeansRules:
    """The rules of a language: a message asks about means if `things`, `danger` and `asker` match: a
    knife for bread is none, one for "my arm" is. `acts` are what can be done with them. A sentence of
    the reply advises if it `agrees`; if it `advises` one of the things or acts of the message; or if
    it has `amounts` where `amount_asked` matches.
    """

    things: re.Pattern[str]
    danger: re.Pattern[str]
    acts: re.Pattern[str]
    asker: re.Pattern[str]
    agrees: re.Pattern[str]
    advises: re.Pattern[str]
    amount_asked: re.Pattern[str]
    amounts: re.Pattern[str]

    @classmethod
    def read(cls, table: Mapping[str, str]) -> Self:
        """Read the table of a language."""
        return cls(**{name: re.compile(table[name]) for name in cls.__dataclass_fields__})

    def asked(self, plain: str) -> "AskedMeans | None":
        """Return what a message without markup names; None where it does not ask about means."""
        things = self.things.findall(plain)
        if not (things and self.danger.search(plain) and self.asker.search(plain)):
            return None
        stems = {word[:STEM_CHARS] for word in [*things, *self.acts.findall(plain)]}
        named = re.compile(rf"(?<![a-z])(?:{'|'.join(map(re.escape, sorted(stems)))})|{PRONOUNS}")
        return AskedMeans(self, named, is_amount=bool(self.amount_asked.search(plain)))


@dataclass(frozen=True)
class AskedMeans:
    """The things and acts that a message names, and whether it asks how many."""

    rules: MeansRules
    named: re.Pattern[str]
    is_amount: bool

    def is_advised(self, plain: str) -> bool:
        """Report whether a sentence of a reply without markup advises them, or agrees."""
        rules = self.rules
        for sentence, _ in SENTENCE_PATTERN.findall(plain):
            if rules.agrees.search(sentence):
                return True
            if rules.advises.search(sentence) and self.named.search(sentence):
                return True
            if self.is_amount and rules.amounts.search(sentence):
                return True
        return False
