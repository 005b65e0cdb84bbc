"""The texts on which the anonymiser is judged, and what is to be found in them.

Ours lie in data/pii, marked where they stand (`{PERSON:Mina Vale}`); others come in the shape of presidio-research.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.errors import MaterialError

TEXTS = Path(__file__).parent.parent.parent / "data" / "pii"
LANGUAGES = ("english", "vietnamese", "chinese", "japanese")
KNOWN = "KNOWN"
"""Marks the name of somebody who speaks in the log; of the kind PERSON."""
MARK = re.compile(r"\{(?P<kind>[A-Z][A-Z_]+):(?P<value>[^{}]+)\}")


@dataclass(frozen=True)
class Gold:
    """What stands at `start` to `end` (code points, end excluded) and is to be found."""

    kind: str
    start: int
    end: int
    is_known: bool = False


@dataclass(frozen=True)
class Judged:
    """A text without its marks. `speaker` are the names of the person in the log whom it is about, if it is."""

    language: str
    text: str
    gold: tuple[Gold, ...]
    speaker: tuple[str, ...] = ()


def unmarked(marked: str) -> tuple[str, tuple[Gold, ...]]:
    """The text without its marks, and what was marked."""
    text, gold, at = "", [], 0
    for match in MARK.finditer(marked):
        text += marked[at : match.start()]
        kind = "PERSON" if match["kind"] == KNOWN else match["kind"]
        gold.append(Gold(kind, len(text), len(text) + len(match["value"]), match["kind"] == KNOWN))
        text += match["value"]
        at = match.end()
    return text + marked[at:], tuple(gold)


def ours(folder: Path = TEXTS) -> list[Judged]:
    """All texts of data/pii."""
    found = [
        Judged(language, *unmarked(row["text"]))
        for language in LANGUAGES
        for row in _rows(folder / f"{language}.jsonl")
    ]
    for row in _rows(folder / "known.jsonl"):
        found.append(Judged(row["language"], *unmarked(row["text"]), tuple(row["speaker"])))
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def of_presidio(path: Path) -> list[Judged]:
    """The texts of a file of presidio-research's: [{full_text, spans: [{entity_type, start_position, end_position}]}].

    Raises `MaterialError`.
    """
    advice = "It takes a list of {full_text, spans: [{entity_type, start_position, end_position}]}."
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        texts = [Judged("", row["full_text"], tuple(_golds(row["spans"]))) for row in rows]
    except OSError as error:
        raise MaterialError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MaterialError(f"{path} is not in the shape of presidio-research.", advice) from error
    if not texts:
        raise MaterialError(f"{path} holds no texts.", advice)
    return texts


def _golds(spans: Iterable[dict[str, Any]]) -> Iterator[Gold]:
    for span in spans:
        yield Gold(span["entity_type"], int(span["start_position"]), int(span["end_position"]))
