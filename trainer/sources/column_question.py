"""Asks which columns of an unknown table are which, with a proposal that a person has to confirm."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from personas.errors import MaterialError
from trainer.sources.column_profile import ColumnKind, ColumnProfile
from trainer.sources.dates import DAY_S, parse_clock, parse_moment
from trainer.sources.header_names import chat_roles

MAX_ASKED_COLUMNS = 24
PROPOSED_KINDS: dict[str, tuple[ColumnKind, ...]] = {
    "time": ("dates",),
    "speaker": ("roles", "names", "texts", "ids", "numbers", "flags"),
    "text": ("texts", "names"),
}
"""What the column of each role may look like, likeliest first."""


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
        if more > 0:
            columns += f" and {more} more"
        header = "" if question.has_header else " It has no header, so columns are numbered."
        # Quoted for the shell, because people paste it behind --map.
        pairs = " ".join(map(shlex.quote, question.pairs))
        super().__init__(
            f"{question.file} is a table in no known form, and it is not guessed which column "
            f"speaks.{header} Columns: {columns}.",
            f"Say which is which with {mapped_by}: {pairs}. For questions and answers: user=COLUMN "
            "assistant=COLUMN.",
        )
        self.question = question


def propose_mapping(columns: Sequence[ColumnProfile]) -> dict[str, str]:
    """Propose the roles of columns for a person to confirm; empty if there is no text.

    Content counts more than the name that a chat table's column has in some language; without a
    speaker, two columns of texts are question and answer.
    """
    proposal: dict[str, str] = {}
    for role in PROPOSED_KINDS:
        candidates = _candidates(role, columns, proposal)
        if candidates:
            proposal[role] = _best(candidates, role).name
    if "speaker" in proposal and "text" in proposal:
        dates = [column for column in columns if column.kind == "dates"]
        times = _propose_times(dates, proposal.get("time", ""))
        return {"speaker": proposal["speaker"], "text": proposal["text"], **times}
    texts = [column for column in columns if column.kind == "texts"]
    if len(texts) != 2:
        return {}  # of three, two may be answers to one question
    # Questions usually stand before their answers.
    return {"user": texts[0].name, "assistant": texts[1].name}


def _candidates(
    role: str, columns: Sequence[ColumnProfile], proposal: Mapping[str, str]
) -> list[ColumnProfile]:
    """Return the columns that may have a role: those that content and name agree on, else those of
    likely content, else those of a likely name.
    """
    kinds = PROPOSED_KINDS[role]
    taken = proposal.values()
    free = [column for column in columns if column.kind in kinds and column.name not in taken]
    likely = kinds[:2] if role == "speaker" else kinds[:1]
    alike = [column for column in free if column.kind in likely]
    named = [column for column in free if role in chat_roles(column.name)]
    if role == "speaker":
        # A chat has two speakers at least.
        alike = [column for column in alike if column.distinct > 1]
        named = [column for column in named if column.distinct > 1]
    certain = [column for column in named if column in alike]
    if certain or alike or named:
        return certain or alike or named
    return free if role == "text" and "speaker" in proposal else []


def _best(columns: Sequence[ColumnProfile], role: str) -> ColumnProfile:
    """Return the longest text, the fewest names, or the first time."""
    if role == "text":
        return max(columns, key=lambda column: column.characters)
    if role == "speaker":
        return min(
            columns, key=lambda column: (column.kind not in ("roles", "names"), column.distinct)
        )
    return columns[0]


def _propose_times(columns: Sequence[ColumnProfile], best: str) -> dict[str, str]:
    """Propose the column of times, or those of date and time of day."""
    clocks = [column.name for column in columns if _are_clocks(column.examples)]
    days = [column for column in columns if column.name not in clocks]
    if clocks and days and all(map(_is_day, days[0].examples)):
        return {"date": days[0].name, "time": clocks[0]}
    names = [column.name for column in days]
    time = best if best in names else next(iter(names), "")
    return {"time": time} if time else {}


def _are_clocks(examples: Sequence[str]) -> bool:
    return all(parse_clock(text) is not None for text in examples)


def _is_day(text: str) -> bool:
    """Report whether a text is a date without a time of day."""
    moment = parse_moment(text)
    return moment is not None and not moment.seconds and (moment.exact or 0.0) % DAY_S == 0
