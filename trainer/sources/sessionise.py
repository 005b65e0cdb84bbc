"""Parses chat log records and splits them into sessions; applies edits and deletions, drops bots
and commands.
"""

import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from personas.errors import MaterialError
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.markup import MENTION_MARK, is_command
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
MINUTE_S = 60.0
MENTION = re.compile(rf"{MENTION_MARK.pattern}|@\w+")
REPEATED = "the same message again"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A message record of a chat log.

    `at` is in seconds since 1970, `text` is normalised (see `markup`), `reply_to` is the id of
    another message in the same `channel`. `dropped` is the reason why the message cannot be used,
    `empty` the reason why it has no text. `deletes` is the id of a message that this record
    deletes. An empty `row` marks a placeholder for a missing message. `edited_at` is the time of
    the last edit, 0 if unknown; `id_space` is what the id is unique in, the channel by default.
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
    edited_at: float = 0.0
    id_space: str = ""


Entries = Iterable[LogEntry | RejectedRecord]
SessionItem = Conversation | RejectedRecord
MessageKey = tuple[str, str]
"""What a message's id is unique in, and the id."""


@dataclass
class ChatCopy:
    """A channel that holds the same talk as others (`log_copies`): the name that they share, and
    the ids of their messages by key. `id_prefix` sets the ids of copies that number their messages
    otherwise apart; `own_ids` are the shared ids by this copy's.
    """

    name: str
    id_prefix: str = ""
    ids: dict[int, str] = field(default_factory=dict)
    own_ids: dict[str, str] = field(default_factory=dict)

    def shared_id(self, id: str) -> str:
        """Return the id that a message of this copy has in all of them; empty without one."""
        if not id or not self.id_prefix:
            return id
        return self.own_ids.get(id, f"{self.id_prefix} {id}")

    def take_id(self, id: str, key: tuple[float, str, int] | None) -> str:
        """Return the shared id of a message, which is that of an earlier one with its key."""
        shared = self.shared_id(id)
        if key is None:
            return shared
        shared = self.ids.setdefault(hash(key), shared or str(hash(key)))
        if id:
            self.own_ids[id] = shared
        return shared


class ChatLog(Iterator[SessionItem]):
    """A log that is not read yet: it yields its sessions, in order.

    `copies` are those of its channels, by name, that hold the same talk as others.
    `platform` names the program whose ids of channels and messages its entries have, `channel` the
    one channel that it is a part of; the sessions of several parts are read by `LogPool`
    (`log_pool`). Of material that came through Discord's API, only messages of opted-in members and
    the persona's replies to them are used. Raises `MaterialError` after the last record if
    `options` name a persona that never speaks, or by a name that several accounts have.
    """

    def __init__(
        self,
        entries: Entries,
        name: str,
        options: ReadOptions,
        *,
        platform: str = "",
        channel: str = "",
    ) -> None:
        """`name` is the file's name."""
        self.entries = entries
        self.name = name
        self.options = options
        self.platform = platform
        self.channel = channel
        self.copies: dict[str, ChatCopy] = {}
        self._items: Iterator[SessionItem] | None = None

    def __next__(self) -> SessionItem:
        if self._items is None:
            self._items = _own_items(self)
        return next(self._items)


def build_sessions(
    entries: Entries, name: str, options: ReadOptions, *, platform: str = "", channel: str = ""
) -> ChatLog:
    """Return the log of these entries, whose sessions it yields (see `ChatLog`)."""
    return ChatLog(entries, name, options, platform=platform, channel=channel)


def _own_items(log: ChatLog) -> Iterator[SessionItem]:
    for _, item in merge_parts([log]):
        if isinstance(item, MaterialError):
            raise item
        yield item


def merge_parts(
    parts: Sequence[ChatLog], elsewhere: set[MessageKey] | None = None
) -> Iterator[tuple[int, SessionItem | MaterialError]]:
    """Yield the sessions of logs that are parts of one, each with the number of the part that its
    first message is in, and the error of each part that cannot be used.

    A message that is in several parts is in one session, with its latest text. `elsewhere` are the
    messages of logs that were read before with other options: they are not read again, and these
    parts' are added to them.
    """
    log = _Log(SpeakerDirectory(parts[0].options), elsewhere)
    counts = _RecordCounts()
    yield from _read_parts(parts, log, counts)
    name = parts[0].name if len(parts) == 1 else f"{parts[0].name} and {len(parts) - 1} more"
    log.speakers.find_persona()
    unclear = log.speakers.absent_persona(name, counts.records, counts.broken)
    unclear = unclear or log.speakers.ambiguous_persona(name)
    yield from log.drop_bots(log.speakers.ignored_bots)
    yield from _sessions(parts, log, unclear)
    for number in range(len(parts)):
        fault = counts.faults.get(number) or unclear
        if fault:
            yield number, fault


