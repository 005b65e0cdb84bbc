"""Annotated texts for the evaluation of the anonymiser."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.errors import MaterialError

CORPUS_FOLDER = Path(__file__).parents[2] / "data" / "pii"
HELD_OUT_FOLDER = Path(__file__).with_name("pii_heldout")
HELD_OUT_SEEDS = (1, 2, 3)
"""Sets of held-out texts, by the seed that they were generated with (pii_heldout/README.md)."""
LANGUAGES = ("english", "vietnamese", "chinese", "japanese")
NOUN_FIRST = "english, noun first"
"""Set of English sentences that begin with a common noun."""
KNOWN_NAME_KIND = "KNOWN"
"""Marks the name of a speaker of the log; its kind is PERSON."""
OPTIONAL_KINDS = frozenset(("COUNTRY", "PLACE", "DATE_OF_BIRTH", "URL_REST"))
"""Mark what may be replaced and need not be: the country of an address, what surrounds the naming
part of a URL, and towns and dates, which the anonymiser keeps on purpose (docs/privacy.md).
"""
ANNOTATION = re.compile(r"\{(?P<kind>[A-Z][A-Z_]+):(?P<value>[^{}]+)\}")


@dataclass(frozen=True)
class GoldSpan:
    """A span to be found: `start` to `end` in code points, end excluded."""

    kind: str
    start: int
    end: int
    is_known: bool = False


@dataclass(frozen=True)
class AnnotatedText:
    """A text without its annotations. `speaker` are the names of the person in the log it is about,
    if any.
    """

    language: str
    text: str
    gold: tuple[GoldSpan, ...]
    speaker: tuple[str, ...] = ()


def parse_annotations(marked: str) -> tuple[str, tuple[GoldSpan, ...]]:
    """Parse a text with annotations into text and spans."""
    text = ""
    gold = []
    at = 0
    for match in ANNOTATION.finditer(marked):
        text += marked[at : match.start()]
        is_known = match["kind"] == KNOWN_NAME_KIND
        kind = "PERSON" if is_known else match["kind"]
        start = len(text)
        text += match["value"]
        gold.append(GoldSpan(kind, start, len(text), is_known))
        at = match.end()
    return text + marked[at:], tuple(gold)


def read_corpus(folder: Path = CORPUS_FOLDER) -> list[AnnotatedText]:
    """Read all texts of data/pii."""
    texts = []
    for language in LANGUAGES:
        for file in (folder / f"{language}.jsonl", folder / f"{language}_forms.jsonl"):
            if not file.is_file():
                continue
            for row in _rows(file):
                text, gold = parse_annotations(row["text"])
                texts.append(AnnotatedText(language, text, gold))
    for row in _rows(folder / "known.jsonl"):
        text, gold = parse_annotations(row["text"])
        texts.append(AnnotatedText(row["language"], text, gold, tuple(row["speaker"])))
    return texts


def read_held_out(seed: int) -> list[AnnotatedText]:
    """Read the held-out texts of one of `HELD_OUT_SEEDS`."""
    return read_annotated(HELD_OUT_FOLDER / f"seed-{seed}.jsonl")


def read_annotated(path: Path) -> list[AnnotatedText]:
    """Read a file of texts with their language and annotations."""
    return [AnnotatedText(row["language"], *parse_annotations(row["text"])) for row in _rows(path)]


def read_plain_sentences(folder: Path = CORPUS_FOLDER) -> dict[str, list[str]]:
    """Read the sentences without names or other personal data, by set: a language, or
    `NOUN_FIRST`.
    """
    sets: dict[str, list[str]] = {}
    for row in _rows(folder / "plain.jsonl"):
        sets.setdefault(row["set"], []).append(row["text"])
    return sets


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def read_presidio(path: Path) -> list[AnnotatedText]:
    """Read a file of presidio-research: [{full_text, spans: [{entity_type, start_position,
    end_position}]}].

    Raises `MaterialError`.
    """
    advice = "It takes a list of {full_text, spans: [{entity_type, start_position, end_position}]}."
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        texts = [AnnotatedText("", row["full_text"], tuple(_golds(row["spans"]))) for row in rows]
    except OSError as error:
        raise MaterialError(
            f"{path} cannot be read: {error.strerror}.", "Check the path."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise MaterialError(f"{path} is not in the shape of presidio-research.", advice) from error
    if not texts:
        raise MaterialError(f"{path} holds no texts.", advice)
    return texts


def _golds(spans: Iterable[dict[str, Any]]) -> Iterator[GoldSpan]:
    for span in spans:
        yield GoldSpan(span["entity_type"], int(span["start_position"]), int(span["end_position"]))
