"""Chats with one message in each row of a table: a column of speakers, one of texts, perhaps times.

Such a table is read without a question only if names of columns and their content agree
(`recognise_chat`); otherwise somebody maps its columns. With times it is a chat log between people,
without it lines of characters.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.sources.column_profile import ColumnProfile, cell_at
from trainer.sources.columns import side_of_flag
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.conversation_builder import ROLES
from trainer.sources.dates import (
    DateOrder,
    DateOrderDetector,
    WrittenTime,
    parse_clock,
    parse_moment,
)
from trainer.sources.formats.matrix_events import PLATFORM, is_event, parse_event
from trainer.sources.formats.scripts import (
    MAX_SCENE_TURNS,
    PlacedLine,
    SceneLine,
    build_scene,
    build_scenes,
    conversation_of,
    is_system_line,
)
from trainer.sources.header_names import chat_roles
from trainer.sources.markup import tidy_text
from trainer.sources.message_order import is_number_key
from trainer.sources.message_types import Records, texts_only
from trainer.sources.record_fields import UnusableRecordError, cell_text
from trainer.sources.sessionise import LogEntry, build_sessions, parse_entries, sort_by_time
from trainer.sources.source_file import Record
from trainer.sources.source_format import ReadOptions
from trainer.sources.speakers import make_author

MAX_SPEAKER_CHARACTERS = 32
MIN_RECURRING_ROWS = 4
"""In shorter tables, names need not recur if they are short."""
ChatColumns = Mapping[str, str]
"""The column of each of `CHAT_COLUMNS`; speaker and text are always there."""
EXPECTED = (
    "a table with columns of speakers, texts and times, one message in each row; --map names other "
    "columns"
)


def recognise_chat(columns: Sequence[ColumnProfile]) -> ChatColumns | None:
    """Return the columns of a chat if their names say so and the content agrees; None if there is
    any doubt.

    There has to be one column that may be each, and no other column of texts. Speakers are names
    that recur, roles of which one is the assistant's, or a flag such as `is_bot`. Names without
    times may be authors of anything: that is left to a person.
    """
    texts = [c for c in columns if "text" in chat_roles(c.name) and c.kind in ("texts", "names")]
    speakers = [c for c in columns if _may_be_speaker(c) and c not in texts]
    speakers = [c for c in speakers if c.kind in ("roles", "flags")] or speakers
    if len(texts) != 1 or len(speakers) != 1:
        return None
    text = texts[0]
    speaker = speakers[0]
    other_texts = [c for c in columns if c.kind == "texts" and c not in (text, speaker)]
    # Speakers recur: there are never more of them than texts.
    if other_texts or (speaker.kind != "flags" and speaker.distinct > text.distinct):
        return None
    times = _time_columns(columns)
    if not times and speaker.kind not in ("roles", "flags"):
        return None
    conversation = _conversation(columns)
    order = _order(columns) if conversation and not times else {}
    return {"speaker": speaker.name, "text": text.name, **times, **conversation, **order}


def _may_be_speaker(column: ColumnProfile) -> bool:
    if side_of_flag(column.name, True):
        return column.kind == "flags"
    if "speaker" not in chat_roles(column.name):
        return column.kind == "roles"
    if column.distinct < 2:
        return False
    if column.kind in ("names", "roles"):
        return True
    is_short = column.characters <= MAX_SPEAKER_CHARACTERS
    return column.kind == "texts" and is_short and column.filled < MIN_RECURRING_ROWS


def _time_columns(columns: Sequence[ColumnProfile]) -> dict[str, str]:
    """Return the column of times, or those of date and time of day."""
    times = [c for c in columns if "time" in chat_roles(c.name) and c.kind == "dates"]
    if len(times) == 1:
        return {"time": times[0].name} if all(map(parse_moment, times[0].examples)) else {}
    clocks = [c for c in times if all(parse_clock(text) is not None for text in c.examples)]
    days = [c for c in times if c not in clocks]
    if len(clocks) == 1 and len(days) == 1:
        return {"date": days[0].name, "time": clocks[0].name}
    return {}


def _conversation(columns: Sequence[ColumnProfile]) -> dict[str, str]:
    plain = [c for c in columns if c.kind not in ("lists", "objects", "empty")]
    ids = [c for c in plain if "conversation" in chat_roles(c.name)]
    return {"conversation": ids[0].name} if len(ids) == 1 else {}


def _order(columns: Sequence[ColumnProfile]) -> dict[str, str]:
    """Return the column of numbers that order the rows of a conversation without times."""
    # Turns of two are numbered 0 and 1, which looks like flags.
    plain = [c for c in columns if c.kind in ("numbers", "ids", "flags", "names")]
    numbers = [c for c in plain if is_number_key(c.name)]
    return {"order": numbers[0].name} if numbers else {}


def read_chat(
    records: Records, name: str, columns: ChatColumns, options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of a chat with times, or scenes of its lines. `records` opens the rows,
    `name` is the file's.

    Lines whose speakers are roles are the assistant's and the user's, with or without times.
    """
    records = texts_only(records)
    has_times = "time" in columns or "date" in columns
    if has_times and _has_roles(records, columns):
        return _timed_scenes(records, columns, options)
    if has_times:
        order = _detect_order(records, columns)
        entries = parse_entries(records(), lambda row, cells: _entry(row, cells, columns, order))
        room = _room_id(records)
        platform = PLATFORM if room else ""
        return build_sessions(entries, name, options, platform=platform, channel=room)
    return build_scenes(_placed_lines(records, columns), options)


