"""Marks texts that the bot translates (`bot/platform/localisation`); `make catalogues` finds
them.
"""

from collections.abc import Mapping
from typing import Self


def gettext_noop(source: str) -> str:
    """Mark a text that members see."""
    return source


class MarkedText(str):
    """A text in English for a marked `source` whose gaps `values` fill; both are for its
    translation.
    """

    source: str
    values: Mapping[str, str]

    def __new__(cls, source: str, **values: str) -> Self:
        text = super().__new__(cls, source.format(**values))
        text.source = source
        text.values = values
        return text
