"""Parses chat log records and splits them into sessions; applies edits and deletions, drops bots
and commands.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from personas.errors import MaterialError
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.markup import is_command
from trainer.sources.record_fields import UnusableRecordError
from trainer.sources.source_file import Record, SourceFile
from trainer.sources.source_format import ReadOptions
from trainer.sources.speakers import (
    Author,
    ConsentFilter,
    LogMessage,
    SpeakerDirectory,
    count_records,
)

Item = TypeVar("Item")
SYSTEM = "system message"
BOT = "another bot"
COMMAND = "command"
NO_TEXT = "no text"
ATTACHMENT = "only an attachment"
EMBED = "only an embed"
STICKER = "only a sticker"
FORWARDED = "forwarded message"
DELETED = "deleted"
DELETION = "says that another was deleted"
EDITED = "edited later"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A message record of a chat log.

    `at` is in seconds since 1970, `text` is normalised (see `markup`), `reply_to` is the id of
    another message in the same `channel`. `dropped` is the reason why the message cannot be used,
    `empty` the reason why it has no text. `deletes` is the id of a message that this record
    deletes. An empty `row` marks a placeholder for a missing message.
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
    entries: Iterable[LogEntry | RejectedRecord],
    name: str,
    options: ReadOptions,
    *,
    has_edits: bool = False,
) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of a log, in order. `name` is the file's name.

    With `has_edits`, an entry replaces an earlier one with the same id in its channel. Of material
    that came through Discord's API, only messages of opted-in members and the persona's replies to
    them are used. Raises `MaterialError` after the last record if `options` name a persona that
    never speaks.
    """
    log = _Log(SpeakerDirectory(options), has_edits)
    broken = list[RejectedRecord]()
    records = 0
    for records, entry in enumerate(entries, start=1):  # noqa: B007  (used after the loop)
        if isinstance(entry, RejectedRecord):
            broken = broken or [entry]
            yield entry
        else:
            yield from log.add(entry)
    absent = log.speakers.absent_persona(name, records, broken)
    consent = ConsentFilter(options, log.speakers.plays)
    unheard = log.speakers.unheard(consent.allows)
    for channel, session in log.sessions(options.session_gap_s):
        if absent:
            yield RejectedRecord(session[0].row, absent.message, count_records(session))
            continue
        session, rejected = consent.filter_session(session)
        yield from rejected
        if session:
            source = options.source or name
            conversation = log.speakers.conversation(session, source, options, unheard)
            yield replace(conversation, channel=f"{name} {channel}")
            # Once is enough: all people are registered before any name is replaced.
            unheard = ()
    if absent:
        raise absent


@dataclass
class _Channel:
    """`places` are positions in `messages` by id if messages can be edited; `replied_to` are
    message ids.
    """

    messages: list[LogMessage | None] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    replied_to: set[str] = field(default_factory=set)


class _Log:
    """Messages by channel, with edits and deletions applied."""

    def __init__(self, speakers: SpeakerDirectory, has_edits: bool) -> None:
        self.speakers = speakers
        self._has_edits = has_edits
        self._channels: dict[str, _Channel] = {}

    def add(self, entry: LogEntry) -> Iterator[RejectedRecord]:
        """Add a record; yield the records that it causes to be dropped."""
        channel = self._channels.setdefault(entry.channel, _Channel())
        if entry.deletes:
            deleted = self._remove(channel, entry.deletes)
            if deleted:
                yield RejectedRecord(deleted.row, DELETED)
            yield RejectedRecord(entry.row, DELETION)
            return
        earlier = self._remove(channel, entry.id) if self._has_edits else None
        if earlier:
            yield RejectedRecord(earlier.row, EDITED)
        reason = self._reason(entry)
        if reason:
            yield RejectedRecord(entry.row, reason)
            return
        self.speakers.register(entry.author)
        message = LogMessage(
            entry.row,
            entry.at,
            entry.author,
            text=entry.text,
            id=entry.id,
            reply_to=entry.reply_to,
        )
        if earlier:
            # An edit stands where the message stood, whatever its own time and reference are.
            message.at = earlier.at
            message.reply_to = earlier.reply_to
        if message.reply_to:
            channel.replied_to.add(message.reply_to)
        if self._has_edits:
            channel.places[entry.id] = len(channel.messages)
        channel.messages.append(message)

    def sessions(self, gap_s: float) -> Iterator[tuple[str, list[LogMessage]]]:
        """Yield each channel's name and sessions in chronological order (see `sort_by_time`)."""
        for name, channel in self._channels.items():
            messages = list(filter(None, channel.messages))
            channel.messages.clear()
            messages = sort_by_time(messages, lambda message: message.at)
            for session in _split_sessions(messages, channel.replied_to, gap_s):
                yield name, session

    def _remove(self, channel: _Channel, id: str) -> LogMessage | None:
        place = channel.places.pop(id, None)
        if place is None:
            return None
        message = channel.messages[place]
        channel.messages[place] = None  # places of later messages must stay
        return message

    def _reason(self, entry: LogEntry) -> str:
        if entry.dropped:
            return entry.dropped
        if entry.author.is_bot and not self.speakers.is_persona(entry.author):
            return BOT
        if not entry.text:
            return entry.empty
        return COMMAND if is_command(entry.text) else ""


def sort_by_time(items: Sequence[Item], time_of: Callable[[Item], float]) -> list[Item]:
    """Return items in the order of their times; those of equal times as written, or reversed in a
    list newest first.
    """
    times = list(map(time_of, items))
    is_descending = all(map(operator.ge, times, times[1:]))
    if is_descending and len(times) > 1 and times[-1] < times[0]:
        # Sorting is stable, so messages of the same second would stay in the wrong order.
        items = list(reversed(items))
    return sorted(items, key=time_of)


def _split_sessions(
    entries: list[LogMessage], replied_to: set[str], gap_s: float
) -> Iterator[list[LogMessage]]:
    sessions: list[list[LogMessage]] = []
    session_of: dict[str, int] = {}
    current = -1
    last_at = 0.0
    for entry in entries:
        linked = session_of.get(entry.reply_to) if entry.reply_to else None
        if linked is not None:
            # A reply belongs to the session of the message that it answers, however late it is.
            current = linked
        elif current < 0 or entry.at - last_at > gap_s:
            current = len(sessions)
            sessions.append([])
        sessions[current].append(entry)
        last_at = entry.at
        if entry.id in replied_to:
            session_of[entry.id] = current
    yield from sessions


def parse_entries(
    records: Iterable[Record | RejectedRecord],
    parse: Callable[[str, dict[str, Any]], LogEntry],
    prefix: str = "",
) -> Iterator[LogEntry | RejectedRecord]:
    """Parse each record, or reject it with the reason; their rows get the prefix."""
    for record in records:
        if isinstance(record, RejectedRecord):
            yield replace(record, row=prefix + record.row) if prefix else record
            continue
        row = prefix + record[0]
        values = record[1]
        try:
            yield parse(row, values)
        except UnusableRecordError as error:
            yield RejectedRecord(row, str(error))


def parse_file(
    folder: SourceFile, name: str, parse: Callable[[str, dict[str, Any]], LogEntry]
) -> Iterator[LogEntry | RejectedRecord]:
    """Parse one file of a folder or archive; an unreadable one is rejected, as the others may be
    intact.
    """
    try:
        yield from parse_entries(folder.member(name).records(), parse, f"{name} ")
    except MaterialError as error:
        yield RejectedRecord(name, error.message, rows=0)
