"""Capitalisation and determiner statistics of words, which tell names from common words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from trainer.anonymise.language_data import CJK, DETERMINERS, ENGLISH_WORDS, VIETNAMESE_WORDS

TOKEN = re.compile(rf"[^\W_{CJK}](?:[^\W_{CJK}]|[\u0300-\u036f])*")
"""A run of letters and digits of scripts that part words, with its combining marks."""
WORD = re.compile(rf"[^\W\d_{CJK}](?:[^\W\d_{CJK}]|[\u0300-\u036f])*")
CAPITAL_INSIDE_SENTENCE = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+")
"""A word with a capital where no sentence begins."""
DETERMINER_AND_WORD = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(DETERMINERS)}) ([a-z]+)")
MIN_SENTENCE_STARTS = 3
MAX_COUNTED_WORDS = 300_000
"""So many words are counted; beyond, those seen once are forgotten, so that memory does not grow with the texts."""


def fold_diacritics(word: str) -> str:
    """Casefolded and without diacritics: `Nguyễn` is `nguyen`, `Đỗ` is `do`."""
    word = word.casefold()
    if word.isascii():
        return word
    parts = unicodedata.normalize("NFD", word)
    return "".join(sign for sign in parts if not unicodedata.combining(sign)).replace("đ", "d").replace("ł", "l")


def casefold_composed(word: str) -> str:
    """Casefolded, each letter with its marks as one sign."""
    return word.casefold() if word.isascii() else unicodedata.normalize("NFC", word.casefold())


VIETNAMESE_WITHOUT_DIACRITICS = VIETNAMESE_WORDS | frozenset(map(fold_diacritics, VIETNAMESE_WORDS))


class CapitalisationStats:
    """Counts words over all texts of a data set."""

    def __init__(self) -> None:
        self._words: Counter[str] = Counter()
        self._determined: Counter[str] = Counter()
        self._inside: Counter[str] = Counter()

    def read(self, text: str) -> None:
        """Count the words of a text."""
        self._words.update(WORD.findall(text))
        self._determined.update(DETERMINER_AND_WORD.findall(text))
        self._inside.update(CAPITAL_INSIDE_SENTENCE.findall(text))
        for counts in (self._words, self._determined, self._inside):
            if len(counts) > MAX_COUNTED_WORDS:
                for word in [word for word, count in counts.items() if count == 1]:
                    del counts[word]

    def is_mostly_capital(self, word: str) -> bool:
        """Whether it is written with a capital more often than without."""
        return self._words[word.capitalize()] > self._words[word.lower()]

    def is_mostly_small(self, word: str) -> bool:
        """Whether it is written without a capital more often than with."""
        return self._words[word.lower()] > self._words[word.capitalize()]

    def only_begins(self, word: str) -> bool:
        """Whether it has a capital where sentences begin only, time and again, or is written without one, too."""
        capital = word.capitalize()
        if self._inside[capital]:
            return False
        return self._words[word.lower()] > 0 or self._words[capital] >= MIN_SENTENCE_STARTS

    def is_ordinary(self, word: str) -> bool:
        """Whether texts use it for something else than a name, or may."""
        if word in ENGLISH_WORDS or (word in VIETNAMESE_WITHOUT_DIACRITICS and self.is_mostly_small(word)):
            return True
        return self.is_used_as_word(word)

    def is_used_as_word(self, word: str) -> bool:
        """Whether an article or a pronoun stands before every fourth of its uses or more."""
        small = word.lower()
        return 4 * self._determined[small] > self._words[small] and self._determined[small] > 1
