"""The search for the written exchange that is nearest to a message."""

import hashlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from personas.lore.minilm import Vectors, load_encoder
from personas.lore.semantic import chat_cosines, embedding_scheme, message_vector
from personas.words.exchanges import Exchange, compared_texts
from personas.words.grave import NEEDS_HELP, grave_kinds
from personas.words.phrasing import harm_to, is_negated, person_of

log = logging.getLogger(__name__)
SAME_LINE = 0.65
"""Cosine from which the persona's last line says what the line does that an exchange follows."""
HELP_SIMILARITY = 0.6
"""Cosine below which nothing fits a grave message."""
QUANTISED = 127.0
"""Vectors are stored in 8 bits: components times this, as they are at most 1."""


@dataclass(frozen=True)
class WordsHit:
    """The exchange that is nearest to a message, and the cosine of the two, on MiniLM's scale."""

    exchange: Exchange
    similarity: float


class OwnWords:
    """Exchanges of a persona that can be searched; may be used from any thread."""

    def __init__(
        self, exchanges: Sequence[Exchange], encoder: str = "", vectors: Vectors | None = None
    ) -> None:
        """Index exchanges. `vectors` are those of `compared_texts`, shape (texts, dimensions);
        without them they are computed, some 5 ms each.
        """
        if vectors is None:
            vectors = load_encoder(encoder).embed(compared_texts(exchanges))
        self._encoder = encoder
        self._exchanges: list[Exchange] = []
        """By phrasing."""
        for exchange in exchanges:
            self._exchanges += [exchange] * len(exchange.asked)
        lines = dict.fromkeys(exchange.after for exchange in exchanges if exchange.after)
        places = {line: place for place, line in enumerate(lines)}
        self._line_of = np.array([places.get(each.after, -1) for each in self._exchanges], int)
        """By phrasing: the line that it follows; -1 without one."""
        phrasings = [phrasing for exchange in exchanges for phrasing in exchange.asked]
        self._person_of = np.array([person_of(phrasing) for phrasing in phrasings], "U8")
        self._is_negated = np.array([is_negated(phrasing) for phrasing in phrasings], bool)
        self._kinds = np.array([_kinds_key(phrasing) for phrasing in phrasings])
        self._harm_to = np.array([harm_to(phrasing) for phrasing in phrasings], "U8")
        self._help = next((each for each in exchanges if each.is_for_help), None)
        self._phrasings = vectors[: len(self._exchanges)]
        self._lines = vectors[len(self._exchanges) :]

    def find(
        self, message: str, before: str = "", without: Collection[str] = ()
    ) -> WordsHit | None:
        """Return the exchange nearest to a message that follows the persona's line `before`, speaks of
        the same person and grave matters, and denies as it does; none whose reply is among the texts
        `without`, and None for a language that the encoder does not read.
        """
        if not self._exchanges or not load_encoder(self._encoder).can_read(message):
            return None
        cosines = self._cosines(message, self._phrasings)
        if len(self._lines):
            fits = np.zeros(len(self._lines) + 1, bool)
            fits[-1] = True  # of those that follow no line
            if before:
                fits[:-1] = self._cosines(before, self._lines) >= SAME_LINE
            cosines[~fits[self._line_of]] = -1.0
        cosines[self._is_negated != is_negated(message)] = -1.0
        cosines[self._kinds != _kinds_key(message)] = -1.0
        if harmed := harm_to(message):
            cosines[self._harm_to != harmed] = -1.0
        if person := person_of(message):
            cosines[(self._person_of != person) & (self._person_of != "")] = -1.0
        if self._help and NEEDS_HELP & grave_kinds(message) and cosines.max() < HELP_SIMILARITY:
            return WordsHit(self._help, 1.0)
        said = frozenset(without)
        for at in np.argsort(-cosines):
            exchange = self._exchanges[at]
            if exchange.reply not in said:
                return WordsHit(exchange, float(cosines[at]))
        return None

    def _cosines(self, text: str, vectors: Vectors) -> Vectors:
        return chat_cosines(message_vector(text, self._encoder), vectors, self._encoder)


def _kinds_key(text: str) -> str:
    return "|".join(sorted(grave_kinds(text)))


def write_vectors(path: Path, exchanges: Sequence[Exchange]) -> None:
    """Compute the bundled encoder's vectors of exchanges, and write them beside their file."""
    texts = compared_texts(exchanges)
    vectors = load_encoder("").embed(texts)
    packed = np.rint(vectors * QUANTISED).astype(np.int8)
    scheme = np.array(embedding_scheme(""))
    with path.open("wb") as file:
        np.savez_compressed(file, scheme=scheme, texts=_digests(texts), vectors=packed)


def read_vectors(path: Path, exchanges: Sequence[Exchange]) -> Vectors | None:
    """Read the vectors of exchanges; None where the file is missing, damaged or of other texts."""
    texts = compared_texts(exchanges)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            is_same = str(stored["scheme"]) == embedding_scheme("") and np.array_equal(
                stored["texts"], _digests(texts)
            )
            if is_same:
                vectors: Vectors = stored["vectors"].astype(np.float32)
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                return vectors
    except Exception as error:  # numpy and zipfile raise whatever a damaged file makes them meet
        log.warning("%s cannot be read, so that its vectors are computed: %s.", path, error)
        return None
    log.warning("%s is of other words, so that their vectors are computed.", path)
    return None


def _digests(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return a number for each text, the same on every machine."""
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
    return np.frombuffer(b"".join(digests), "<u8")
