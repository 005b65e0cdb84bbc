"""Spans of personal data, their kinds as Presidio names them, and the resolution of overlaps."""

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


@dataclass(frozen=True, slots=True)
class EntitySpan:
    """Text from `start` to `end` (code points, end excluded) that is of a kind. `rank`: how sure, see `overlaps`."""

    kind: EntityKind
    start: int
    end: int
    rank: int


@dataclass(frozen=True, slots=True)
class Entity:
    """A span of the original text and what stands in its place."""

    kind: EntityKind
    start: int
    end: int
    replacement: str


Recogniser = Callable[[str], Iterable[EntitySpan]]


"""Finds all spans of one kind, or of a few that go together; what overlaps is settled later."""


RANK_SECRET, RANK_PATTERN, RANK_LOG_NAME, RANK_HANDLE, RANK_MODEL, RANK_CUE = 6, 5, 4, 3, 2, 1


"""Ranks: a key or token; a form that can be checked or hardly be anything else; a name that somebody in the log has; an
`@`; a model's judgement; a cue word's. Where spans overlap, the higher rank stands (`trainer.anonymise.spans`)."""


def replace_entities(text: str, entities: Iterable[Entity]) -> str:
    """The text with each entity's replacement in its place; the entities are in order and do not overlap."""
    parts: list[str] = []
    end = 0
    for entity in entities:
        parts += [text[end : entity.start], entity.replacement]
        end = entity.end
    return "".join([*parts, text[end:]])


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


"""Of two readings of the same digits, the first of these."""


def resolve_overlaps(text: str, spans: Iterable[EntitySpan]) -> list[EntitySpan]:
    """Spans in order that do not overlap."""
    kept: list[EntitySpan] = []
    for span in sorted(spans, key=_priority):
        rest = _uncovered_parts(span, [one for one in kept if one.start < span.end and span.start < one.end])
        if rest == [(span.start, span.end)]:
            kept.append(span)
        elif span.kind in ("PERSON", "STREET_ADDRESS"):
            for start, end in rest:
                _add_uncovered_part(text, span, start, end, kept)
    return sorted(kept, key=lambda span: span.start)


def _priority(span: EntitySpan) -> tuple[int, int, int, int]:
    rank = RANK_PATTERN if span.kind == "STREET_ADDRESS" else span.rank
    length = span.end - span.start
    place = NUMBER_KIND_PRIORITY.index(span.kind) if span.kind in NUMBER_KIND_PRIORITY else 0
    return -rank, -length, place, span.start


def _uncovered_parts(span: EntitySpan, others: list[EntitySpan]) -> list[tuple[int, int]]:
    """The parts of a span outside of others."""
    rest, start = [], span.start
    for other in sorted(others, key=lambda one: one.start):
        if other.start > start:
            rest.append((start, other.start))
        start = max(start, other.end)
    if start < span.end:
        rest.append((start, span.end))
    return rest


def _add_uncovered_part(text: str, span: EntitySpan, start: int, end: int, kept: list[EntitySpan]) -> None:
    while start < end and not LETTERS.match(text[start]):
        start += 1
    while start < end and not LETTERS.match(text[end - 1]):
        end -= 1
    if end - start < 2:
        return
    neighbour = next((one for one in kept if one.rank == RANK_LOG_NAME and _are_adjacent(text, one, start, end)), None)
    if neighbour and span.kind == "PERSON":
        kept[kept.index(neighbour)] = EntitySpan(
            "PERSON", min(neighbour.start, start), max(neighbour.end, end), RANK_LOG_NAME
        )
    else:
        kept.append(EntitySpan(span.kind, start, end, span.rank))


def _are_adjacent(text: str, one: EntitySpan, start: int, end: int) -> bool:
    """Whether nothing but a space or an initial lies between."""
    between = text[one.end : start] if one.end <= start else text[end : one.start]
    return one.kind == "PERSON" and len(between) <= 3 and "\n" not in between
