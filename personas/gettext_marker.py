"""Marks texts that the bot translates (`bot/platform/localisation`); `make catalogues` finds
them.
"""


def gettext_noop(source: str) -> str:
    """Mark a text that members see."""
    return source
