"""Splits long texts into overlapping chunks, so that detection takes linear time."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trainer.anonymise.spans import EntitySpan

MAX_UNSPLIT_CHARS = 2_500
"""Texts up to here (code points) are read at once: more than a message on Discord mostly has."""
CHUNK_CHARS, CHUNK_MARGIN_CHARS = 2_000, 250
"""So much a piece answers for at most, and so much it sees on either side of that."""
SPLIT_SEARCH_CHARS = 125
"""A piece ends at a space, where there is one among so many signs at its end: words are not cut."""
MAX_KEY_CHARS = 20_000
"""So much of a key that runs on behind a piece is taken with it: more than any key has."""
PEM_END = re.compile(r"-----END [A-Z0-9 ]{1,40}-----")
PEM_BODY = re.compile(r"[A-Za-z0-9+/=:,\s-]*")
KEY_BODY = re.compile(r"[A-Za-z0-9+/=_.~%-]*")


@dataclass(frozen=True, slots=True)
class TextChunk:
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


def split_chunks(text: str) -> Iterator[TextChunk]:
    """The pieces of a text in order; a short text is one."""
    if len(text) <= MAX_UNSPLIT_CHARS:
        yield TextChunk(0, len(text), 0, len(text))
        return
    first = 0
    while first < len(text):
        last = _split_point(text, first + CHUNK_CHARS)
        yield TextChunk(max(0, first - CHUNK_MARGIN_CHARS), _split_point(text, last + CHUNK_MARGIN_CHARS), first, last)
        first = last


def _split_point(text: str, place: int) -> int:
    """The place, or behind the last space shortly before it."""
    if place >= len(text):
        return len(text)
    spaces = (text.rfind(sign, place - SPLIT_SEARCH_CHARS, place) for sign in " \n")
    return max(spaces) + 1 or place


def select_spans(text: str, piece: TextChunk, spans: Iterable[EntitySpan], done: int) -> Iterator[EntitySpan]:
    """What a piece answers for of the spans found in it, counted from the text's start and not before `done`.

    What reaches into its middle from before is taken as far as no piece before has taken it. A key that fills the piece
    to its end is taken with what follows it.
    """
    for span in spans:
        start, end = max(span.start + piece.start, done), span.end + piece.start
        if start >= piece.last or end <= max(piece.first, done):
            continue
        if end == piece.end and span.kind in ("SECRET", "URL_SECRET"):
            end = _key_end(text, start, end)
        yield EntitySpan(span.kind, start, end, span.rank)
        done = end


def _key_end(text: str, start: int, end: int) -> int:
    if text.startswith("-----BEGIN", start):
        closed = PEM_END.search(text, end, end + MAX_KEY_CHARS)
        return closed.end() if closed else _body_end(PEM_BODY, text, end)
    return _body_end(KEY_BODY, text, end)


def _body_end(body: re.Pattern[str], text: str, end: int) -> int:
    found = body.match(text, end, end + MAX_KEY_CHARS)
    return found.end() if found else end
