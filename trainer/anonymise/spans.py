"""Spans of personal data, their kinds (Presidio's names), and the resolution of overlaps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

EntityKind = Literal[
    "PERSON",
    "STREET_ADDRESS",
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "CREDIT_CARD",
    "IBAN_CODE",
    "IP_ADDRESS",
    "US_SSN",
    "URL_SECRET",
    "SECRET",
    "HANDLE",
    "DISCORD_ID",
    "VN_ID",
    "CN_ID",
    "JP_MY_NUMBER",
    "PASSPORT",
]

ENTITY_KINDS: tuple[EntityKind, ...] = get_args(EntityKind)
RANK_SECRET, RANK_PATTERN, RANK_LOG_NAME, RANK_HANDLE, RANK_MODEL, RANK_CUE = 6, 5, 4, 3, 2, 1
"""Ranks, highest first: a key or token; a value with a checksum or an unmistakable form; a name in the log; a handle;
a model's finding; a name after a cue word. Of overlapping spans the higher rank wins.
"""
LETTERS = re.compile(r"[^\W_]")
NUMBER_KIND_PRIORITY = (
    "CREDIT_CARD",
    "IBAN_CODE",
    "CN_ID",
    "JP_MY_NUMBER",
    "VN_ID",
    "US_SSN",
    "DISCORD_ID",
    "PHONE_NUMBER",
)
"""Priority among several readings of the same digits."""


@dataclass(frozen=True, slots=True)
class EntitySpan:
    """A span `text[start:end]` (code points) of a kind. `rank` is its confidence, see `resolve_overlaps`."""

    kind: EntityKind
    start: int
    end: int
    rank: int


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
        rest = _uncovered_parts(span, [one for one in resolved if one.start < span.end and span.start < one.end])
        if rest == [(span.start, span.end)]:
            resolved.append(span)
        elif span.kind in ("PERSON", "STREET_ADDRESS"):
            for start, end in rest:
                _add_uncovered_part(text, span, start, end, resolved)
    return sorted(resolved, key=lambda span: span.start)


def _priority(span: EntitySpan) -> tuple[int, int, int, int]:
    rank = RANK_PATTERN if span.kind == "STREET_ADDRESS" else span.rank
    length = span.end - span.start
    position = NUMBER_KIND_PRIORITY.index(span.kind) if span.kind in NUMBER_KIND_PRIORITY else 0
    return -rank, -length, position, span.start


def _uncovered_parts(span: EntitySpan, others: list[EntitySpan]) -> list[tuple[int, int]]:
    """Return the parts of a span outside of others."""
    rest, start = [], span.start
    for other in sorted(others, key=lambda one: one.start):
        if other.start > start:
            rest.append((start, other.start))
        start = max(start, other.end)
    if start < span.end:
        rest.append((start, span.end))
    return rest


def _add_uncovered_part(text: str, span: EntitySpan, start: int, end: int, resolved: list[EntitySpan]) -> None:
    while start < end and not LETTERS.match(text[start]):
        start += 1
    while start < end and not LETTERS.match(text[end - 1]):
        end -= 1
    if end - start < 2:
        return
    neighbour = next(
        (one for one in resolved if one.rank == RANK_LOG_NAME and _are_adjacent(text, one, start, end)), None
    )
    if neighbour and span.kind == "PERSON":
        resolved[resolved.index(neighbour)] = EntitySpan(
            "PERSON", min(neighbour.start, start), max(neighbour.end, end), RANK_LOG_NAME
        )
    else:
        resolved.append(EntitySpan(span.kind, start, end, span.rank))


def _are_adjacent(text: str, one: EntitySpan, start: int, end: int) -> bool:
    """Return True if only a space or an initial is between the two."""
    between = text[one.end : start] if one.end <= start else text[end : one.start]
    return one.kind == "PERSON" and len(between) <= 3 and "\n" not in between
