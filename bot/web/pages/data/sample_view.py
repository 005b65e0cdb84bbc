"""View model of a sample: its messages, with pseudonyms, placeholders and search hits marked."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bot.web.api.data.sample_index import SampleHit
from personas.home.pseudonyms import INVENTED_NAMES

PSEUDONYM_PATTERN = re.compile(rf"\b(?:{'|'.join(INVENTED_NAMES)})\d*\b")
PLACEHOLDER_PATTERN = re.compile(
    r"\[(?:address|card number|account number|social security number|identity number|key removed|id)\]"
    r"|\b[a-z]+\d{3}@example\.(?:com|net|org)\b|\b\d{3}-555-01\d\d\b|@[a-z]+\d{3}\b"
)
"""Replacements by the anonymiser (docs/privacy.md)."""
TextPiece = tuple[str, str]
"""A text and its kind: "" for plain text, "name" for a pseudonym, "value" for a placeholder, "hit" for a search hit."""


@dataclass(frozen=True)
class MessageView:
    role: str
    pieces: tuple[TextPiece, ...]


@dataclass(frozen=True)
class SampleView:
    """A sample or a dropped record. `card` is the system prompt; `facts` are shown below it."""

    n: int
    side: str
    source: str
    row: str
    talk: str
    reason: str
    card: str
    messages: tuple[MessageView, ...]
    facts: tuple[str, ...]


def view_sample(found: SampleHit, query: str = "") -> SampleView:
    line = found.line
    names = [str(name) for name in line.get("speakers") or ()]
    turns = [one for one in line.get("messages") or () if isinstance(one, dict)]
    card = next((str(one.get("content", "")) for one in turns if one.get("role") == "system"), "")
    messages = [(str(one.get("role")), str(one.get("content", ""))) for one in turns if one.get("role") != "system"]
    if text := line.get("text"):
        messages.append(("dropped", str(text)))
    return SampleView(
        found.n,
        found.side,
        str(line.get("source") or ""),
        str(line.get("row") or ""),
        str(line.get("talk") or line.get("row") or ""),
        str(line.get("reason") or ""),
        card,
        tuple(MessageView(role, tuple(split_marked_text(text, names, query))) for role, text in messages),
        tuple(_sample_facts(line)),
    )


def split_marked_text(text: str, names: Sequence[str], query: str = "") -> Iterator[TextPiece]:
    """Split a text into pieces. `names` are its speakers; the invented ones are pseudonyms."""
    end = 0
    for start, stop, kind in _find_marks(text, names, query):
        if start < end:
            continue
        if start > end:
            yield text[end:start], ""
        yield text[start:stop], kind
        end = stop
    if end < len(text):
        yield text[end:], ""


def _find_marks(text: str, names: Sequence[str], query: str) -> list[tuple[int, int, str]]:
    speaking = [re.escape(name) for name in names if PSEUDONYM_PATTERN.fullmatch(name)]
    patterns: list[tuple[re.Pattern[str], str]] = [(PLACEHOLDER_PATTERN, "value"), (PSEUDONYM_PATTERN, "name")]
    if speaking:
        patterns.insert(0, (re.compile(rf"\b(?:{'|'.join(speaking)})\b"), "name"))
    if words := [re.escape(word) for word in re.findall(r"\w+", query)]:
        patterns.append((re.compile(rf"\b(?:{'|'.join(words)})", re.IGNORECASE), "hit"))
    return sorted((match.start(), match.end(), kind) for pattern, kind in patterns for match in pattern.finditer(text))


def _sample_facts(line: dict[str, Any]) -> Iterable[str]:
    yield from (f"{name} {line[key]}" for name, key in (("right", "right"), ("came", "arrived")) if line.get(key))
    if tokens := line.get("tokens"):
        yield f"{tokens:,} tokens, {line.get('reply_tokens', 0):,} of them learned"
    if lore := line.get("lore"):
        yield f"lore: {', '.join(map(str, lore))}"
    if speakers := line.get("speakers"):
        yield f"speak: {', '.join(map(str, speakers))}"
    if line.get("rows") == 0:
        yield "a reply of a talk that is used otherwise"
