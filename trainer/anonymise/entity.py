"""What is found in a text: spans of personal data, of some kind. Kinds are named as Presidio names them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
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
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Span:
    """Text from `start` to `end` (code points, end excluded) that is of a kind. `rank`: how sure, see `overlaps`."""

    kind: Kind
    start: int
    end: int
    rank: int


@dataclass(frozen=True, slots=True)
class Entity:
    """A span of the original text and what stands in its place."""

    kind: Kind
    start: int
    end: int
    replacement: str


Recogniser = Callable[[str], Iterable[Span]]
"""Finds all spans of one kind, or of a few that go together; what overlaps is settled later."""

BY_SECRET, BY_FORM, BY_LOG, BY_HANDLE, BY_MODEL, BY_CUE = 6, 5, 4, 3, 2, 1
"""Ranks: a key or token; a form that can be checked or hardly be anything else; a name that somebody in the log has; an
`@`; a model's judgement; a cue word's. Where spans overlap, the higher rank stands (`trainer.anonymise.overlaps`)."""


def replaced(text: str, entities: Iterable[Entity]) -> str:
    """The text with each entity's replacement in its place; the entities are in order and do not overlap."""
    parts: list[str] = []
    end = 0
    for entity in entities:
        parts += [text[end : entity.start], entity.replacement]
        end = entity.end
    return "".join([*parts, text[end:]])
