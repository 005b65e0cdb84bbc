"""Unicode normalisation (NFC) of text and case-folding of names."""

import unicodedata


def to_nfc(text: str) -> str:
    """Compose letters and their combining marks into single characters (NFC)."""
    return unicodedata.normalize("NFC", text)


def fold_name(name: str) -> str:
    """Return the form in which names are compared: stripped, case-folded and in NFC."""
    return to_nfc(to_nfc(name.strip()).casefold())
