"""Splits long texts into overlapping chunks, so that detection takes linear time."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trainer.anonymise.spans import EntitySpan

MAX_UNSPLIT_CHARS = 2_500
"""Texts up to this length (code points) are one chunk; most Discord messages are shorter."""
CHUNK_CHARS, CHUNK_MARGIN_CHARS = 2_000, 250
"""Maximum length that a chunk owns, and the context it has on either side of that."""
SPLIT_SEARCH_CHARS = 125
"""A chunk ends at a space if there is one among this many last characters."""
MAX_KEY_CHARS = 20_000
"""Maximum extension of a key that continues after a chunk; longer than any key."""
PEM_END = re.compile(r"-----END [A-Z0-9 ]{1,40}-----")
PEM_BODY = re.compile(r"[A-Za-z0-9+/=:,\s-]*")
KEY_BODY = re.compile(r"[A-Za-z0-9+/=_.~%-]*")


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A chunk `text[start:end]`; it owns findings that end after `first` and begin before `last`."""

    start: int
    end: int
    first: int
    last: int

    def within(self, spots: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return those of the text's ordered spans that lie in the chunk, with offsets in the chunk."""
        begun = bisect_right(spots, self.start, key=lambda spot: spot[1])
        ended = bisect_left(spots, self.end, key=lambda spot: spot[0])
        return [(start - self.start, end - self.start) for start, end in spots[begun:ended]]


def split_chunks(text: str) -> Iterator[TextChunk]:
    """Split a text into chunks in order; a short text is one chunk."""
    if len(text) <= MAX_UNSPLIT_CHARS:
        yield TextChunk(0, len(text), 0, len(text))
        return
    first = 0
    while first < len(text):
        last = _split_point(text, first + CHUNK_CHARS)
        yield TextChunk(max(0, first - CHUNK_MARGIN_CHARS), _split_point(text, last + CHUNK_MARGIN_CHARS), first, last)
        first = last


def _split_point(text: str, position: int) -> int:
    """Return the position, or the one after the last space shortly before it."""
    if position >= len(text):
        return len(text)
    spaces = (text.rfind(sign, position - SPLIT_SEARCH_CHARS, position) for sign in " \n")
    return max(spaces) + 1 or position


def select_spans(text: str, piece: TextChunk, spans: Iterable[EntitySpan], done: int) -> Iterator[EntitySpan]:
    """Return the findings that a chunk owns, with offsets in the text and none before `done`.

    A finding that begins before the owned part is taken as far as no earlier chunk has taken it. A key that reaches the
    end of the chunk is extended by what follows it.
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
