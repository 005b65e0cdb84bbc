"""Where a value may begin and end, said in ASCII.

Chinese and Japanese are written without spaces, and Unicode's idea of a word (`\\w`, `\\b`) takes the sentence around
an address for a part of it.
"""

from __future__ import annotations

import re

LEFT, RIGHT = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
LATIN = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
"""Latin letters with all their marks, for a character class."""
CJK = "\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""Chinese characters, kana and hangul, for a character class."""
HAN = "\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"

_WIDE = {0xFF01 + place: 0x21 + place for place in range(0x5E)} | {0x3000: 0x20, 0xA0: 0x20, 0x202F: 0x20, 0x2011: 0x2D}
_IS_WIDE = re.compile("[\uff01-\uff5e\u3000\xa0\u202f\u2011]")


def narrowed(text: str) -> str:
    """The text with full-width signs and digits as ASCII and all spaces plain, code point for code point."""
    return text.translate(_WIDE) if _IS_WIDE.search(text) else text


def before(text: str, place: int, length: int) -> str:
    """What stands before a place, lower-cased."""
    return text[max(0, place - length) : place].lower()
