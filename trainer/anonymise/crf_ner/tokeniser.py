"""Splits texts into the tokens that the CRF tagger reads, and tells which scripts it can."""

import re
from dataclasses import dataclass

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


def is_alphabetic(found: str) -> bool:
    """Return True if a finding has letters, all of them in scripts the tagger reads."""
    return _LETTER.search(found) is not None and not _EAST.search(found)
