"""Parses chat log records and splits them into sessions; applies edits and deletions, drops bots and commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.markup import is_command
from trainer.sources.source_file import Record
from trainer.sources.source_format import ReadOptions
from trainer.sources.speakers import Author, ConsentFilter, LogMessage, SpeakerDirectory, count_records

SYSTEM, BOT, COMMAND, NO_TEXT = "system message", "another bot", "command", "no text"
ATTACHMENT, EMBED, STICKER, FORWARDED = "only an attachment", "only an embed", "only a sticker", "forwarded message"
DELETED, DELETION, EDITED = "deleted", "says that another was deleted", "edited later"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A message record of a chat log.

    `at` is in seconds since 1970, `text` is normalised (see `markup`), `reply_to` is the id of another message in the
    same `channel`. `dropped` is the reason why the message cannot be used, `empty` the reason why it has no text.
    `deletes` is the id of a message that this record deletes. An empty `row` marks a placeholder for a missing message.
    """

    row: str
    at: float
    author: Author
    text: str
    id: str = ""
    reply_to: str = ""
    channel: str = ""
    dropped: str = ""
    empty: str = NO_TEXT
    deletes: str = ""


def build_sessions(
    entries: Iterable[LogEntry | RejectedRecord], name: str, options: ReadOptions, *, has_edits: bool = False
) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of a log, in order. `name` is the file's name.

    With `has_edits`, an entry replaces an earlier one with the same id in its channel. Of material that came through
    Discord's API, only messages of opted-in members and the persona's replies to them are used. Raises `MaterialError`
    after the last record if `options` name a persona that never speaks.
    """
    log, broken, records = _Log(SpeakerDirectory(options), has_edits), list[RejectedRecord](), 0
    for records, entry in enumerate(entries, start=1):  # noqa: B007  (how many there were is asked afterwards)
        if isinstance(entry, RejectedRecord):
            broken = broken or [entry]
            yield entry
        else:
            yield from log.add(entry)
    absent = log.cast.absent_persona(name, records, broken)
    door = ConsentFilter(options, log.cast.plays)
    unheard = log.cast.unheard(door.allows)
    for session in log.sessions(options.session_gap_s):
        if absent:
            yield RejectedRecord(session[0].row, absent.message, count_records(session))
            continue
        session, left_out = door.filter_session(session)
        yield from left_out
        if session:
            yield log.cast.conversation(session, options.source or name, options, unheard)
            unheard = ()  # once is enough: all are met before anybody's name is replaced
    if absent:
        raise absent


@dataclass
class _Channel:
    """`places` are positions in `said` by message id if messages can be edited; `replied_to` are message ids."""

    said: list[LogMessage | None] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    replied_to: set[str] = field(default_factory=set)


class _Log:
    """Messages by channel, with edits and deletions applied."""

    def __init__(self, cast: SpeakerDirectory, has_edits: bool) -> None:
        self.cast, self._has_edits = cast, has_edits
        self._channels: dict[str, _Channel] = {}

    def add(self, entry: LogEntry) -> Iterator[RejectedRecord]:
        """Add a record; yield the records that it causes to be dropped."""
        channel = self._channels.setdefault(entry.channel, _Channel())
        if entry.deletes:
            if gone := self._taken_out(channel, entry.deletes):
                yield RejectedRecord(gone.row, DELETED)
            yield RejectedRecord(entry.row, DELETION)
            return
        earlier = self._taken_out(channel, entry.id) if self._has_edits else None
        if earlier:
            yield RejectedRecord(earlier.row, EDITED)
        if reason := self._reason(entry):
            yield RejectedRecord(entry.row, reason)
            return
        self.cast.heard(entry.author)
        at, reply_to = (earlier.at, earlier.reply_to) if earlier else (entry.at, entry.reply_to)
        if reply_to:
            channel.replied_to.add(reply_to)
        if self._has_edits:
            channel.places[entry.id] = len(channel.said)
        channel.said.append(LogMessage(entry.row, at, entry.author, entry.text, entry.id, reply_to))

    def sessions(self, gap_s: float) -> Iterator[list[LogMessage]]:
        """Yield the sessions of each channel in chronological order, stable for equal times."""
        for channel in self._channels.values():
            said = sorted(filter(None, channel.said), key=lambda one: one.at)
            channel.said.clear()
            yield from _split_sessions(said, channel.replied_to, gap_s)

    def _taken_out(self, channel: _Channel, id: str) -> LogMessage | None:
        place = channel.places.pop(id, None)
        if place is None:
            return None
        said, channel.said[place] = channel.said[place], None
        return said

    def _reason(self, entry: LogEntry) -> str:
        if entry.dropped:
            return entry.dropped
        if entry.author.is_bot and not self.cast.is_persona(entry.author):
            return BOT
        if not entry.text:
            return entry.empty
        return COMMAND if is_command(entry.text) else ""


def _split_sessions(entries: list[LogMessage], replied_to: set[str], gap_s: float) -> Iterator[list[LogMessage]]:
    sessions: list[list[LogMessage]] = []
    session_of: dict[str, int] = {}
    current, last_at = -1, 0.0
    for entry in entries:
        linked = session_of.get(entry.reply_to) if entry.reply_to else None
        if linked is not None:
            current = linked
        elif current < 0 or entry.at - last_at > gap_s:
            current = len(sessions)
            sessions.append([])
        sessions[current].append(entry)
        last_at = entry.at
        if entry.id in replied_to:
            session_of[entry.id] = current
    yield from sessions


class FieldError(ValueError):
    """Raised for a record that lacks a required field; the text names the field."""


def parse_entries(
    records: Iterable[Record | RejectedRecord], parse: Callable[[str, dict[str, Any]], LogEntry]
) -> Iterator[LogEntry | RejectedRecord]:
    """Parse each record, or reject it with the reason."""
    for record in records:
        if isinstance(record, RejectedRecord):
            yield record
            continue
        row, values = record
        try:
            yield parse(row, values)
        except FieldError as error:
            yield RejectedRecord(row, str(error))


def text_field(record: Mapping[str, Any], key: str) -> str:
    """Return a required text; numbers, as ids sometimes are, are converted."""
    value = record.get(key)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise FieldError(f"{key}: " + ("missing" if key not in record else "a text was expected"))


def optional_text(record: Mapping[str, Any], key: str) -> str:
    """Return a text; empty if missing or null."""
    return text_field(record, key) if record.get(key) is not None else ""


def object_field(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return an object; empty if missing or null."""
    value = record.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FieldError(f"{key}: an object was expected")
    return value


def object_list(record: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of objects; empty if missing or null."""
    value = record.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def timestamp_field(record: Mapping[str, Any], key: str) -> float:
    """Return an ISO 8601 timestamp in seconds since 1970; without a time zone it is UTC."""
    written = text_field(record, key)
    try:
        at = datetime.fromisoformat(written.strip())
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise FieldError(f"{key}: {written[:40]!r} is no date and time") from None


def epoch_seconds(record: Mapping[str, Any], key: str, per_second: float = 1.0) -> float:
    """Convert a number, or a text with one, to seconds since 1970; `per_second` units make a second."""
    try:
        at = float(text_field(record, key)) if not isinstance(record.get(key), float) else float(record[key])
    except ValueError:
        raise FieldError(f"{key}: a number was expected") from None
    if not abs(at) < 1e17:
        raise FieldError(f"{key}: {at} is no time")
    return at / per_second
