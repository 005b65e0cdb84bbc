"""Folds a text to the signs that the patterns are written in, and maps findings back to it."""

import re
import unicodedata
from dataclasses import dataclass

IGNORABLE = frozenset(
    code
    for first, last in (
        *((0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5)),
        *((0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F)),
        *((0x20E3, 0x20E3), (0x2800, 0x2800), (0x3164, 0x3164), (0xFE00, 0xFE0F)),
        *((0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3)),
        *((0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
    )
    for code in range(first, last + 1)
)
"""Signs that nobody sees: Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt), the
blank Braille pattern, and the frame of a keycap emoji.
"""
OTHER_DASHES = frozenset("\u02d7\u2043\u2212\u2796")
"""Minus signs and bullets that look like a hyphen, beside the dashes of category Pd."""
DASH_BETWEEN_DIGITS = re.compile(r"(?<=\d)[ーｰㅡ·・](?=\d)")
"""Letters and dots that look like a dash; elsewhere they are what they are (ラーメン)."""
STOP_INSIDE_WORD = re.compile("(?<=[A-Za-z0-9])[。｡](?=[A-Za-z0-9])")
RAISED = ("<super>", "<sub>")
"""Decompositions of signs that mean something else than the letter that they contain: nº, 3ª."""


@dataclass(frozen=True)
class FoldedText:
    """A folded text. `starts[i]` and `ends[i]` are the place of its sign i in the original (code
    points); both are empty if each sign has the same place in both.
    """

    text: str
    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """Return the place in the original of `text[start:end]`, which is not empty."""
        if not self.starts:
            return start, end
        return self.starts[start], self.ends[end - 1]


class _FoldedSigns(dict[int, str]):
    """Table for `str.translate` that fills itself."""

    def __missing__(self, code: int) -> str:
        folded = self[code] = _fold_sign(chr(code))
        return folded


def _fold_sign(sign: str) -> str:
    if sign.isascii():
        return sign
    if ord(sign) in IGNORABLE:
        return ""
    digit = unicodedata.digit(sign, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(sign)
    if category == "Pd" or sign in OTHER_DASHES:
        return "-"
    if category == "Zs":
        return " "
    if category in ("Zl", "Zp"):
        return "\n"
    plain = unicodedata.normalize("NFKC", sign)
    if len(plain) == 1 and plain.isascii():
        return sign if unicodedata.decomposition(sign).startswith(RAISED) else plain
    return sign


_FOLDED_SIGNS = _FoldedSigns()


def fold(text: str) -> FoldedText:
    """Replace the digits of all scripts, dashes, spaces and variants of ASCII signs by ASCII, leave
    out what is invisible, and compose letters with their marks (NFC).
    """
    if text.isascii():
        return FoldedText(text)
    text = DASH_BETWEEN_DIGITS.sub("-", text)
    text = STOP_INSIDE_WORD.sub(".", text)
    folded = text.translate(_FOLDED_SIGNS)
    is_composed = unicodedata.is_normalized("NFC", folded)
    if is_composed and len(folded) == len(text):
        return FoldedText(folded)
    signs: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for place, sign in enumerate(text):
        plain = _FOLDED_SIGNS[ord(sign)]
        if not plain:
            if ends and unicodedata.category(sign) in ("Mn", "Me"):
                ends[-1] = place + 1  # it shapes the sign before it
            continue
        composed = "" if is_composed else unicodedata.normalize("NFC", "".join(signs[-1:]) + plain)
        if signs and len(composed) == 1:
            signs[-1] = composed
            ends[-1] = place + 1
        else:
            signs.append(plain)
            starts.append(place)
            ends.append(place + 1)
    return FoldedText("".join(signs), tuple(starts), tuple(ends))
