"""Pieces of a text, labelled or not, and the text that they make."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict


@dataclass(frozen=True)
class Piece:
    """A part of a text; `label` is None outside personal data."""

    text: str
    label: str | None = None


class Span(TypedDict):
    """Offsets in characters, `end` exclusive, and the label."""

    start: int
    end: int
    label: str


class LabelledText(TypedDict):
    """A text, its spans in order, kind, language (ISO 639-1) and name of the template."""

    text: str
    spans: list[Span]
    kind: str
    language: str
    template: str


def join_pieces(pieces: Iterable[Piece]) -> tuple[str, list[Span]]:
    """Returns the text that the pieces make, and the spans of the labelled ones."""
    text = ""
    spans: list[Span] = []
    for piece in pieces:
        if piece.label is not None:
            end = len(text) + len(piece.text)
            spans.append({"start": len(text), "end": end, "label": piece.label})
        text += piece.text
    return text, spans