@dataclass
class _RecordCounts:
    """What came of the records of all parts: `broken` has at least the first unreadable one,
    `faults` the errors of parts by number.
    """

    records: int = 0
    broken: list[RejectedRecord] = field(default_factory=list)
    faults: dict[int, MaterialError] = field(default_factory=dict)


def _read_parts(
    parts: Sequence[ChatLog], log: "_Log", counts: _RecordCounts
) -> Iterator[tuple[int, SessionItem]]:
    for number, part in enumerate(parts):
        try:
            for entry in _part_entries(part, is_alone=len(parts) == 1):
                counts.records += 1
                if isinstance(entry, RejectedRecord):
                    counts.broken = counts.broken or [entry]
                    yield number, entry
                else:
                    for rejected in log.add(entry, number):
                        yield number, rejected
        except MaterialError as error:
            if len(parts) == 1:
                raise
            # The other parts may be intact.
            counts.faults[number] = error


def _sessions(
    parts: Sequence[ChatLog], log: "_Log", unclear: MaterialError | None
) -> Iterator[tuple[int, SessionItem]]:
    consent = ConsentFilter(parts[0].options, log.speakers.plays)
    unheard = log.speakers.unheard(consent.allows)
    for channel, session in log.sessions(parts[0].options.session_gap_s):
        number = session[0].part
        if unclear:
            yield number, RejectedRecord(session[0].row, unclear.message, count_records(session))
            continue
        session, rejected_lines = consent.filter_session(session)
        for rejected in rejected_lines:
            yield number, rejected
        if session:
            options = parts[number].options
            source = options.source or parts[number].name
            conversation = log.speakers.conversation(session, source, options, unheard)
            yield number, replace(conversation, channel=f"{parts[0].name} {channel}")
            # Once is enough: all people are registered before any name is replaced.
            unheard = ()


def _part_entries(part: ChatLog, *, is_alone: bool) -> Iterator[LogEntry | RejectedRecord]:
    entries = _renamed_entries(part) if part.copies else part.entries
    for entry in entries:
        # A row says which of several files it is in; a placeholder has none.
        if is_alone or not entry.row or entry.row.startswith(f"{part.name}/"):
            yield entry
        else:
            yield replace(entry, row=f"{part.name} {entry.row}")


def _renamed_entries(part: ChatLog) -> Iterator[LogEntry | RejectedRecord]:
    """Yield entries by the names and ids that they have in all copies of a channel."""
    for entry, key in keyed_entries(part.entries):
        if isinstance(entry, RejectedRecord):
            yield entry
            continue
        name = entry.channel if part.platform else f"{part.name} {entry.channel}"
        copy = part.copies.setdefault(entry.channel, ChatCopy(name))
        yield replace(
            entry,
            channel=copy.name,
            id=copy.take_id(entry.id, key),
            reply_to=copy.shared_id(entry.reply_to),
            deletes=copy.shared_id(entry.deletes),
        )


def keyed_entries(
    entries: Entries,
) -> Iterator[tuple[LogEntry | RejectedRecord, tuple[float, str, int] | None]]:
    """Yield records, those of messages with a key that a copy in another file has too: the minute,
    the text, and how often it was said in that minute before. Names of people differ, as each
    member has other contacts, and some programs write no seconds.
    """
    counts: Counter[tuple[str, float, str]] = Counter()
    for entry in entries:
        if isinstance(entry, RejectedRecord) or not entry.text or not entry.row:
            yield entry, None
            continue
        minute = entry.at // MINUTE_S
        text = _folded(entry.text)
        counts[entry.channel, minute, text] += 1
        yield entry, (minute, text, counts[entry.channel, minute, text])


def _folded(text: str) -> str:
    """Return a text as all programs write it: some have ids in place of names."""
    return " ".join(MENTION.sub("@", text).split()).casefold()


@dataclass
class _Channel:
    """`edits` are the times of the last edits of messages, by id; `replied_to` are message ids."""

    messages: list[LogMessage | None] = field(default_factory=list)
    edits: dict[str, float] = field(default_factory=dict)
    replied_to: set[str] = field(default_factory=set)


