"""Recognises questions whose sender may want to know how to hurt themselves, or whether to: "should I
climb over the rail?". A model that answers "yes" to one suggests self-harm, whatever its words are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from bot.safety.question_words import SENTENCE_PATTERN

QUESTION_MARKS = ("?", "？")


@dataclass(frozen=True)
class MeansRules:
    """The rules of a language: a sentence asks for means if `things` (a knife, a bridge), `danger`
    (on my arm, jump) and `asker` (I, my) match, and it ends in a question mark or `asks` matches. A
    knife for bread has no danger.
    """

    things: re.Pattern[str]
    danger: re.Pattern[str]
    asker: re.Pattern[str]
    asks: re.Pattern[str]

    @classmethod
    def read(cls, table: Mapping[str, str]) -> Self:
        """Read the table of a language."""
        return cls(**{name: re.compile(table[name]) for name in cls.__dataclass_fields__})

    def asked(self, plain: str) -> bool:
        """Report whether a message without markup asks for means."""
        for sentence, end in SENTENCE_PATTERN.findall(plain):
            is_question = end.startswith(QUESTION_MARKS) or self.asks.search(sentence)
            if is_question and all(
                pattern.search(sentence) for pattern in (self.things, self.danger, self.asker)
            ):
                return True
        return False
