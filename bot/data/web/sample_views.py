"""A sample of a data set for its page, with marks for what the anonymiser replaced."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bot.data.samples import SampleJson
from personas.home.pseudonyms import INVENTED_NAMES

PSEUDONYM_PATTERN = re.compile(rf"\b(?:{'|'.join(INVENTED_NAMES)})\d*\b")
PLACEHOLDER_PATTERN = re.compile(
    r"\[(?:address|card number|account number|social security number|identity number|key removed|id)\]"
    r"|\b[a-z]+\d{3}@example\.(?:com|net|org)\b|\b\d{3}-555-01\d\d\b|@[a-z]+\d{3}\b"
)
"""Replacements by the anonymiser (docs/privacy.md)."""
TextPiece = tuple[str, str]
"""A text and its kind: "" for plain text, "name" for a pseudonym, "value" for a placeholder."""


@dataclass(frozen=True)
class MessageView:
    role: str
    pieces: tuple[TextPiece, ...]


@dataclass(frozen=True, kw_only=True)
class SampleView:
    """A sample or a dropped record. `card` is the system prompt; `facts` are shown below it."""

    number: int
    source: str
    row: str
    reason: str
    card: str
    messages: tuple[MessageView, ...]
    facts: tuple[str, ...]


def view_sample(line: SampleJson, number: int) -> SampleView:
    """Describe a sample for the page, with marks for pseudonyms and placeholders."""
    names = [str(name) for name in line.get("speakers") or ()]
    card = ""
    messages = []
    for turn in line.get("messages") or ():
        if not isinstance(turn, dict):
            continue
        role = str(turn.get("role"))
        content = str(turn.get("content", ""))
        if role == "system":
            card = card or content
        else:
            messages.append(MessageView(role, tuple(split_marked_text(content, names))))
    if text := line.get("text"):
        pieces = tuple(split_marked_text(str(text), names))
        messages.append(MessageView("dropped", pieces))
    return SampleView(
        number=number,
        source=str(line.get("source") or ""),
        row=str(line.get("row") or ""),
        reason=str(line.get("reason") or ""),
        card=card,
        messages=tuple(messages),
        facts=tuple(_sample_facts(line)),
    )


def split_marked_text(text: str, names: Sequence[str]) -> Iterator[TextPiece]:
    """Split a text into pieces. `names` are its speakers; the invented ones are pseudonyms."""
    end = 0
    for start, stop, kind in _find_marks(text, names):
        if start < end:
            continue
        if start > end:
            yield text[end:start], ""
        yield text[start:stop], kind
        end = stop
    if end < len(text):
        yield text[end:], ""


def _find_marks(text: str, names: Sequence[str]) -> list[tuple[int, int, str]]:
    speaking = [re.escape(name) for name in names if PSEUDONYM_PATTERN.fullmatch(name)]
    patterns: list[tuple[re.Pattern[str], str]] = [
        (PLACEHOLDER_PATTERN, "value"),
        (PSEUDONYM_PATTERN, "name"),
    ]
    if speaking:
        patterns.insert(0, (re.compile(rf"\b(?:{'|'.join(speaking)})\b"), "name"))
    marks = []
    for pattern, kind in patterns:
        for match in pattern.finditer(text):
            marks.append((match.start(), match.end(), kind))
    return sorted(marks)


def _sample_facts(line: dict[str, Any]) -> Iterable[str]:
    if line.get("right"):
        yield f"right {line['right']}"
    if line.get("arrived"):
        yield f"came {line['arrived']}"
    if tokens := line.get("tokens"):
        yield "{tokens} tokens, {learned} of them learned".format(
            tokens=f"{tokens:,}", learned=f"{line.get('reply_tokens', 0):,}"
        )
    if lore := line.get("lore"):
        yield f"lore: {', '.join(map(str, lore))}"
    if speakers := line.get("speakers"):
        yield f"speak: {', '.join(map(str, speakers))}"
    if line.get("rows") == 0:
        yield "a reply of a talk that is used otherwise"
