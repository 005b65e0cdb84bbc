"""Letters that can be written in two ways: ế as one sign, or as e with two marks.

Keyboards and tokenizers have the first (Unicode's normal form C), file systems and other programs sometimes the second.
Both look alike, yet compare as different, and a model reads other tokens. So what comes in is brought to the first.
"""

from __future__ import annotations

import unicodedata


def composed(text: str) -> str:
    """The text with each letter and its marks as one sign, where there is one."""
    return unicodedata.normalize("NFC", text)


def folded(name: str) -> str:
    """What a name is compared by: whatever its case, and however its letters are written."""
    return composed(composed(name.strip()).casefold())
