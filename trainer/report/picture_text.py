"""Fonts for names in pictures: matplotlib's own has no Chinese, Japanese or Korean characters."""

from typing import Any

USELESS_MARKS = ("emoji", "last resort")
"""In the names of fonts in colours, which matplotlib does not draw, and of one that it ships, whose
glyphs are frames.
"""


def drawable(text: str) -> tuple[str, list[str]]:
    """Return the part of a text that fonts of this machine can draw, and their families: the usual
    one, and one that has what it lacks.

    Where no font has a character, as often with emoji, it is left out.
    """
    from matplotlib.font_manager import FontProperties, findfont  # takes half a second

    usual = FontProperties().get_family()
    missing = _missing(findfont(FontProperties()), text)
    if not missing:
        return text, usual
    family, lacking = _best_family(missing)
    kept = "".join(character for character in text if character not in lacking)
    return " ".join(kept.split()), [*usual, *family]


def _best_family(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Return the family that has most of the characters, if any has some, and those that it lacks."""
    from matplotlib.font_manager import fontManager

    found: list[str] = []
    lacking = characters
    for font in fontManager.ttflist:
        if any(mark in font.name.casefold() for mark in USELESS_MARKS):
            continue
        missing = _missing(font.fname, "".join(characters))
        if len(missing) < len(lacking):
            found = [font.name]
            lacking = missing
        if not lacking:
            break
    return found, lacking


def _missing(file: str, text: str) -> frozenset[str]:
    """Return the characters of a text that a font file has no glyph for: all if it is damaged."""
    from matplotlib.font_manager import get_font

    try:
        glyphs: Any = get_font(file).get_charmap()
    except (OSError, RuntimeError):
        return frozenset(text)
    return frozenset(
        character for character in text if ord(character) not in glyphs and not character.isspace()
    )
