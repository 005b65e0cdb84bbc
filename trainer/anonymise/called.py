"""The forms under which texts may name a person, from the names that the log gives them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from trainer.anonymise.bounds import CJK, HAN, LATIN
from trainer.anonymise.words import CJK_WORDS, ENGLISH, SURNAMES
from trainer.anonymise.written import TOKEN, WORD, Written, composed, folded

Manner = Literal["anywhere", "written", "capital", "called", "at"]
"""Where a form means the person: wherever it stands; with a capital; with a capital where no sentence begins; beside a
title, a greeting or an honorific; behind an @ only. Each includes those after it."""
FEWEST_LETTERS = 3
"""Shorter names are mostly words of their own ("I", "Al")."""
HAS_CJK = re.compile(f"[{CJK}]")
HUMPS = re.compile(r"(?<=[a-zà-ỹ])(?=[A-Z])")
COMPOUND = re.compile(rf"(?<![{LATIN}0-9_])[{LATIN}]+(?:['’ʼ‘-][{LATIN}]+)+(?![{LATIN}0-9_])")
HIRAGANA = re.compile("[\u3040-\u309f]+")
HANGUL_NAME = re.compile("[\uac00-\ud7a3]{3}")
KANA_ONLY = re.compile("[\u3040-\u309f]+|[\u30a0-\u30ff]+")
MOST_SHORTENED = 4
"""Up to so many letters a name that loses its diacritics may be another word: `Hà` and `ha ha`, `Tuấn` and `tuan`."""


@dataclass(frozen=True, slots=True)
class Form:
    """A form of a name. `words`: casefolded, with diacritics; one of Chinese characters or kana is a single one.

    `is_full`: a name as the log gives it, not a part. `who` is the person's id, "" for a name that stays.
    """

    words: tuple[str, ...]
    who: str
    manner: Manner
    is_full: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        """The words without their diacritics."""
        return tuple(map(folded, self.words))


def staying(names: Iterable[str]) -> Iterator[Form]:
    """The forms of names that stay as they are."""
    for name in names:
        if HAS_CJK.search(name):
            yield Form((name.casefold(),), "", "anywhere", is_full=True)
        elif words := tuple(map(composed, TOKEN.findall(name))):
            yield Form(words, "", "anywhere", is_full=True)


def whole_forms(who: str, names: Iterable[str], written: Written) -> Iterator[Form]:
    """The names that the log gives a person."""
    for name in _given_names(names):
        yield from _cjk_whole(who, name, written) if HAS_CJK.search(name) else _full(who, name, written)


def part_forms(who: str, names: Iterable[str], written: Written) -> Iterator[Form]:
    """What is made of a person's names."""
    for name in _given_names(names):
        yield from _cjk_parts(who, name) if HAS_CJK.search(name) else _parts(who, name, written)


def _given_names(names: Iterable[str]) -> list[str]:
    return [stripped for name in names if (stripped := name.strip().lstrip("@").strip())]


# ------------------------------------------------------------------------------------------------ Latin and the like


def _full(who: str, name: str, written: Written) -> Iterator[Form]:
    words = tuple(map(composed, TOKEN.findall(name)))
    if not words:
        return
    letters = sum(map(str.isalpha, name))
    if len(words) > 1:
        is_phrase = all(word in ENGLISH or word.isdigit() for word in words) or letters < FEWEST_LETTERS
        yield Form(words, who, "capital" if is_phrase else "anywhere", is_full=True)
    elif letters < FEWEST_LETTERS:
        yield Form(words, who, "called" if letters > 1 else "at", is_full=True)
    else:
        yield Form(words, who, _manner(words[0], written), is_full=True)


def _manner(word: str, written: Written) -> Manner:
    if not written.is_ordinary(word):
        return "anywhere"
    return "written" if written.is_mostly_capital(word) else "capital"


