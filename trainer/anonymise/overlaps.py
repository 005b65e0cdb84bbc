"""Of spans that overlap, which stand.

A key beats everything, then what has a form; a name from the log beats an `@`, a model and a cue word; an address,
whoever found it, beats the names inside it. Among equals the longer stands. What is left over of a person's or an
address's span still stands for itself, unless it joins a name from the log: `Ada` known, `Ada Lace` found by a model
is one person.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from trainer.anonymise.entity import BY_FORM, BY_LOG, Span

LETTERS = re.compile(r"[^\W_]")
NUMBERS_FIRST = ("CREDIT_CARD", "IBAN_CODE", "CN_ID", "JP_MY_NUMBER", "VN_ID", "US_SSN", "DISCORD_ID", "PHONE_NUMBER")
"""Of two readings of the same digits, the first of these."""


def settled(text: str, spans: Iterable[Span]) -> list[Span]:
    """Spans in order that do not overlap."""
    kept: list[Span] = []
    for span in sorted(spans, key=_order):
        rest = _rest(span, [one for one in kept if one.start < span.end and span.start < one.end])
        if rest == [(span.start, span.end)]:
            kept.append(span)
        elif span.kind in ("PERSON", "STREET_ADDRESS"):
            for start, end in rest:
                _keep_rest(text, span, start, end, kept)
    return sorted(kept, key=lambda span: span.start)


def _order(span: Span) -> tuple[int, int, int, int]:
    rank = BY_FORM if span.kind == "STREET_ADDRESS" else span.rank
    length = span.end - span.start
    place = NUMBERS_FIRST.index(span.kind) if span.kind in NUMBERS_FIRST else 0
    return -rank, -length, place, span.start


def _rest(span: Span, others: list[Span]) -> list[tuple[int, int]]:
    """The parts of a span outside of others."""
    rest, start = [], span.start
    for other in sorted(others, key=lambda one: one.start):
        if other.start > start:
            rest.append((start, other.start))
        start = max(start, other.end)
    if start < span.end:
        rest.append((start, span.end))
    return rest


def _keep_rest(text: str, span: Span, start: int, end: int, kept: list[Span]) -> None:
    while start < end and not LETTERS.match(text[start]):
        start += 1
    while start < end and not LETTERS.match(text[end - 1]):
        end -= 1
    if end - start < 2:
        return
    neighbour = next((one for one in kept if one.rank == BY_LOG and _touch(text, one, start, end)), None)
    if neighbour and span.kind == "PERSON":
        kept[kept.index(neighbour)] = Span("PERSON", min(neighbour.start, start), max(neighbour.end, end), BY_LOG)
    else:
        kept.append(Span(span.kind, start, end, span.rank))


def _touch(text: str, one: Span, start: int, end: int) -> bool:
    """Whether nothing but a space or an initial lies between."""
    between = text[one.end : start] if one.end <= start else text[end : one.start]
    return one.kind == "PERSON" and len(between) <= 3 and "\n" not in between
