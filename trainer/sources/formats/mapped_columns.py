"""Tables in no known form: describes their columns, and reads them as the operator maps them."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from personas.errors import MaterialError
from trainer.sources.column_profile import (
    ColumnProfile,
    list_columns,
    profile_column,
    profile_columns,
)
from trainer.sources.column_question import ColumnQuestion, UnclearColumnsError, propose_mapping
from trainer.sources.columns import (
    MAX_SHOWN_COLUMNS,
    ColumnRoles,
    Row,
    message_keys,
    parse_mapping,
    require_roles,
)
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.conversation_builder import RawDialogue
from trainer.sources.formats.chat_table import read_chat
from trainer.sources.formats.known_schemas import first_rows, row_arrays
from trainer.sources.formats.kto_rows import unclear_verdicts
from trainer.sources.formats.message_rows import (
    dialogue_from_messages,
    dialogue_from_texts,
    dialogue_from_transcript,
)
from trainer.sources.formats.qa_rows import dialogue_from_answer
from trainer.sources.formats.row_reader import read_records, read_rows
from trainer.sources.record_fields import cell_list
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

MAX_LIST_ITEMS = 8
"""Longer lists hold a talk rather than the parts of one message."""


def mapped_roles(peek: Peek, options: ReadOptions) -> ColumnRoles:
    """Return the roles that the operator assigns to columns.

    Raises `MaterialError` for an unknown role or column, and `UnclearColumnsError` without a
    mapping.
    """
    rows = first_rows(peek, options.mapping)
    if not options.mapping:
        unclear = unclear_verdicts(rows)
        if unclear:
            column, values = unclear
            raise MaterialError(
                f"{peek.name}: the column {column!r} has two values, {values[0]!r} and "
                f"{values[1]!r}, and it is not guessed which of the answers are good.",
                "Write 1 for answers to learn and 0 for the others; to learn all of them, rename "
                "the column, or name the columns: user=COLUMN assistant=COLUMN.",
            )
        raise UnclearColumnsError(ask_columns(peek), options.mapped_by)
    columns = parse_mapping(options.mapping)
    places = [place.name for place in list_items(rows)]
    present = {*list_columns(rows), *places}.union(*rows)
    missing = [column for column in columns.by_role.values() if column not in present]
    if missing:
        require_roles(options.mapping, present)
        shown = ", ".join(map(str, sorted(present)[:MAX_SHOWN_COLUMNS]))
        raise MaterialError(f"{peek.name} has no column {missing[0]!r}.", f"It has {shown}.")
    return columns


def ask_columns(peek: Peek) -> ColumnQuestion:
    """Describe the columns of an unknown table, those of messages in lists too, and propose their
    roles.
    """
    rows = first_rows(peek)
    columns: list[ColumnProfile] = []
    proposal: dict[str, str] = {}
    for column in profile_columns(rows):
        columns.append(column)
        messages = _messages_in(rows, column.name) if column.kind == "lists" else []
        if not messages:
            continue
        profiles = profile_columns(messages)
        columns += [replace(key, name=f"{column.name}[].{key.name}") for key in profiles]
        keys = propose_mapping(profiles)
        if not proposal and {"speaker", "text"} <= keys.keys():
            proposal = {"messages": column.name, "from": keys["speaker"], "value": keys["text"]}
    columns += list_items(rows)
    flat = [column for column in columns if "[]." not in column.name]
    proposal = propose_mapping(flat) or proposal
    numbers = tuple(map(str, range(1, len(peek.columns) + 1)))
    is_numbered = bool(peek.columns) and peek.columns == numbers
    return ColumnQuestion(peek.name, tuple(columns), proposal, has_header=not is_numbered)


def _messages_in(rows: Sequence[Row], column: str) -> list[Row]:
    """Return the objects in the lists of a column."""
    messages: list[Row] = []
    for row in rows:
        messages += [item for item in cell_list(row.get(column)) or () if isinstance(item, dict)]
    return messages


def list_items(rows: list[Row]) -> list[ColumnProfile]:
    """Describe the places in lists of texts of one length, as `["Mira", "Is there soup?"]` in each
    row.
    """
    profiles: list[ColumnProfile] = []
    for name in rows[0]:
        lists = list(filter(None, (cell_list(row.get(name)) for row in rows)))
        lengths = {len(cells) for cells in lists}
        if len(lists) < 2 or len(lengths) > 1 or not 1 < len(lists[0]) <= MAX_LIST_ITEMS:
            continue
        if any(isinstance(cell, dict | list) for cell in itertools.chain(*lists)):
            continue
        for number, column in enumerate(zip(*lists, strict=True), start=1):
            profiles.append(profile_column(f"{name}.{number}", column))
    return profiles


def _recognises_columns(peek: Peek) -> bool:
    """Report whether a file is a table with texts, or with lists of objects, that somebody could
    map.
    """
    if peek.kind == "JSON object" and not row_arrays(peek, {}):
        return False
    if peek.columns and not peek.records:
        return True
    columns = profile_columns(first_rows(peek))
    kinds = {column.kind for column in columns}
    if "lists" in kinds:
        return True
    return len(columns) > 1 and not kinds.isdisjoint({"texts", "names"})


def _read_columns(
    file: SourceFile, options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    peek = file.peek()
    if not options.mapping and peek.columns and not peek.records:
        # A table without rows, or whose first rows are all broken.
        return read_rows(file, options, None, None)
    columns = mapped_roles(peek, options)
    if {"speaker", "text"} <= columns.by_role.keys():
        return read_chat(lambda: read_records(file, options), file.name, columns.by_role, options)
    return read_rows(file, options, None, (_dialogue_parser(columns), columns))


def _dialogue_parser(columns: ColumnRoles) -> Callable[[Row, ColumnRoles], RawDialogue]:
    roles = columns.by_role
    if "messages" in roles:
        return dialogue_from_messages if columns.from_key else _dialogue_from_list
    if "transcript" in roles:
        return dialogue_from_transcript
    if "assistant" in roles and ("user" in roles or "history" in roles):
        return dialogue_from_answer
    raise MaterialError(
        "No column has the role of the answers.",
        "Name speaker and text, user and assistant, messages, or transcript.",
    )


def _dialogue_from_list(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build a dialogue from a list named by the operator: messages under any known keys, or
    alternating texts.
    """
    keys = message_keys(cell_list(columns.get(row, "messages")) or [])
    if keys is None:
        return dialogue_from_texts(row, columns)
    roles = ColumnRoles(columns.by_role, from_key=keys[0], value_key=keys[1])
    return dialogue_from_messages(row, roles)


COLUMNS_FORMAT = SourceFormat(
    "columns",
    "Mapped columns",
    "any other table with texts, or with lists of messages: --map says which column is what",
    matches=_recognises_columns,
    read=_read_columns,
)