def _room_id(records: Records) -> str:
    """Return the room that the first row, an event of Matrix, is in; empty for anything else."""
    first = next(records(), None)
    if isinstance(first, tuple) and is_event(first[1]):
        return str(first[1].get("room_id") or "")
    return ""


def _has_roles(records: Records, columns: ChatColumns) -> bool:
    """Report whether all speakers among the first rows are roles, or flags that stand for them."""
    labels = []
    for record in records():
        if not isinstance(record, RejectedRecord):
            labels.append(_label(record[1], columns["speaker"]).casefold())
        if len(labels) >= MAX_SCENE_TURNS:
            break
    return bool(labels) and set(labels) <= ROLES.keys()


def _label(row: Mapping[str, Any], column: str) -> str:
    value = cell_at(row, column)
    return side_of_flag(column, value) or cell_text(value).strip()


def _detect_order(records: Records, columns: ChatColumns) -> DateOrder:
    detector = DateOrderDetector()
    for record in records():
        stamp = None if isinstance(record, RejectedRecord) else _stamp(record[1], columns)
        if stamp:
            detector.add(stamp)
    return detector.order


def _stamp(row: Mapping[str, Any], columns: ChatColumns) -> WrittenTime | None:
    if "date" not in columns:
        return parse_moment(cell_at(row, columns["time"]))
    day = parse_moment(cell_at(row, columns["date"]))
    clock = parse_clock(str(cell_at(row, columns["time"]))) if "time" in columns else 0
    if day is None or clock is None:
        return None
    exact = None if day.exact is None else day.exact + clock
    return WrittenTime(day.numbers, day.seconds + clock, exact=exact)


def _time(cells: Mapping[str, Any], columns: ChatColumns, order: DateOrder) -> float:
    """Return a row's time in seconds since 1970. Raises `UnusableRecordError`."""
    stamp = _stamp(cells, columns)
    at = stamp.at(order) if stamp else None
    if at is None:
        column = columns.get("time") or columns["date"]
        raise UnusableRecordError(
            f"{column}: {str(cell_at(cells, column))[:40]!r} is not a date and time"
        )
    return at


def _entry(row: str, cells: Mapping[str, Any], columns: ChatColumns, order: DateOrder) -> LogEntry:
    at = _time(cells, columns, order)
    speaker = _label(cells, columns["speaker"])
    if is_event(cells):
        return parse_event(
            row, cells, at, name=speaker, channel=conversation_of(cells, columns) or ""
        )
    if not speaker:
        raise UnusableRecordError(f"{columns['speaker']}: names no speaker")
    text = tidy_text(cell_text(cell_at(cells, columns["text"])))
    channel = conversation_of(cells, columns) or ""
    return LogEntry(row, at, make_author("", (speaker,)), text, channel=channel)


def _timed_scenes(
    records: Records, columns: ChatColumns, options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of each conversation between roles, by time, as chats between people are
    divided.
    """
    order = _detect_order(records, columns)
    conversations: dict[str, list[tuple[float, SceneLine]]] = {}
    for record in records():
        if isinstance(record, RejectedRecord):
            yield record
            continue
        try:
            line = _line(record, columns)
            conversation = conversation_of(record[1], columns) or ""
            at = _time(record[1], columns, order)
        except UnusableRecordError as error:
            yield RejectedRecord(record[0], str(error))
            continue
        conversations.setdefault(conversation, []).append((at, line))
    for lines in conversations.values():
        yield from _sessions(sort_by_time(lines, lambda item: item[0]), options)


def _sessions(
    lines: list[tuple[float, SceneLine]], options: ReadOptions
) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of lines in order; a system text holds for all of them up to the next
    one.
    """
    system: list[SceneLine] = []
    talk: list[SceneLine] = []
    new_systems = 0
    last_at = 0.0
    for at, line in lines:
        is_system = is_system_line(line)
        if talk and (is_system or at - last_at > options.session_gap_s):
            yield build_scene([*system, *talk], options, new_systems + len(talk))
            talk = []
            new_systems = 0
        if is_system:
            system = [*(system if new_systems else ()), line]
            new_systems += 1
        else:
            talk.append(line)
        last_at = at
    if talk or new_systems:
        yield build_scene([*system, *talk], options, new_systems + len(talk))


def _placed_lines(records: Records, columns: ChatColumns) -> Iterator[PlacedLine | RejectedRecord]:
    for record in records():
        if isinstance(record, RejectedRecord):
            yield record
            continue
        try:
            yield PlacedLine.from_row(_line(record, columns), record[1], columns)
        except UnusableRecordError as error:
            yield RejectedRecord(record[0], str(error))


def _line(record: Record, columns: ChatColumns) -> SceneLine:
    """Return a row's line. Raises `UnusableRecordError`."""
    place, row = record
    label = _label(row, columns["speaker"])
    text = cell_text(cell_at(row, columns["text"]))
    if not label:
        raise UnusableRecordError(f"{columns['speaker']}: names no speaker")
    if not text.strip():
        raise UnusableRecordError("no text")
    return place, label, text
