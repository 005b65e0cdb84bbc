"""Describes the columns of a table by the content of their first cells."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainer.sources.conversation_builder import ROLES
from trainer.sources.dates import parse_clock, parse_moment

ColumnKind = Literal[
    "dates", "names", "roles", "texts", "ids", "numbers", "flags", "lists", "objects", "empty"
]
KIND_TITLES: dict[ColumnKind, str] = {
    "dates": "dates and times",
    "names": "names that recur",
    "roles": "roles",
    "texts": "texts",
    "ids": "ids",
    "numbers": "numbers",
    "flags": "yes or no",
    "lists": "lists",
    "objects": "objects",
    "empty": "nothing",
}
FLAGS = frozenset("true false yes no 0 1 ja nein oui non sí".split())
SENTENCE_ENDS = tuple(".!?…。！？؟~")
MAX_NAME_CHARACTERS = 64
MIN_ID_CHARACTERS = 8
MAX_NESTING = 3
MAX_EXAMPLES = 3
MAX_EXAMPLE_CHARACTERS = 40
Row = Mapping[str, Any]


@dataclass(frozen=True)
class ColumnProfile:
    """What a column's first cells look like. `distinct` of its `filled` cells differ; `examples`
    are the first.
    """

    name: str
    kind: ColumnKind
    filled: int = 0
    distinct: int = 0
    characters: float = 0.0
    examples: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The kind in words, with the number of names."""
        if self.kind == "names":
            return f"{self.distinct} names that recur"
        return KIND_TITLES[self.kind]

    def as_json(self) -> dict[str, Any]:
        """Return the published object."""
        return {"name": self.name, "looks_like": self.title, "examples": list(self.examples)}


def cell_at(row: Row, column: str) -> Any:
    """Return a cell; a column such as `author.name` may lie inside objects, `line.2` is the second
    item of a list.
    """
    if column in row:
        return row[column]
    value: Any = row
    for key in column.split("."):
        if isinstance(value, list) and key.isdecimal() and 0 < int(key[:9]) <= len(value):
            value = value[int(key[:9]) - 1]
        elif isinstance(value, Mapping) and key in value:
            value = value[key]
        else:
            return None
    return value


def list_columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns of rows, those inside objects as `outer.inner`, in order of their
    appearance.
    """
    names: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            names.update(dict.fromkeys(_paths(str(name), value)))
    return list(names)


def _paths(name: str, value: object, depth: int = 1) -> list[str]:
    if not isinstance(value, dict) or not value or depth >= MAX_NESTING:
        return [name]
    paths = []
    for key, inner in value.items():
        paths += _paths(f"{name}.{key}", inner, depth + 1)
    return paths


def profile_columns(rows: Sequence[Row]) -> list[ColumnProfile]:
    """Describe all columns of the first rows of a table."""
    profiles = []
    for name in list_columns(rows):
        cells = [cell_at(row, name) for row in rows]
        profiles.append(profile_column(name, cells))
    return profiles


def profile_column(name: str, cells: Sequence[Any]) -> ColumnProfile:
    """Describe one column."""
    filled = [cell for cell in cells if cell is not None and cell != ""]
    if not filled:
        return ColumnProfile(name, "empty")
    texts = [" ".join(str(cell).split()) for cell in filled]
    distinct = list(dict.fromkeys(texts))
    return ColumnProfile(
        name,
        _kind(filled, texts, len(distinct)),
        filled=len(filled),
        distinct=len(distinct),
        characters=sum(map(len, texts)) / len(texts),
        examples=tuple(_shorten(text) for text in distinct[:MAX_EXAMPLES]),
    )


def _kind(cells: Sequence[Any], texts: Sequence[str], distinct: int) -> ColumnKind:
    # The order decides: a column of 0 and 1 is flags before it is numbers, and a number since 1970
    # is a date.
    if all(isinstance(cell, dict) for cell in cells):
        return "objects"
    if all(isinstance(cell, list) for cell in cells):
        return "lists"
    folded = {text.casefold() for text in texts}
    if folded <= FLAGS or all(isinstance(cell, bool) for cell in cells):
        return "flags"
    if all(_is_time(cell) for cell in cells):
        return "dates"
    if all(_is_number(text) for text in texts):
        return "numbers"
    if folded <= ROLES.keys() and len({ROLES[text] for text in folded}) > 1:
        return "roles"
    if distinct == len(texts) and all(_is_id(text) for text in texts):
        return "ids"
    return "names" if _are_names(texts, distinct) else "texts"


def _is_time(cell: object) -> bool:
    return parse_moment(cell) is not None or parse_clock(str(cell)) is not None


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_id(text: str) -> bool:
    if len(text) < MIN_ID_CHARACTERS or not text.isascii() or " " in text:
        return False
    return any(map(str.isdigit, text))


def _are_names(texts: Sequence[str], distinct: int) -> bool:
    """Report whether texts are short, recur and are no sentences."""
    if any(len(text) > MAX_NAME_CHARACTERS for text in texts):
        return False
    sentences = sum(text.endswith(SENTENCE_ENDS) for text in texts)
    if 3 * sentences > len(texts):
        return False
    return distinct < len(texts) and 2 * distinct <= len(texts) + 1


def _shorten(text: str) -> str:
    if len(text) <= MAX_EXAMPLE_CHARACTERS:
        return text
    return f"{text[: MAX_EXAMPLE_CHARACTERS - 2]} …"
