"""Generates the forms under which texts may mention a person of the log."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from trainer.anonymise.capitalisation import (
    TOKEN,
    WORD,
    CapitalisationStats,
    casefold_composed,
    fold_diacritics,
)
from trainer.anonymise.folded_text import fold
from trainer.anonymise.language_data import (
    CJK_SURNAMES,
    CJK_WORDS,
    ENGLISH_WORDS,
    HAN,
    IS_CJK,
    LATIN,
    MARKS,
    SPACELESS,
)

MatchContext = Literal["anywhere", "written", "capital", "called", "at"]
"""Context in which a form means the person: anywhere; capitalised; capitalised inside a sentence;
beside a title, a greeting or an honorific; only after an @. Each includes those after it.
"""
MIN_NAME_LETTERS = 3
"""Shorter names are mostly words ("I", "Al")."""
IS_SPACELESS = re.compile(f"[{SPACELESS}]")
CAMEL_CASE_BOUNDARY = re.compile(r"(?<=[a-zà-ỹ])(?=[A-Z])")
COMPOUND_NAME = re.compile(rf"(?<![{LATIN}0-9_])[{LATIN}]+(?:['’ʼ‘-][{LATIN}]+)+(?![{LATIN}0-9_])")
NAME_SIGN = re.compile(rf"[^\W\d_]|(?<=[\u0900-\u0dff])[{MARKS}]")
"""A letter; in the scripts of India, a vowel sign is as good as one."""
MIN_ALPHABETIC_SIGNS = 4
"""Shorter names in an alphabet without spaces may be parts of other words."""
ARABIC_PARTICLE = re.compile("ال|(?:عبد|أبو|ابو|بنت)$")
"""Words of Arabic names that name nobody by themselves: Abd, Abu, and those with an article."""
HIRAGANA = re.compile("[\u3040-\u309f]+")
HANGUL_NAME = re.compile("[\uac00-\ud7a3]{3}")
KANA_ONLY = re.compile("[\u3040-\u309f]+|[\u30a0-\u30ff]+")
MAX_AMBIGUOUS_LETTERS = 4
"""Names up to this length may be other words without diacritics: `Hà` and `ha ha`, `Tuấn` and
`tuan`.
"""


@dataclass(frozen=True, slots=True)
class NameForm:
    """A form of a name. `words` are case-folded with diacritics; a form in Chinese characters or
    kana is one word.

    `is_full`: a name as in the log, not a part of it. `person_id` is the person's id, "" for a name
    that is kept.
    """

    words: tuple[str, ...]
    person_id: str
    context: MatchContext
    is_full: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        """Words without diacritics."""
        return tuple(map(fold_diacritics, self.words))


def allowed_forms(names: Iterable[str]) -> Iterator[NameForm]:
    """Return the forms of names that are kept."""
    for name in _clean_names(names):
        if IS_SPACELESS.search(name):
            words: tuple[str, ...] = (name.casefold(),)
        else:
            words = tuple(map(casefold_composed, TOKEN.findall(name)))
        if words:
            yield NameForm(words, "", "anywhere", is_full=True)


def full_name_forms(
    person_id: str, names: Iterable[str], capitalisation: CapitalisationStats
) -> Iterator[NameForm]:
    """Return the forms of the names a person has in the log."""
    for name in _clean_names(names):
        forms = _spaceless_full_forms if IS_SPACELESS.search(name) else _latin_full_forms
        yield from forms(person_id, name, capitalisation)


def partial_name_forms(
    person_id: str, names: Iterable[str], capitalisation: CapitalisationStats
) -> Iterator[NameForm]:
    """Return the forms of parts of a person's names."""
    for name in _clean_names(names):
        if IS_SPACELESS.search(name):
            yield from _spaceless_part_forms(person_id, name)
        else:
            yield from _latin_part_forms(person_id, name, capitalisation)


def _clean_names(names: Iterable[str]) -> list[str]:
    # Texts are folded before names are looked for.
    stripped = [fold(name).text.strip().lstrip("@").strip() for name in names]
    return [name for name in stripped if name]


def _latin_full_forms(
    person_id: str, name: str, capitalisation: CapitalisationStats
) -> Iterator[NameForm]:
    words = tuple(map(casefold_composed, TOKEN.findall(name)))
    if not words:
        return
    letters = len(NAME_SIGN.findall(name))
    if len(words) > 1:
        is_phrase = all(word in ENGLISH_WORDS or word.isdigit() for word in words)
        context: MatchContext = "anywhere"
        if is_phrase or letters < MIN_NAME_LETTERS:
            context = "capital"
    elif letters < MIN_NAME_LETTERS:
        context = "called" if letters > 1 else "at"
    else:
        context = _context_of(words[0], capitalisation)
    yield NameForm(words, person_id, context, is_full=True)


def _context_of(word: str, capitalisation: CapitalisationStats) -> MatchContext:
    if not capitalisation.is_ordinary(word):
        return "anywhere"
    return "written" if capitalisation.is_mostly_capital(word) else "capital"


