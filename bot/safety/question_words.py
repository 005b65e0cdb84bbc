"""Recognises the sincere question whether a persona is human by a closed vocabulary: it names what
somebody may be, and has no word that is about anything else.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

SENTENCE_PATTERN = re.compile(r"([^.!?。！？…\n]+)([.!?。！？…]*)")
CLAUSE_END_PATTERN = re.compile(r"[;；:：()*—–，、]| - |,(?! (?:who|which|der|die|das|que)\b)")
"""Commas too, but for those before a relative clause."""
AI_PATTERN = re.compile(r"\b(?:AI|[Aa]\.[Ii]\b\.?)(?!\w)")
"""In capitals or with full stops: in Vietnamese, "ai" is "who"."""
MENTION_PATTERN = re.compile(r"<[^<>\s]+>|@(?=\w)")
"""Mentions and emoji as Discord writes them, and the sign before a name."""
ASKING_PARTICLE_PATTERN = re.compile(r"[吗嗎]|\bkhông *$")


@dataclass(frozen=True)
class QuestionWords:
    """The words of a language of which such questions consist (data/safety/README.md)."""

    identities: frozenset[str]
    real: frozenset[str]
    bare: frozenset[str]
    somebody: frozenset[str]
    you: frozenset[str]
    place: frozenset[str]
    talk: frozenset[str]
    known: frozenset[str]
    word: re.Pattern[str]
    statements: re.Pattern[str]
    setting: re.Pattern[str]

    @classmethod
    def read(cls, table: Mapping[str, str], *, has_blanks: bool) -> Self:
        """Read the table of a language; `has_blanks` says whether it writes blanks between words."""
        names = ("identities", "real", "bare", "somebody", "you", "place", "talk")
        kinds = {name: _spellings(table[name].split()) for name in names}
        known = frozenset().union(*kinds.values(), _spellings(table["words"].split()))
        end = r"(?![\w'])" if has_blanks else ""
        word = re.compile(rf"{_any_word(known)}{end}|\w[\w']*|'\w+")
        begins = [
            re.compile(rf"\W*{_any_word(_spellings(table[name].split()))}{end}")
            for name in ("statements", "setting")
        ]
        return cls(**kinds, known=known, word=word, statements=begins[0], setting=begins[1])

    def asks(self, text: str) -> bool:
        """Report whether a sentence of a text in lower case asks whether a human being or a machine
        writes; one within a setting ("in this story, are you …") does not.
        """
        for sentence, end in SENTENCE_PATTERN.findall(text):
            clauses = [sentence]
            if not self.setting.match(sentence):
                clauses += CLAUSE_END_PATTERN.split(sentence)
            has_mark = "?" in end or "？" in end or bool(ASKING_PARTICLE_PATTERN.search(sentence))
            if any(self._asks(clause, has_mark=has_mark) for clause in clauses):
                return True
        return False

    def _asks(self, clause: str, *, has_mark: bool) -> bool:
        words = self.word.findall(clause)
        if not self.known.issuperset(words):
            return False
        if not has_mark and self.statements.match(clause):
            return False
        names = sum(word in self.identities for word in words)
        addresses = not self.you.isdisjoint(words)
        is_of_talk = not self.talk.isdisjoint(words)
        if names and (addresses or is_of_talk):
            return True
        if addresses and not self.real.isdisjoint(words):
            return True
        # "Is anybody there?" is said to a silent room, too.
        if not (self.talk - self.place).isdisjoint(words) and not self.somebody.isdisjoint(words):
            return True
        is_bare = (self.identities | self.real | self.bare).issuperset(words)
        return is_bare and names > (0 if has_mark else 1)


def _spellings(words: Iterable[str]) -> frozenset[str]:
    """Return words, whose blanks are written `_`, also as those write them who omit accents."""
    spaced = [word.replace("_", " ") for word in words]
    return frozenset([*spaced, *map(_without_accents, spaced)])


def _without_accents(word: str) -> str:
    letters = unicodedata.normalize("NFD", word.replace("đ", "d"))
    return "".join(each for each in letters if not unicodedata.combining(each))


def _any_word(words: Iterable[str]) -> str:
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    return f"(?:{'|'.join(map(re.escape, longest_first))})"


def without_addresses(text: str, names: Iterable[str] = ()) -> str:
    """Return a text without mentions and the names of the one who is asked, and with "bot" for
    "AI".
    """
    text = AI_PATTERN.sub("bot", MENTION_PATTERN.sub(" ", text))
    if given := [name for name in names if name]:
        text = re.sub(rf"(?<!\w){_any_word(given)}(?!\w)", " ", text, flags=re.IGNORECASE)
    return text
