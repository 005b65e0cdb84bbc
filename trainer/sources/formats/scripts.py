"""Scripts: lines of several characters, in a text or in a table with one line in each row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personas.schemas.chat import fold_name
from trainer.sources.column_profile import cell_at
from trainer.sources.columns import CHARACTER_COLUMNS, Row, find_column, find_filled_column
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.conversation_builder import (
    ASSISTANT,
    NAME_LINE,
    ROLES,
    RawDialogue,
    build_conversation,
    is_character,
    list_characters,
)
from trainer.sources.formats.text_lists import (
    LINE_COLUMNS,
    LIST_MARK,
    SCENE_BREAK,
    clean_line,
    line_names,
    read_texts,
)
from trainer.sources.header_names import chat_roles
from trainer.sources.message_order import is_number_key, parse_numbers
from trainer.sources.record_fields import cell_text
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

SceneLine = tuple[str, str, str]
"""Place, name and text of a line."""


@dataclass(frozen=True, slots=True)
class PlacedLine:
    """A line of a table with its conversation, None without such a column, and its number in
    there.
    """

    line: SceneLine
    conversation: str | None
    number: str

    @classmethod
    def from_row(
        cls, line: SceneLine, row: Mapping[str, Any], columns: Mapping[str, str]
    ) -> PlacedLine:
        """Place the line of a row by the columns of conversation and order, if there are any.

        Raises `UnusableRecordError` for a conversation that is no text.
        """
        conversation = conversation_of(row, columns)
        number = ""
        if conversation is not None and "order" in columns:
            number = str(cell_at(row, columns["order"]))
        return cls(line, conversation, number)


QUESTION_AND_ANSWER = {"q": "user", "a": "assistant"}
MAX_SCENE_TURNS = 24
"""A script without marks of its scenes is cut into conversations of this many turns."""


def script_columns(peek: Peek) -> dict[str, str]:
    """Return the columns of a table with one line of a script in each row, by role; empty for
    anything else.

    They are `speaker` and `text`, perhaps `conversation`, and then perhaps `order`.
    """
    first = peek.records[0] if peek.records else {}
    name = find_filled_column(first, ("speaker", *CHARACTER_COLUMNS))
    line = find_filled_column(first, LINE_COLUMNS)
    if not name or not line or find_column(first, "assistant"):
        return {}
    names = [row.get(name) for row in peek.records]
    is_recurring = 1 < len({*map(str, names)}) <= (len(names) + 1) / 2
    is_text = all(isinstance(row.get(line), str) for row in peek.records)
    if not is_recurring or not is_text or not any(map(is_character, names)):
        return {}
    scene = _scene_columns(peek.records, taken=(name, line))
    return {"speaker": name, "text": line, **scene}


def _scene_columns(rows: Sequence[Row], taken: Sequence[str]) -> dict[str, str]:
    """Return the column that says to which conversation a row belongs, and that of its place in
    there.
    """
    columns = [column for column in rows[0] if isinstance(column, str) and column not in taken]
    named = [column for column in columns if "conversation" in chat_roles(column)]
    ids = [column for column in named if _recurs(rows, column)]
    if len(ids) != 1:
        return {}
    order = next((column for column in columns if is_number_key(column)), None)
    return {"conversation": ids[0], "order": order} if order else {"conversation": ids[0]}


def _recurs(rows: Sequence[Row], column: str) -> bool:
    cells = [row.get(column) for row in rows]
    is_plain = all(isinstance(cell, str | int | float) for cell in cells)
    return is_plain and any(map(str, cells)) and len({*map(str, cells)}) < len(cells)


def _read_script(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield conversations of the lines of several characters, up to a break between scenes or 24
    turns.
    """
    columns = script_columns(file.peek())
    if columns:
        yield from build_scenes(_table_lines(file, columns), options)
        return
    lines: list[SceneLine] = []
    for item in _text_lines(file):
        if isinstance(item, RejectedRecord):
            yield item
        elif item:
            lines.append(item)
        if lines and (item is None or len(lines) >= MAX_SCENE_TURNS):
            yield build_scene(lines, options)
            lines = []
    if lines:
        yield build_scene(lines, options)


