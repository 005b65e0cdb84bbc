"""Careless writing: no capitals, no punctuation, capitals only. Labels stay on their pieces."""

import re
from collections.abc import Callable
from random import Random

from benchmarks.studies.pii_heldout.writing.pieces import Piece

FIXED_LABELS = frozenset({"IBAN", "ID", "URL", "EMAIL", "HANDLE", "IP"})
"""Labels whose values people copy as they are."""

END_MARKS = re.compile(r"[.,;!?]+(?=\s|\Z)")
CONTRACTION = re.compile(r"(?<=[a-z])['’](?=(?:s|t|m|ll|re|ve|d)\b)")


def write_lower(piece: Piece) -> Piece:
    """Returns the piece in lower case."""
    return piece if piece.label in FIXED_LABELS else Piece(piece.text.lower(), piece.label)


def write_capitals(piece: Piece) -> Piece:
    """Returns the piece in capitals."""
    return piece if piece.label in FIXED_LABELS else Piece(piece.text.upper(), piece.label)


def drop_marks(piece: Piece) -> Piece:
    """Returns the piece without punctuation at the ends of words, and without apostrophes."""
    if piece.label is not None:
        return piece
    return Piece(CONTRACTION.sub("", END_MARKS.sub("", piece.text)))


def drop_marks_and_capitals(piece: Piece) -> Piece:
    """Returns the piece in lower case and without marks."""
    return write_lower(drop_marks(piece))


CASUAL_HABITS: tuple[tuple[Callable[[Piece], Piece] | None, int], ...] = (
    (None, 52),
    (write_lower, 22),
    (drop_marks, 8),
    (drop_marks_and_capitals, 14),
    (write_capitals, 4),
)
"""Habits in casual texts with their weights; None writes as the template does."""

FORMAL_HABITS: tuple[tuple[Callable[[Piece], Piece] | None, int], ...] = (
    (None, 86),
    (write_lower, 8),
    (drop_marks, 3),
    (write_capitals, 3),
)
"""Habits in formal texts with their weights."""


def apply_habit(pieces: list[Piece], casual: bool, rng: Random) -> list[Piece]:
    """Returns the pieces as a writer with a random habit would type them."""
    habits = CASUAL_HABITS if casual else FORMAL_HABITS
    habit = rng.choices([habit for habit, _ in habits], weights=[weight for _, weight in habits])[0]
    return pieces if habit is None else [habit(piece) for piece in pieces]
