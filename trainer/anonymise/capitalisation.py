"""Capitalisation and determiner statistics of words, which distinguish names from common words."""

import re
import unicodedata
from collections import Counter

from trainer.anonymise.language_data import (
    DETERMINERS,
    ENGLISH_WORDS,
    MARKS,
    SPACELESS,
    VIETNAMESE_WORDS,
)

TOKEN = re.compile(rf"[^\W_{SPACELESS}](?:[^\W_{SPACELESS}]|[{MARKS}])*")
"""A run of letters and digits, with combining marks, in scripts with spaces."""
WORD = re.compile(rf"[^\W\d_{SPACELESS}](?:[^\W\d_{SPACELESS}]|[{MARKS}])*")
CAPITAL_INSIDE_SENTENCE = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+")
"""A capitalised word that does not begin a sentence."""
DETERMINER_AND_WORD = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(DETERMINERS)}) ([a-z]+)")
MIN_SENTENCE_STARTS = 3
MAX_COUNTED_WORDS = 300_000
"""Limit of counted words; beyond it those seen once are dropped, to bound memory."""


def fold_diacritics(word: str) -> str:
    """Case-fold and remove diacritics: `Nguyễn` becomes `nguyen`, `Đỗ` becomes `do`."""
    word = word.casefold()
    if word.isascii():
        return word
    parts = unicodedata.normalize("NFD", word)
    return (
        "".join(sign for sign in parts if not unicodedata.combining(sign))
        .replace("đ", "d")
        .replace("ł", "l")
    )


def casefold_composed(word: str) -> str:
    """Case-fold and compose letters with their marks (NFC)."""
    return word.casefold() if word.isascii() else unicodedata.normalize("NFC", word.casefold())


VIETNAMESE_WITHOUT_DIACRITICS = VIETNAMESE_WORDS | frozenset(map(fold_diacritics, VIETNAMESE_WORDS))


class CapitalisationStats:
    """Counts of words over all texts of a data set."""

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
        """Return True if the word is capitalised more often than not."""
        return self._words[word.capitalize()] > self._words[word.lower()]

    def is_mostly_small(self, word: str) -> bool:
        """Return True if the word is in lower case more often than not."""
        return self._words[word.lower()] > self._words[word.capitalize()]

    def only_begins(self, word: str) -> bool:
        """Return True if it is repeatedly capitalised only at sentence starts, or also occurs in
        lower case.
        """
        capital = word.capitalize()
        if self._inside[capital]:
            return False
        return self._words[word.lower()] > 0 or self._words[capital] >= MIN_SENTENCE_STARTS

    def is_capital_inside(self, word: str) -> bool:
        """Return True if the word is mostly capitalised, also where it does not begin a sentence."""
        return self._inside[word.capitalize()] > 0 and self.is_mostly_capital(word)

    def is_ordinary(self, word: str) -> bool:
        """Return True if texts use it as a common word, or may."""
        if word in ENGLISH_WORDS or (
            word in VIETNAMESE_WITHOUT_DIACRITICS and self.is_mostly_small(word)
        ):
            return True
        return self.is_used_as_word(word)

    def is_used_as_word(self, word: str) -> bool:
        """Return True if an article or a pronoun precedes at least every fourth use."""
        small = word.lower()
        return 4 * self._determined[small] > self._words[small] and self._determined[small] > 1