def _table_lines(
    file: SourceFile, columns: Mapping[str, str]
) -> Iterator[PlacedLine | RejectedRecord]:
    for record in file.records():
        if isinstance(record, RejectedRecord):
            yield record
            continue
        place, row = record
        label = row.get(columns["speaker"])
        text = row.get(columns["text"])
        if isinstance(label, str) and isinstance(text, str):
            yield PlacedLine.from_row((place, label.strip(), text), row, columns)
        else:
            yield RejectedRecord(place, "no name or no line")


def conversation_of(row: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """Return the conversation of a row; None without such a column. Raises `UnusableRecordError`
    for one that is no text.
    """
    if "conversation" not in columns:
        return None
    return cell_text(cell_at(row, columns["conversation"]))


def build_scenes(
    items: Iterable[PlacedLine | RejectedRecord], options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    """Yield the conversations of a table's lines.

    All lines of a conversation belong together, wherever they are, by their numbers if all of them
    have different ones; lines without a conversation are cut into scenes of at most
    `MAX_SCENE_TURNS`. A system text begins a scene.
    """
    conversations: dict[str, list[PlacedLine]] = {}
    lines: list[SceneLine] = []
    for item in items:
        if isinstance(item, RejectedRecord):
            yield item
        elif item.conversation is not None:
            conversations.setdefault(item.conversation, []).append(item)
        else:
            if lines and (is_system_line(item.line) or len(lines) >= MAX_SCENE_TURNS):
                yield build_scene(lines, options)
                lines = []
            lines.append(item.line)
    if lines:
        yield build_scene(lines, options)
    for placed in conversations.values():
        numbers = parse_numbers([item.number for item in placed])
        if numbers:
            order = sorted(range(len(placed)), key=numbers.__getitem__)
            placed = [placed[index] for index in order]
        yield from _split_at_systems([item.line for item in placed], options)


def _split_at_systems(
    lines: list[SceneLine], options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    start = 0
    for number, line in enumerate(lines):
        if number and is_system_line(line):
            yield build_scene(lines[start:number], options)
            start = number
    yield build_scene(lines[start:], options)


def is_system_line(line: SceneLine) -> bool:
    """Report whether a line is a system text."""
    return ROLES.get(line[1].casefold(), ()) is None


def _text_lines(file: SourceFile) -> Iterator[tuple[str, str, str] | RejectedRecord | None]:
    """Yield place, name and text of each line; a line without a name continues the last one. None
    is a break.
    """
    name = ""
    for item in read_texts(file):
        if isinstance(item, RejectedRecord):
            yield item
        elif SCENE_BREAK.match(item[2]):
            yield None
        else:
            place, _, text = item
            match = NAME_LINE.match(LIST_MARK.sub("", text))
            if match:
                name = match[1].strip()
                text = match[2]
            if name:
                yield place, name, text
            else:
                yield RejectedRecord(place, "no name before it")


def build_scene(
    lines: Sequence[SceneLine], options: ReadOptions, rows: int | None = None
) -> Conversation | RejectedRecord:
    """Build the conversation of a scene's lines. `rows` counts those that no other scene has (by
    default all).
    """
    labels = [QUESTION_AND_ANSWER.get(fold_name(name), name) for _, name, _ in lines]
    dialogue = RawDialogue(labels, [clean_line(text) for _, _, text in lines])
    if not any(ROLES.get(fold_name(label)) is ASSISTANT for label in labels):
        dialogue.roles = list_characters(labels)
    row = lines[0][0]
    return build_conversation(dialogue, row, options, rows=len(lines) if rows is None else rows)


SCRIPT_FORMAT = SourceFormat(
    "script",
    "Script",
    "lines such as NAME: text of several characters, or a table with a column of names and one of "
    "lines",
    matches=lambda peek: len(line_names(peek)) > 1 or bool(script_columns(peek)),
    read=_read_script,
)
