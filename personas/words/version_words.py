"""The written exchanges that a version was trained on, in its folder."""

from collections.abc import Iterable
from pathlib import Path

from personas.home.adapters import OWN_WORDS_FILE, OWN_WORDS_VECTORS_FILE
from personas.words.exchanges import Exchange, read_exchanges, write_exchanges
from personas.words.index import OwnWords, read_vectors, write_vectors

MIN_ASKED_WORDS = 3
"""A shorter message of a log means what was said before it."""
MAX_CHARS = 400
"""A longer message, or reply, is no line of talk."""


def spoken_exchanges(pairs: Iterable[tuple[str, str]]) -> list[Exchange]:
    """Return the messages and replies of a log that mean something by themselves; those with the
    same reply are one exchange.
    """
    asked: dict[str, dict[str, None]] = {}
    for message, reply in pairs:
        is_short = len(message) <= MAX_CHARS and 0 < len(reply) <= MAX_CHARS
        if is_short and len(message.split()) >= MIN_ASKED_WORDS:
            asked.setdefault(reply, {})[message] = None
    return [Exchange(tuple(phrasings), reply) for reply, phrasings in asked.items()]


def write_version_words(folder: Path, exchanges: list[Exchange]) -> None:
    """Write a version's exchanges and their vectors; nothing without any. Raises `OSError`."""
    if exchanges:
        write_exchanges(folder / OWN_WORDS_FILE, exchanges)
        write_vectors(folder / OWN_WORDS_VECTORS_FILE, exchanges)


def read_words(path: Path, encoder: str = "") -> OwnWords:
    """Read a file of exchanges and, for the bundled encoder, the vectors beside it. Raises
    `MaterialError`.
    """
    exchanges = read_exchanges(path)
    stored = None if encoder else read_vectors(path.with_suffix(".npz"), exchanges)
    return OwnWords(exchanges, encoder, stored)
