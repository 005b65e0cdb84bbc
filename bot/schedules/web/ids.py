"""Numbers in addresses and forms."""

from bot.platform.web_kit.problems import Problem

MAX_ID_DIGITS = 19
MAX_ID = 2**63 - 1
"""The largest that the database stores."""


def read_id(text: str, advice: str) -> int:
    """Return the number that a text is, such as a server's id. Raises `Problem`."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= MAX_ID_DIGITS
    if not is_number or int(text) > MAX_ID:
        raise Problem("not-found", f"{text[:40]!r} is no number.", advice)
    return int(text)
