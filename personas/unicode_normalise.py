"""Unicode normalisation (NFC) of text and case-folding of names."""

from __future__ import annotations

import unicodedata


def to_nfc(text: str) -> str:
    """The text with each letter and its marks as one sign, where there is one."""
    return unicodedata.normalize("NFC", text)


def fold_name(name: str) -> str:
    """What a name is compared by: whatever its case, and however its letters are written."""
    return to_nfc(to_nfc(name.strip()).casefold())
