"""Splits texts into the tokens that the CRF tagger reads, and tells which scripts it can."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import regex

COMBINING_MARKS = "\u0300-\u036f"
"""Combining marks, used where diacritics are separate characters (Vietnamese and others)."""
EAST_ASIAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9d"
EAST_ASIAN_LETTER_WEIGHT = 2.0
"""Number of Latin letters that carry as much text as one East Asian letter."""
TOKEN_PATTERN = re.compile(
    rf"""
    (?P<markup> https?://[^\s<>]+ | www\.[^\s<>]+ | [^\s<>()\[\]"',;:]+@[^\s<>()\[\]"',;:]+ | <a?[@:#][^\s<>]*> | @\w+ )
  | (?P<line> [^\S\n]*\n\s* )
  | (?P<east> [{EAST_ASIAN}]+ )
  | (?P<owner> ['’][sS](?![^\W_]) )
  | (?P<word> (?:[^\W_{EAST_ASIAN}][{COMBINING_MARKS}]*)+
      (?:['’](?![sS](?![^\W_]))(?:[^\W_{EAST_ASIAN}][{COMBINING_MARKS}]*)+)* )
  | (?P<sign> \S )
    """,
    re.VERBOSE,
)
UNPRINTABLE = "\ufffd"
"""Replacement of lone surrogates and control characters, which crfsuite cannot represent."""
TAGGED_SCRIPTS = ("Latin", "Greek")
"""Scripts of the lists and templates that the tagger is trained on."""
EAST_ASIAN_SCRIPTS = ("Han", "Hiragana", "Katakana", "Hangul")
"""Scripts whose words are tokens that the tagger passes over."""
_READ_SCRIPTS = "".join(
    rf"\p{{Script={name}}}"
    for name in (*TAGGED_SCRIPTS, *EAST_ASIAN_SCRIPTS, "Common", "Inherited")
)
OTHER_WORD = regex.compile(
    rf"(?V1)[\p{{L}}--[{_READ_SCRIPTS}]][[\p{{L}}\p{{M}}]--[{_READ_SCRIPTS}]]*"
)
"""A word in another script, with its vowel signs."""
MIN_WORD_LETTERS = 2
"""A single letter is an emoticon rather than a text: (ツ)."""
_AS_KIND = {"line": "\n", "markup": "\t"}
_EAST = re.compile(rf"[{EAST_ASIAN}]")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class TokenisedText:
    r"""Tokens of one text: `words[i]` is at `text[starts[i]:ends[i]]`. A line end is "\n", a link
    or mention "\t".
    """

    words: list[str]
    starts: list[int]
    ends: list[int]


def tokenise(text: str) -> TokenisedText:
    """Split into words with apostrophes, numbers, single characters and line ends; links and
    mentions are whole.
    """
    words: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for match in TOKEN_PATTERN.finditer(text):
        word = _AS_KIND.get(match.lastgroup or "")
        if word is None:
            word = match[0] if match[0].isprintable() else UNPRINTABLE
        words.append(word)
        starts.append(match.start())
        ends.append(match.end())
    return TokenisedText(words, starts, ends)


def is_east_asian(text: str) -> bool:
    """Return True for a text mostly in Chinese, Japanese or Korean."""
    east = len(_EAST.findall(text))
    return bool(east) and east * EAST_ASIAN_LETTER_WEIGHT >= len(_LETTER.findall(text)) - east


def tagged_runs(text: str) -> Iterator[tuple[int, str]]:
    """Yield the parts of a text between words of other scripts, each with its start; those without
    letters are left out.
    """
    start = 0
    for word in OTHER_WORD.finditer(text):
        if _LETTER.search(text, start, word.start()):
            yield start, text[start : word.start()]
        start = word.end()
    if _LETTER.search(text, start):
        yield start, text[start:]


def scripts_of(text: str) -> list[str]:
    """Return the scripts of a text's words by their Unicode names: Latin, Arabic, Han."""
    if text.isascii():
        return ["Latin"] if _LETTER.search(text) else []
    scripts = {_script(sign) for sign in {*OTHER_WORD.sub(" ", text)} if sign.isalpha()}
    for word in OTHER_WORD.findall(text):
        if len(word) >= MIN_WORD_LETTERS:
            scripts.add(_script(word[0]))
    return sorted(scripts - {""})


@lru_cache(maxsize=4_096)
def _script(letter: str) -> str:
    """Return the script of a letter; empty for a letter of many scripts."""
    for script in (*TAGGED_SCRIPTS, *EAST_ASIAN_SCRIPTS):
        if regex.fullmatch(rf"\p{{Script={script}}}", letter):
            return script
    if regex.fullmatch(r"[\p{Script=Common}\p{Script=Inherited}]", letter):
        return ""
    return unicodedata.name(letter, "").partition(" ")[0].title()


def is_alphabetic(found: str) -> bool:
    """Return True if a finding has letters, all of them in scripts the tagger reads."""
    return _LETTER.search(found) is not None and not _EAST.search(found)