def _parts(who: str, name: str, written: Written) -> Iterator[Form]:
    """Words inside names by which others call people: `Mira` for `mira_wet`, unless texts use it as a word."""
    for joined in WORD.findall(name):
        if joined != name and len(joined) > MOST_SHORTENED and HUMPS.search(joined):
            yield Form((composed(joined),), who, "anywhere")
    yield from _compounds(who, name, written)
    yield from _pairs(who, name)
    for part in WORD.findall(HUMPS.sub(" ", name)):
        word = composed(part)
        if len(word) < 2 or part == name:
            continue
        if len(word) < FEWEST_LETTERS:
            if part[0].isupper() and word not in ENGLISH:
                yield Form((word,), who, "called")
        elif not written.is_ordinary(word) and (written.is_mostly_capital(word) or _is_given(part, word, written)):
            yield Form((word,), who, "anywhere")
        elif part[0].isupper():
            yield Form((word,), who, "written" if written.is_mostly_capital(word) else "capital")


def _compounds(who: str, name: str, written: Written) -> Iterator[Form]:
    """`O'Brien` and `Jean-Luc` inside a name: with the sign, with a space or without either, in any case."""
    for compound in COMPOUND.findall(name):
        words = tuple(composed(word) for word in WORD.findall(compound))
        joined = "".join(words)
        if len(joined) > FEWEST_LETTERS:
            yield Form(words, who, "capital" if all(word in ENGLISH for word in words) else "anywhere")
            yield Form((joined,), who, _manner(joined, written))


def _pairs(who: str, name: str) -> Iterator[Form]:
    """Two words of a name of three or more, `Nhật Hạ` of Phạm Nhật Hạ: together they mean the person, in any case."""
    words = [composed(part) for part in WORD.findall(name)]
    for pair in pairwise(words if len(words) > 2 else ()):
        if not any(len(word) < 2 or word in ENGLISH for word in pair):
            yield Form(pair, who, "anywhere")


def _is_given(part: str, word: str, written: Written) -> bool:
    """Whether a name that is shown gives this part with a capital, and no text takes it for a word."""
    return (
        part[0].isupper() and not written.is_used_as_word(word) and (not part.isascii() or len(word) > MOST_SHORTENED)
    )


# ------------------------------------------------------------------------------------------- Chinese, Japanese, Korean


def _cjk_whole(who: str, name: str, written: Written) -> Iterator[Form]:
    yield Form((name.casefold(),), who, _cjk_manner(name.casefold()), is_full=True)
    if (joined := re.sub(r"(?<=[^\x00-\xff])[\s·・]+(?=[^\x00-\xff])", "", name)) != name:
        yield Form((joined.casefold(),), who, "anywhere", is_full=True)
    if latin := re.sub(f"[{CJK}]+", " ", name).strip():
        yield from (form for form in _full(who, latin, written) if not form.words[0].isdigit())


def _cjk_parts(who: str, name: str) -> Iterator[Form]:
    parts = re.findall(f"[{CJK}]+", name)
    for part in parts:
        if part != name:
            yield Form((part,), who, _cjk_manner(part) if len(part) > 1 else "called")
        if HANGUL_NAME.fullmatch(part):
            yield Form((part[1:],), who, "anywhere")
        if re.fullmatch(f"[{HAN}]+", part) and len(parts) == 1:
            yield from _han_forms(who, part)


def _cjk_manner(name: str) -> Manner:
    if len(name) == 1:
        return "at"
    if name in CJK_WORDS or (HIRAGANA.fullmatch(name) and len(name) < FEWEST_LETTERS):
        return "called"
    return "anywhere"


def _han_forms(who: str, name: str) -> Iterator[Form]:
    """`小明`, `老王`, `王`哥 for 王小明; `田中`さん for 田中太郎."""
    surname = name[:2] if name[:2] in SURNAMES else name[:1] if name[:1] in SURNAMES else ""
    given = name[len(surname) :]
    if surname and 1 <= len(given) <= 2:
        if len(given) == 2:
            yield Form((given,), who, _cjk_manner(given))
        else:
            yield Form((given * 2,), who, _cjk_manner(given * 2))
        for lead in "小老阿":
            yield from (Form((lead + sign,), who, _cjk_manner(lead + sign)) for sign in {surname, given[-1]})
        yield from (Form((part,), who, "called") for part in {surname, given, given[-1]})
    elif len(name) == 4:
        yield from (Form((part,), who, _cjk_manner(part)) for part in (name[:2], name[2:]))
    elif len(name) == 3:
        yield from (Form((part,), who, "called") for part in (name[:2], name[1:], name[2:]))