def _latin_part_forms(
    person_id: str, name: str, capitalisation: CapitalisationStats
) -> Iterator[NameForm]:
    """Return words inside a name used to address people: `Mira` for `mira_wet`, unless texts use
    them as words.
    """
    for joined in WORD.findall(name):
        if joined == name or len(joined) <= MAX_AMBIGUOUS_LETTERS:
            continue
        if CAMEL_CASE_BOUNDARY.search(joined):
            yield NameForm((casefold_composed(joined),), person_id, "anywhere")
    yield from _compound_forms(person_id, name, capitalisation)
    yield from _word_pair_forms(person_id, name)
    for part in WORD.findall(CAMEL_CASE_BOUNDARY.sub(" ", name)):
        word = casefold_composed(part)
        if len(word) < 2 or part == name:
            continue
        if len(word) < MIN_NAME_LETTERS:
            if part[0].isupper() and word not in ENGLISH_WORDS:
                yield NameForm((word,), person_id, "called")
            continue
        is_ordinary = capitalisation.is_ordinary(word)
        is_mostly_capital = capitalisation.is_mostly_capital(word)
        if not is_ordinary and (is_mostly_capital or _is_name_part(part, word, capitalisation)):
            yield NameForm((word,), person_id, "anywhere")
        elif part[0].isupper():
            yield NameForm((word,), person_id, "written" if is_mostly_capital else "capital")


def _compound_forms(
    person_id: str, name: str, capitalisation: CapitalisationStats
) -> Iterator[NameForm]:
    """Return `O'Brien` and `Jean-Luc` inside a name: with the sign, with a space or neither, in any
    case.
    """
    for compound in COMPOUND_NAME.findall(name):
        words = tuple(casefold_composed(word) for word in WORD.findall(compound))
        joined = "".join(words)
        if len(joined) > MIN_NAME_LETTERS:
            is_phrase = all(word in ENGLISH_WORDS for word in words)
            yield NameForm(words, person_id, "capital" if is_phrase else "anywhere")
            yield NameForm((joined,), person_id, _context_of(joined, capitalisation))


def _word_pair_forms(person_id: str, name: str) -> Iterator[NameForm]:
    """Return two words of a name of three or more, `Nhật Hạ` of Phạm Nhật Hạ, in any case."""
    words = [casefold_composed(part) for part in WORD.findall(name)]
    if len(words) < 3:
        return
    for pair in pairwise(words):
        if not any(len(word) < 2 or word in ENGLISH_WORDS for word in pair):
            yield NameForm(pair, person_id, "anywhere")


def _is_name_part(part: str, word: str, capitalisation: CapitalisationStats) -> bool:
    """Return True if the display name does not have this part in lower case, and no text uses it as
    a word.
    """
    if part[0].islower() or ARABIC_PARTICLE.match(part) or capitalisation.is_used_as_word(word):
        return False
    return not part.isascii() or len(word) > MAX_AMBIGUOUS_LETTERS


def _spaceless_full_forms(
    person_id: str, name: str, capitalisation: CapitalisationStats
) -> Iterator[NameForm]:
    yield NameForm((name.casefold(),), person_id, _spaceless_context(name.casefold()), is_full=True)
    joined = re.sub(r"(?<=[^\x00-\xff])[\s·・]+(?=[^\x00-\xff])", "", name)
    if joined != name:
        yield NameForm((joined.casefold(),), person_id, "anywhere", is_full=True)
    latin = re.sub(f"[{SPACELESS}]+", " ", name).strip()
    if latin:
        for form in _latin_full_forms(person_id, latin, capitalisation):
            if not form.words[0].isdigit():
                yield form


def _spaceless_part_forms(person_id: str, name: str) -> Iterator[NameForm]:
    parts = re.findall(f"[{SPACELESS}]+", name)
    for part in parts:
        if part != name:
            context = _spaceless_context(part) if len(part) > 1 else "called"
            yield NameForm((part,), person_id, context)
        if HANGUL_NAME.fullmatch(part):
            yield NameForm((part[1:],), person_id, "anywhere")
        if re.fullmatch(f"[{HAN}]+", part) and len(parts) == 1:
            yield from _han_forms(person_id, part)


def _spaceless_context(name: str) -> MatchContext:
    if len(name) == 1:
        return "at"
    if not IS_CJK.search(name) and len(name) < MIN_ALPHABETIC_SIGNS:
        return "called"
    if name in CJK_WORDS or (HIRAGANA.fullmatch(name) and len(name) < MIN_NAME_LETTERS):
        return "called"
    return "anywhere"


def _han_surname(name: str) -> str:
    """Return the surname that a name begins with, of two signs before one; empty without any."""
    for length in (2, 1):
        if name[:length] in CJK_SURNAMES:
            return name[:length]
    return ""


def _han_forms(person_id: str, name: str) -> Iterator[NameForm]:
    """Return `小明`, `老王`, `王`哥 for 王小明; `田中`さん for 田中太郎."""
    surname = _han_surname(name)
    given = name[len(surname) :]
    if surname and 1 <= len(given) <= 2:
        first_name = given if len(given) == 2 else given * 2
        yield NameForm((first_name,), person_id, _spaceless_context(first_name))
        for lead in "小老阿":
            for sign in {surname, given[-1]}:
                yield NameForm((lead + sign,), person_id, _spaceless_context(lead + sign))
        for part in {surname, given, given[-1]}:
            yield NameForm((part,), person_id, "called")
    elif len(name) == 4:
        for part in (name[:2], name[2:]):
            yield NameForm((part,), person_id, _spaceless_context(part))
    elif len(name) == 3:
        for part in (name[:2], name[1:], name[2:]):
            yield NameForm((part,), person_id, "called")
