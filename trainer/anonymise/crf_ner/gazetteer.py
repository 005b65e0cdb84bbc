"""Gazetteer: word lists such as given names, family names, months and street words
(lists/*.txt).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LISTS_FOLDER = Path(__file__).parent / "lists"
DICTIONARY_FILE = LISTS_FOLDER / "dictionary.txt"
GROUP_SIGNS = {
    "common": "c", "syllable": "w", "month": "m", "title": "t", "particle": "p", "middle": "v", "street": "s",
    "unit": "u", "country": "n", "region": "r", "city": "y", "org": "o", "brand": "b",
    "foreign": "e",
}  # fmt: skip
"""Letters by which features refer to groups of words.txt; given names are "g", family names "f"."""
GROUPS_WITHOUT_DIACRITICS = {"w": "z"}
"""Groups of words without diacritics, where they differ: Vietnamese in plain letters."""
WORD_FILES = ("words", "common", "foreign")
MIN_FOLDED_CHARS = 4
"""Shorter words with diacritics are looked up unchanged: without them they are other words."""
ENGLISH_SUFFIXES = (
    ("ies", ("y",)), ("ied", ("y",)), ("ily", ("y",)), ("es", ("",)), ("s", ("",)), ("ed", ("", "e")), ("d", ("",)),
    ("ing", ("", "e")), ("ings", ("", "e")), ("ly", ("", "le")), ("er", ("", "e")), ("ers", ("", "e")),
    ("est", ("", "e")), ("ness", ("", "y")), ("less", ("",)), ("ful", ("",)), ("ment", ("",)), ("able", ("", "e")),
    ("ism", ("", "e")),
)  # fmt: skip
"""English suffixes, each with the endings it may replace."""
_LETTERS = str.maketrans(
    {
        "đ": "d",
        "ł": "l",
        "ø": "o",
        "ß": "ss",
        "æ": "ae",
        "œ": "oe",
        "þ": "th",
        "ð": "d",
        "ı": "i",
        "’": "'",
    }
)


def fold_word(word: str) -> str:
    """Lower-case a word and remove diacritics."""
    decomposed = unicodedata.normalize("NFD", word.lower())
    letters = [letter for letter in decomposed if not unicodedata.combining(letter)]
    return "".join(letters).translate(_LETTERS)


def read_list(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Read (group, words) for each line "group: words"; a group may have several lines."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            group, _, words = line.partition(":")
            yield group, words.split()


@dataclass(frozen=True)
class Gazetteer:
    """`groups` maps a lower-case word to the letters of its groups; words in `capitals` count only
    if capitalised. `dictionary` has English words in lower case that are in no group of them.
    """

    groups: dict[str, str]
    capitals: dict[str, str]
    dictionary: frozenset[str] = frozenset()

    @classmethod
    def read(cls) -> Gazetteer:
        """Read the lists beside the code."""
        groups: dict[str, set[str]] = {}
        capitals: dict[str, set[str]] = {}
        for sign, word in _words_with_signs():
            if word.isupper() and len(word) <= 2 and sign in "rsu":
                # "OR", "IN" and "P" are Oregon and so on.
                capitals.setdefault(word, set()).add(sign)
            else:
                lower = unicodedata.normalize("NFC", word.lower())
                plain = fold_word(word)
                groups.setdefault(lower, set()).add(sign)
                if plain != lower:
                    groups.setdefault(plain, set()).add(GROUPS_WITHOUT_DIACRITICS.get(sign, sign))
        dictionary = frozenset(word for _, words in read_list(DICTIONARY_FILE) for word in words)
        return cls(groups=_joined(groups), capitals=_joined(capitals), dictionary=dictionary)

    def of(self, word: str) -> str:
        """Return the letters of the groups of a word, in alphabetical order."""
        lower = unicodedata.normalize("NFC", word.lower())
        found = self.groups.get(lower, "")
        if not found and len(word) >= MIN_FOLDED_CHARS and not lower.isascii():
            found = self.groups.get(fold_word(lower), "")
        if not found and lower.isascii() and any(map(self._is_common, _base_forms(lower))):
            found = "c"
        more = self.capitals.get(word)
        return "".join(sorted({*found, *more})) if more else found

    def is_word(self, word: str) -> bool:
        """Return True for an English word that a dictionary has, also inflected."""
        lower = word.lower()
        forms = (lower, *_base_forms(lower))
        return any(form in self.dictionary or self._is_common(form) for form in forms)

    def _is_common(self, word: str) -> bool:
        return "c" in self.groups.get(word, "")


def _base_forms(word: str) -> Iterator[str]:
    """Yield words that an English word may be inflected from: "founders", "injured", "stopping"."""
    for ending, others in ENGLISH_SUFFIXES:
        if word.endswith(ending) and len(word) > len(ending) + 2:
            stem = word[: -len(ending)]
            for other in others:
                yield stem + other
            # "stopped" is "stop": the last letter is written twice before the ending.
            yield stem[:-1] if stem[-1] == stem[-2] else stem


def _joined(signs_of: dict[str, set[str]]) -> dict[str, str]:
    return {word: "".join(sorted(signs)) for word, signs in signs_of.items()}


def _words_with_signs() -> Iterator[tuple[str, str]]:
    for name, sign in (("given.txt", "g"), ("family.txt", "f")):
        for _, words in read_list(LISTS_FOLDER / name):
            for word in words:
                yield sign, word
    for name in WORD_FILES:
        for group, words in read_list(LISTS_FOLDER / f"{name}.txt"):
            for word in words:
                yield GROUP_SIGNS[group], word


@lru_cache(maxsize=1)
def load_gazetteer() -> Gazetteer:
    """Read the lists once."""
    return Gazetteer.read()
