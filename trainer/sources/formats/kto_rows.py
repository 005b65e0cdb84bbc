"""Row schema of single answers with a verdict each: desirable or not (KTO, as TRL and LLaMA-Factory
store it).
"""

import itertools
from collections.abc import Sequence
from typing import Any

from trainer.sources.columns import (
    ColumnRoles,
    Row,
    RowSchema,
    column_roles,
    message_keys,
)
from trainer.sources.conversation_builder import RawDialogue
from trainer.sources.formats.message_rows import dialogue_from_messages
from trainer.sources.formats.qa_rows import answer_columns, dialogue_from_answer
from trainer.sources.header_names import normalise_column
from trainer.sources.record_fields import UnusableRecordError, cell_list
from trainer.sources.verdicts import FLAGS_OF_BAD, VERDICT_COLUMNS, VERDICTS, verdict_word

MIN_ASKED_VALUES = 4
"""Fewer rows may have two values by chance."""
MAX_VERDICT_CHARS = 24
UNDESIRABLE = "marked as undesirable"


def _verdict(name: str, value: Any) -> bool | None:
    if not isinstance(value, bool | int | float | str):
        return None
    verdict = VERDICTS.get(verdict_word(value))
    if verdict is not None and normalise_column(name) in FLAGS_OF_BAD:
        return not verdict
    return verdict


def _verdict_columns(row: Row) -> list[str]:
    names = (name for name in row if isinstance(name, str))
    return [name for name in names if normalise_column(name) in VERDICT_COLUMNS]


def are_verdicts(rows: Sequence[Row]) -> bool:
    """Report whether the marks of all rows are verdicts: a `label` of 0, 1 and 2 is a class."""
    for name in dict.fromkeys(filter(None, map(_verdict_column, rows))):
        for row in rows:
            if row.get(name) not in (None, "") and _verdict(name, row[name]) is None:
                return False
    return True


def unclear_verdicts(rows: Sequence[Row]) -> tuple[str, list[str]] | None:
    """Return a column of marks with two values that are no known verdicts, and these; None if there
    is none.
    """
    columns = dict.fromkeys(itertools.chain.from_iterable(map(_verdict_columns, rows)))
    for name in columns:
        cells = [row[name] for row in rows if row.get(name) not in (None, "")]
        values = list(dict.fromkeys(str(cell).strip() for cell in cells))
        is_short = all(len(value) <= MAX_VERDICT_CHARS for value in values)
        is_unknown = any(_verdict(name, value) is None for value in values)
        if len(values) == 2 and len(cells) >= MIN_ASKED_VALUES and is_short and is_unknown:
            return name, values
    return None


def _verdict_column(row: Row) -> str | None:
    for name in _verdict_columns(row):
        if _verdict(name, row[name]) is not None:
            return name
    return None


def _plan_verdict(row: Row) -> ColumnRoles | None:
    verdict = _verdict_column(row)
    if verdict is None:
        return None
    # Without its own column: `label` would be taken for the answer.
    others = {name: cell for name, cell in row.items() if name != verdict}
    by_role = answer_columns(others)
    if by_role:
        return ColumnRoles({**by_role, "verdict": verdict})
    for name in ("messages", "conversations"):
        messages = cell_list(others.get(name)) if name in others else None
        keys = message_keys(messages) if messages else None
        if keys:
            return column_roles(keys, messages=name, verdict=verdict)
    return None


def _dialogue_from_verdict(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build a dialogue from a desirable answer. Raises `UnusableRecordError` for any other."""
    verdict = _verdict(columns.by_role["verdict"], columns.get(row, "verdict"))
    if verdict is None:
        raise UnusableRecordError(
            f"{columns.by_role['verdict']}: a verdict was expected, such as true or false"
        )
    if not verdict:
        raise UnusableRecordError(UNDESIRABLE)
    if columns.from_key:
        return dialogue_from_messages(row, columns)
    name = columns.by_role["assistant"]
    answer = [row[name]] if isinstance(row.get(name), dict) else row.get(name)
    return dialogue_from_answer({**row, name: answer}, columns)


KTO_ROW = '{"prompt", "completion", "label": true}, or {"context": […], "answer": {"role", "content"}, "is_desirable"}'
KTO_SCHEMAS = (
    RowSchema(
        "kto",
        "Answers marked as desirable or not",
        KTO_ROW,
        plan=_plan_verdict,
        parse=_dialogue_from_verdict,
    ),
)
