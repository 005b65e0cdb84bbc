"""Spans of personal data, their kinds (Presidio's names), and the resolution of overlaps."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

EntityKind = Literal[
    "PERSON", "STREET_ADDRESS", "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN",
    "URL_SECRET", "SECRET", "HANDLE", "DISCORD_ID", "VN_ID", "CN_ID", "JP_MY_NUMBER", "PASSPORT",
    "ID_NUMBER",
]  # fmt: skip
# Of overlapping spans the higher rank wins.
RANK_SECRET = 6  # a key or token
RANK_PATTERN = 5  # a value with a checksum or an unmistakable form
RANK_LOG_NAME = 4  # a name in the log
RANK_HANDLE = 3
RANK_MODEL = 2  # a model's finding
RANK_CUE = 1  # a name after a cue word
LETTERS = re.compile(r"[^\W_]")
LABEL_ONLY = re.compile(r"[^\W\d]+")
"""The word left of an address from which its number was cut."""
NUMBER_KIND_PRIORITY = "CREDIT_CARD IBAN_CODE CN_ID JP_MY_NUMBER VN_ID US_SSN ID_NUMBER DISCORD_ID PHONE_NUMBER".split()
"""Priority among several readings of the same digits."""
MAX_UNSPLIT_CHARS = 2_500
"""Texts up to this length (code points) are one chunk; most Discord messages are shorter."""
CHUNK_CHARS = 2_000
"""Maximum length that a chunk owns."""
CHUNK_MARGIN_CHARS = 250
"""Context that it has on either side of that."""
SPLIT_SEARCH_CHARS = 125
"""A chunk ends at a space if there is one among this many last characters."""
MAX_KEY_CHARS = 20_000
"""Maximum extension of a key that continues after a chunk; longer than any key."""
PEM_END = re.compile(r"-----END [A-Z0-9 ]{1,40}-----")
PEM_BODY = re.compile(r"[A-Za-z0-9+/=:,\s-]*")
KEY_BODY = re.compile(r"[A-Za-z0-9+/=_.~%-]*")


@dataclass(frozen=True, slots=True)
class EntitySpan:
    """A span `text[start:end]` (code points) of a kind. `rank` is its confidence, see
    `resolve_overlaps`.
    """

    kind: EntityKind
    start: int
    end: int
    rank: int

    @classmethod
    def of_match(
        cls, kind: EntityKind, match: re.Match[str], rank: int, group: int | str = 0
    ) -> "EntitySpan":
        """Return the span of a match, or of one of its groups."""
        return cls(kind, match.start(group), match.end(group), rank)


@dataclass(frozen=True, slots=True)
class Entity:
    """A span of the original text and its replacement."""

    kind: EntityKind
    start: int
    end: int
    replacement: str


Recogniser = Callable[[str], Iterable[EntitySpan]]
"""Function that finds all spans of one or a few related kinds; overlaps are resolved later."""


def replace_entities(text: str, entities: Iterable[Entity]) -> str:
    """Replace the entities in a text; they are in order and do not overlap."""
    parts: list[str] = []
    end = 0
    for entity in entities:
        parts += [text[end : entity.start], entity.replacement]
        end = entity.end
    return "".join([*parts, text[end:]])


def resolve_overlaps(text: str, spans: Iterable[EntitySpan]) -> list[EntitySpan]:
    """Resolve overlaps; returns the spans in order."""
    resolved: list[EntitySpan] = []
    for span in sorted(spans, key=_priority):
        overlapping = []
        for other in resolved:
            if other.start < span.end and span.start < other.end:
                overlapping.append(other)
        rest = _uncovered_parts(span, overlapping)
        if rest == [(span.start, span.end)]:
            resolved.append(span)
        elif span.kind in ("PERSON", "STREET_ADDRESS"):
            # A part of a name or an address still is one; a part of a number is nothing.
            for start, end in rest:
                _add_uncovered_part(text, span, start, end=end, resolved=resolved)
    return sorted(resolved, key=lambda span: span.start)


def _priority(span: EntitySpan) -> tuple[int, bool, int, int, int]:
    """Order spans; an address, which may be cut, comes after the other patterns, and before
    names.
    """
    is_address = span.kind == "STREET_ADDRESS"
    length = span.end - span.start
    position = NUMBER_KIND_PRIORITY.index(span.kind) if span.kind in NUMBER_KIND_PRIORITY else 0
    return -(RANK_PATTERN if is_address else span.rank), is_address, -length, position, span.start


def _uncovered_parts(span: EntitySpan, others: list[EntitySpan]) -> list[tuple[int, int]]:
    rest = []
    start = span.start
    for other in sorted(others, key=lambda other: other.start):
        if other.start > start:
            rest.append((start, other.start))
        start = max(start, other.end)
    if start < span.end:
        rest.append((start, span.end))
    return rest


def _add_uncovered_part(
    text: str, span: EntitySpan, start: int, end: int, resolved: list[EntitySpan]
) -> None:
    while start < end and not LETTERS.match(text[start]):
        start += 1
    while start < end and not LETTERS.match(text[end - 1]):
        end -= 1
    if end - start < 2:
        return
    if span.kind == "STREET_ADDRESS" and LABEL_ONLY.fullmatch(text, start, end):
        return
    if span.kind == "PERSON":
        for place, other in enumerate(resolved):
            if other.rank == RANK_LOG_NAME and _are_adjacent(text, other, start, end):
                # "Mira Quill", of which the log has "Mira": the whole is this person's.
                first = min(other.start, start)
                resolved[place] = EntitySpan("PERSON", first, max(other.end, end), RANK_LOG_NAME)
                return
    resolved.append(EntitySpan(span.kind, start, end, span.rank))


def _are_adjacent(text: str, name: EntitySpan, start: int, end: int) -> bool:
    """Return True if only a space or an initial is between a name and a place in the text."""
    between = text[name.end : start] if name.end <= start else text[end : name.start]
    return name.kind == "PERSON" and len(between) <= 3 and "\n" not in between


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A chunk `text[start:end]`; it owns findings that end after `first` and begin before
    `last`.
    """

    start: int
    end: int
    first: int
    last: int

    def within(self, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return those of the text's ordered spans that lie in the chunk, with offsets in the
        chunk.
        """
        first = bisect_right(spans, self.start, key=lambda span: span[1])
        last = bisect_left(spans, self.end, key=lambda span: span[0])
        return [(start - self.start, end - self.start) for start, end in spans[first:last]]


def split_chunks(text: str) -> Iterator[TextChunk]:
    """Split a text into chunks in order; a short text is one chunk."""
    if len(text) <= MAX_UNSPLIT_CHARS:
        yield TextChunk(0, len(text), 0, len(text))
        return
    first = 0
    while first < len(text):
        last = _split_point(text, first + CHUNK_CHARS)
        start = max(0, first - CHUNK_MARGIN_CHARS)
        end = _split_point(text, last + CHUNK_MARGIN_CHARS)
        yield TextChunk(start, end, first=first, last=last)
        first = last


def _split_point(text: str, position: int) -> int:
    """Return the position, or the one after the last space shortly before it."""
    if position >= len(text):
        return len(text)
    spaces = (text.rfind(sign, position - SPLIT_SEARCH_CHARS, position) for sign in " \n")
    return max(spaces) + 1 or position


def select_spans(
    text: str, chunk: TextChunk, spans: Iterable[EntitySpan], done: int
) -> Iterator[EntitySpan]:
    """Return the findings that a chunk owns, with offsets in the text and none before `done`.

    A finding that begins before the owned part is taken as far as no earlier chunk has taken it. A
    key that reaches the end of the chunk is extended by what follows it.
    """
    for span in spans:
        start = max(span.start + chunk.start, done)
        end = span.end + chunk.start
        if start >= chunk.last or end <= max(chunk.first, done):
            continue
        if end == chunk.end and span.kind in ("SECRET", "URL_SECRET"):
            end = _key_end(text, start, end)
        yield EntitySpan(span.kind, start, end, span.rank)
        done = end


def _key_end(text: str, start: int, end: int) -> int:
    limit = end + MAX_KEY_CHARS
    body_pattern = KEY_BODY
    if text.startswith("-----BEGIN", start):
        closing = PEM_END.search(text, end, limit)
        if closing:
            return closing.end()
        body_pattern = PEM_BODY
    body = body_pattern.match(text, end, limit)
    return body.end() if body else end