class _Log:
    """Messages by channel, each once, with edits and deletions applied."""

    def __init__(self, speakers: SpeakerDirectory, elsewhere: set[MessageKey] | None) -> None:
        self.speakers = speakers
        self._elsewhere = frozenset(elsewhere or ())
        self._read = elsewhere
        self._channels: dict[str, _Channel] = {}
        self._places: dict[MessageKey, tuple[_Channel, int]] = {}
        self._deleted: set[MessageKey] = set()

    def add(self, entry: LogEntry, part: int) -> Iterator[RejectedRecord]:
        """Add a record of a part; yield the records that it causes to be dropped."""
        key = (entry.id_space or entry.channel, entry.id)
        # Channels are in the order of their first records, whatever becomes of these.
        channel = self._channels.setdefault(entry.channel, _Channel())
        if entry.deletes:
            yield from self._delete(entry, (key[0], entry.deletes))
            return
        reason = self._reason(entry, key)
        earlier = self._earlier(key, entry, part)
        if earlier and not reason and self._is_older(entry, earlier, key, part):
            is_same = entry.text == earlier.text
            # An edit may come before what it edits, in a log newest first.
            earlier.at = min(earlier.at, entry.at)
            yield RejectedRecord(entry.row, REPEATED if is_same else EDITED)
            return
        if earlier:
            self._remove(key)
            is_same = not reason and entry.text == earlier.text
            yield RejectedRecord(earlier.row, REPEATED if is_same else EDITED)
        if reason:
            yield RejectedRecord(entry.row, reason)
            return
        self._append(entry, key, channel, part=part, earlier=earlier)

    def _delete(self, entry: LogEntry, key: MessageKey) -> Iterator[RejectedRecord]:
        deleted = self._remove(key)
        # Another part may have the message still.
        self._deleted.add(key)
        if deleted:
            yield RejectedRecord(deleted.row, DELETED)
        yield RejectedRecord(entry.row, DELETION)

    def _append(
        self,
        entry: LogEntry,
        key: MessageKey,
        channel: _Channel,
        *,
        part: int,
        earlier: LogMessage | None,
    ) -> None:
        self.speakers.register(entry.author)
        message = LogMessage(
            entry.row,
            entry.at,
            entry.author,
            text=entry.text,
            id=entry.id,
            reply_to=entry.reply_to,
            part=part,
        )
        if earlier:
            # An edit stands where the message stood, whatever its own time and reference are.
            message.at = earlier.at
            message.reply_to = earlier.reply_to
            message.part = earlier.part
        if message.reply_to:
            channel.replied_to.add(message.reply_to)
        if entry.id:
            self._places[key] = (channel, len(channel.messages))
            if entry.edited_at:
                channel.edits[entry.id] = entry.edited_at
            if self._read is not None:
                self._read.add(key)
        channel.messages.append(message)

    def drop_bots(self, ids: frozenset[str]) -> Iterator[tuple[int, RejectedRecord]]:
        """Drop the messages of bots that have turned out not to be the persona."""
        if not ids:
            return
        for channel in self._channels.values():
            for place, message in enumerate(channel.messages):
                if message and message.author.id in ids:
                    channel.messages[place] = None
                    yield message.part, RejectedRecord(message.row, BOT)

    def sessions(self, gap_s: float) -> Iterator[tuple[str, list[LogMessage]]]:
        """Yield each channel's name and sessions in chronological order (see `sort_by_time`)."""
        for name, channel in self._channels.items():
            by_part: dict[int, list[LogMessage]] = {}
            for message in filter(None, channel.messages):
                by_part.setdefault(message.part, []).append(message)
            channel.messages.clear()
            messages = []
            for part in by_part.values():
                messages += sort_by_time(part, lambda message: message.at)
            messages.sort(key=lambda message: message.at)
            for session in _split_sessions(messages, channel.replied_to, gap_s):
                yield name, session

    def _earlier(self, key: MessageKey, entry: LogEntry, part: int) -> LogMessage | None:
        """Return the same message from an earlier record, if there is one; what another person
        wrote in another file is another message, though programs may number both alike.
        """
        place = self._places.get(key)
        message = place[0].messages[place[1]] if place else None
        if message is None or message.part == part or message.author.id == entry.author.id:
            return message
        return message if _folded(message.text) == _folded(entry.text) else None

    def _is_older(self, entry: LogEntry, earlier: LogMessage, key: MessageKey, part: int) -> bool:
        """Report whether a record has an older text than an earlier record of the same message, or
        the same one. Without times of edits, a later record of a file has the later text.
        """
        channel = self._places[key][0]
        if channel is not self._channels.get(entry.channel):
            return False  # it has become part of a thread
        if entry.text == earlier.text:
            return True
        if part == earlier.part and not entry.edited_at:
            return False
        return entry.edited_at < channel.edits.get(entry.id, 0.0)

    def _remove(self, key: MessageKey) -> LogMessage | None:
        place = self._places.pop(key, None)
        if place is None:
            return None
        channel, number = place
        message = channel.messages[number]
        channel.messages[number] = None  # places of later messages must stay
        channel.edits.pop(key[1], None)
        return message

    def _reason(self, entry: LogEntry, key: MessageKey) -> str:
        if entry.id and key in self._elsewhere:
            return REPEATED
        if key in self._deleted:
            return DELETED
        if entry.dropped:
            return entry.dropped
        if entry.author.is_bot and not self.speakers.may_be_persona(entry.author):
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
