"""Describes the columns of an unknown table by their content, and proposes which is which."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from personas.errors import MaterialError
from trainer.sources.conversation_builder import ROLES
from trainer.sources.dates import DAY_S, parse_clock, parse_moment
from trainer.sources.header_names import chat_roles

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
MAX_ASKED_COLUMNS = 24
PROPOSED_KINDS: dict[str, tuple[ColumnKind, ...]] = {
    "time": ("dates",),
    "speaker": ("roles", "names", "texts", "ids", "numbers", "flags"),
    "text": ("texts", "names"),
}
"""What the column of each role may look like, likeliest first."""
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
        return (
            f"{self.distinct} names that recur" if self.kind == "names" else KIND_TITLES[self.kind]
        )

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
    if isinstance(value, dict) and value and depth < MAX_NESTING:
        return [
            path
            for key, inner in value.items()
            for path in _paths(f"{name}.{key}", inner, depth + 1)
        ]
    return [name]


def profile_columns(rows: Sequence[Row]) -> list[ColumnProfile]:
    """Describe all columns of the first rows of a table."""
    return [
        profile_column(name, [cell_at(row, name) for row in rows]) for name in list_columns(rows)
    ]


def profile_column(name: str, cells: Sequence[Any]) -> ColumnProfile:
    """Describe one column."""
    filled = [cell for cell in cells if cell is not None and cell != ""]
    if not filled:
        return ColumnProfile(name, "empty")
    texts = [" ".join(str(cell).split()) for cell in filled]
    distinct = len(set(texts))
    kind = _kind(filled, texts, distinct)
    shown = tuple(_shorten(text) for text in list(dict.fromkeys(texts))[:MAX_EXAMPLES])
    return ColumnProfile(
        name,
        kind,
        len(filled),
        distinct=distinct,
        characters=sum(map(len, texts)) / len(texts),
        examples=shown,
    )


def _kind(cells: Sequence[Any], texts: Sequence[str], distinct: int) -> ColumnKind:
    for kind, of in (("objects", dict), ("lists", list)):
        if all(isinstance(cell, of) for cell in cells):
            return kind  # type: ignore[return-value]
    if (
        all(isinstance(cell, bool) for cell in cells)
        or {text.casefold() for text in texts} <= FLAGS
    ):
        return "flags"
    if all(parse_moment(cell) or parse_clock(str(cell)) is not None for cell in cells):
        return "dates"
    if all(_is_number(text) for text in texts):
        return "numbers"
    folded = {text.casefold() for text in texts}
    if folded <= ROLES.keys() and len({ROLES[text] for text in folded}) > 1:
        return "roles"
    if _are_ids(texts, distinct):
        return "ids"
    return "names" if _are_names(texts, distinct) else "texts"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _are_ids(texts: Sequence[str], distinct: int) -> bool:
    return distinct == len(texts) and all(
        len(text) >= MIN_ID_CHARACTERS
        and text.isascii()
        and " " not in text
        and any(map(str.isdigit, text))
        for text in texts
    )


def _are_names(texts: Sequence[str], distinct: int) -> bool:
    """Report whether texts are short, recur and are no sentences."""
    is_short = all(len(text) <= MAX_NAME_CHARACTERS for text in texts)
    sentences = sum(text.endswith(SENTENCE_ENDS) for text in texts)
    return (
        is_short
        and distinct < len(texts)
        and 2 * distinct <= len(texts) + 1
        and 3 * sentences <= len(texts)
    )


def _shorten(text: str) -> str:
    return (
        text if len(text) <= MAX_EXAMPLE_CHARACTERS else f"{text[: MAX_EXAMPLE_CHARACTERS - 2]} …"
    )


@dataclass(frozen=True)
class ColumnQuestion:
    """A table whose columns are not known: what they look like, and a `proposal` that a person has
    to confirm.

    `proposal` maps roles to columns; empty if nothing suggests itself. `has_header`: names are
    those of the file.
    """

    file: str
    columns: tuple[ColumnProfile, ...]
    proposal: Mapping[str, str] = field(default_factory=dict)
    has_header: bool = True

    @property
    def pairs(self) -> tuple[str, ...]:
        """The proposal as `role=column`; with placeholders if there is none."""
        if self.proposal:
            return tuple(f"{role}={column}" for role, column in self.proposal.items())
        return "speaker=COLUMN", "text=COLUMN", "time=COLUMN"

    def as_json(self) -> dict[str, Any]:
        """Return the published object."""
        columns = [column.as_json() for column in self.columns]
        return {"columns": columns, "proposal": dict(self.proposal), "has_header": self.has_header}


class UnclearColumnsError(MaterialError):
    """A table whose columns somebody has to name. The message names columns and kinds, but repeats
    no content.
    """

    def __init__(self, question: ColumnQuestion, mapped_by: str = "--map") -> None:
        shown = question.columns[:MAX_ASKED_COLUMNS]
        columns = ", ".join(f"{column.name} ({column.title})" for column in shown)
        more = len(question.columns) - len(shown)
        header = "" if question.has_header else " It has no header, so columns are numbered."
        pairs = " ".join(map(shlex.quote, question.pairs))
        super().__init__(
            f"{question.file} is a table in no known form, and it is not guessed which column "
            f"speaks.{header} "
            f"Columns: {columns}{f' and {more} more' if more > 0 else ''}.",
            f"Say which is which with {mapped_by}: {pairs}. For questions and answers: user=COLUMN "
            "assistant=COLUMN.",
        )
        self.question = question


def propose_mapping(columns: Sequence[ColumnProfile]) -> dict[str, str]:
    """Propose the roles of columns for a person to confirm; empty if there is no text.

    Content counts more than the name that a chat table's column has in some language; without a
    speaker, the two columns with the longest texts are question and answer.
    """
    proposal: dict[str, str] = {}
    for role, kinds in PROPOSED_KINDS.items():
        free = [
            column
            for column in columns
            if column.kind in kinds and column.name not in proposal.values()
        ]
        named = [column for column in free if role in chat_roles(column.name)]
        likely = kinds[:2] if role == "speaker" else kinds[:1]
        alike = [column for column in free if column.kind in likely]
        if role == "speaker":
            named, alike = (
                [column for column in group if column.distinct > 1] for group in (named, alike)
            )
        certain = [column for column in named if column in alike]
        if (
            best := certain
            or alike
            or named
            or (free if role == "text" and "speaker" in proposal else [])
        ):
            proposal[role] = _best(best, role).name
    if "speaker" in proposal and "text" in proposal:
        times = _propose_times(
            [column for column in columns if column.kind == "dates"], proposal.get("time", "")
        )
        return {"speaker": proposal["speaker"], "text": proposal["text"], **times}
    texts = sorted(
        (column for column in columns if column.kind == "texts"),
        key=lambda column: -column.characters,
    )
    pair = sorted(texts[:2], key=list(columns).index)
    return {"user": pair[0].name, "assistant": pair[1].name} if len(pair) == 2 else {}


def _propose_times(columns: Sequence[ColumnProfile], best: str) -> dict[str, str]:
    """Propose the column of times, or those of date and time of day."""
    clocks = [c.name for c in columns if all(parse_clock(text) is not None for text in c.examples)]
    days = [c.name for c in columns if c.name not in clocks]
    if (
        clocks
        and days
        and all(map(_is_day, next(c for c in columns if c.name == days[0]).examples))
    ):
        return {"date": days[0], "time": clocks[0]}
    time = best if best in days else next(iter(days), "")
    return {"time": time} if time else {}


def _is_day(text: str) -> bool:
    """Report whether a text is a date without a time of day."""
    moment = parse_moment(text)
    return moment is not None and not moment.seconds and (moment.exact or 0.0) % DAY_S == 0


def _best(columns: Sequence[ColumnProfile], role: str) -> ColumnProfile:
    """Return the longest text, the fewest names, or the first time."""
    if role == "text":
        return max(columns, key=lambda column: column.characters)
    if role == "speaker":
        return min(
            columns, key=lambda column: (column.kind not in ("roles", "names"), column.distinct)
        )
    return columns[0]
