"""Fills a template's slots."""

import re

from benchmarks.studies.pii_heldout.writing.pieces import Piece
from benchmarks.studies.pii_heldout.writing.slots import FillingContext, slot_pieces

SLOT = re.compile(r"\{([A-Za-z0-9_.]+(?:=[^}]*)?)\}")
QUOTE_MARKS = re.compile(r"(?:^|\n)((?:> ?)+)[^\n]*\Z")


def fill_template(template: str, context: FillingContext) -> list[Piece]:
    """Returns the pieces of a filled template.

    A value of several lines in a quoted line (`> …`) is quoted on every line.
    """
    pieces: list[Piece] = []
    for place, part in enumerate(SLOT.split(template)):
        if place % 2 == 0:
            pieces.append(Piece(part))
            continue
        marks = QUOTE_MARKS.search("".join(piece.text for piece in pieces))
        lead = marks.group(1) if marks else ""
        for piece in slot_pieces(part, context):
            pieces.append(Piece(piece.text.replace("\n", f"\n{lead}"), piece.label))
    return join_spans(merge_plain(pieces))


def join_spans(pieces: list[Piece]) -> list[Piece]:
    """Joins `First` and `Surname` to one person, and `Street` and `, Town` to one address."""
    joined: list[Piece] = []
    for piece in pieces:
        if len(joined) >= 2 and _belong_together(joined[-2], joined[-1].text, piece):
            whole = f"{joined[-2].text}{joined[-1].text}{piece.text}"
            joined[-2:] = [Piece(whole, joined[-2].label)]
        else:
            joined.append(piece)
    return joined


def _belong_together(before: Piece, between: str, after: Piece) -> bool:
    return (before.label, between, after.label) in {
        ("PERSON", " ", "PERSON"),
        ("ADDRESS", ", ", "PLACE"),
    }


def merge_plain(pieces: list[Piece]) -> list[Piece]:
    """Returns the pieces with neighbours that have no label joined, and empty ones left out."""
    merged: list[Piece] = []
    for piece in pieces:
        if piece.label is None and merged and merged[-1].label is None:
            merged[-1] = Piece(merged[-1].text + piece.text)
        elif piece.text:
            merged.append(piece)
    return merged
