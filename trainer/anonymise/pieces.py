"""Long texts cut into pieces that are read one by one, so that the time to read a text grows with its length alone.

Patterns, the tagger and the settling of overlaps look back and forth in what they are given: over a text without an end
that takes time without an end. A piece is read with a margin on both sides, and answers for what begins in its middle.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trainer.anonymise.entity import Span

LONGEST = 2_500
"""Texts up to here (code points) are read at once: more than a message on Discord mostly has."""
SIZE, MARGIN = 2_000, 250
"""So much a piece answers for at most, and so much it sees on either side of that."""
SEARCHED = 125
"""A piece ends at a space, where there is one among so many signs at its end: words are not cut."""
LONGEST_KEY = 20_000
"""So much of a key that runs on behind a piece is taken with it: more than any key has."""
PEM_END = re.compile(r"-----END [A-Z0-9 ]{1,40}-----")
PEM_BODY = re.compile(r"[A-Za-z0-9+/=:,\s-]*")
KEY_BODY = re.compile(r"[A-Za-z0-9+/=_.~%-]*")


@dataclass(frozen=True, slots=True)
class Piece:
    """`text[start:end]` is read; what ends behind `first` and begins before `last` is taken."""

    start: int
    end: int
    first: int
    last: int

    def within(self, spots: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Those of the text's spots, which are in order, that lie in the piece, counted from its start."""
        begun = bisect_right(spots, self.start, key=lambda spot: spot[1])
        ended = bisect_left(spots, self.end, key=lambda spot: spot[0])
        return [(start - self.start, end - self.start) for start, end in spots[begun:ended]]


def pieces(text: str) -> Iterator[Piece]:
    """The pieces of a text in order; a short text is one."""
    if len(text) <= LONGEST:
        yield Piece(0, len(text), 0, len(text))
        return
    first = 0
    while first < len(text):
        last = _parted(text, first + SIZE)
        yield Piece(max(0, first - MARGIN), _parted(text, last + MARGIN), first, last)
        first = last


def _parted(text: str, place: int) -> int:
    """The place, or behind the last space shortly before it."""
    if place >= len(text):
        return len(text)
    spaces = (text.rfind(sign, place - SEARCHED, place) for sign in " \n")
    return max(spaces) + 1 or place


def taken(text: str, piece: Piece, spans: Iterable[Span], done: int) -> Iterator[Span]:
    """What a piece answers for of the spans found in it, counted from the text's start and not before `done`.

    What reaches into its middle from before is taken as far as no piece before has taken it. A key that fills the piece
    to its end is taken with what follows it.
    """
    for span in spans:
        start, end = max(span.start + piece.start, done), span.end + piece.start
        if start >= piece.last or end <= max(piece.first, done):
            continue
        if end == piece.end and span.kind in ("SECRET", "URL_SECRET"):
            end = _end_of_key(text, start, end)
        yield Span(span.kind, start, end, span.rank)
        done = end


def _end_of_key(text: str, start: int, end: int) -> int:
    if text.startswith("-----BEGIN", start):
        closed = PEM_END.search(text, end, end + LONGEST_KEY)
        return closed.end() if closed else _matched(PEM_BODY, text, end)
    return _matched(KEY_BODY, text, end)


def _matched(body: re.Pattern[str], text: str, end: int) -> int:
    found = body.match(text, end, end + LONGEST_KEY)
    return found.end() if found else end
