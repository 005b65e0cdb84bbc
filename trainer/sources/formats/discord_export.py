"""Discord channels: exports of DiscordChatExporter as JSON or CSV, and logs in this project's own
format.

Format: https://github.com/Tyrrrz/DiscordChatExporter (Exporting/JsonMessageWriter,
CsvMessageWriter). Only the fields named here are read. Such an export came through Discord's API
and is treated so unless another right is stated.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from personas.schemas.base import DISCORD_API
from trainer.sources import sessionise
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.dates import DateOrder, DateOrderDetector, parse_time
from trainer.sources.markup import mark_mention, normalise_discord
from trainer.sources.record_fields import (
    UnusableRecordError,
    epoch_seconds,
    object_field,
    object_list,
    optional_text,
    text_field,
    timestamp_field,
)
from trainer.sources.sessionise import LogEntry, parse_entries
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat
from trainer.sources.speakers import Author, make_author

PLATFORM = "discord"
MESSAGE_TYPES = ("Default", "Reply", "ChatInputCommand", "ContextMenuCommand", "20", "23")
"""The last four are what bots answer to commands; the exporter writes types that it does not know
as numbers.
"""
COLUMNS = {"Author", "Date", "Content", "Attachments"}
SYSTEM_NOTICE = re.compile(
    r"(?:Joined the server|Pinned a message|Started a thread|Added .{1,99} to the group|Added a recipient|"
    r"Removed .{1,99} from the group|Removed a recipient|Left the group|Changed the channel icon|"
    r"Started a call that lasted [\d.,]+ minutes|Changed the channel name(?:: .+)?)\.?"
)
"""System messages of the exporter, which a CSV does not mark."""
LOG_FIELDS = {"channel", "id", "at", "author", "text"}
DELETION_FIELDS = {"channel", "id", "at", "deleted"}


def read_json(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of a JSON export. Raises `MaterialError` if it contains no messages."""
    channel = file.peek().head.get("channel")
    channels: dict[str, str] = {}
    channel_id = ""
    if isinstance(channel, dict):
        channel_id = str(channel.get("id") or "")
        channels[channel_id] = str(channel.get("name"))
    messages = file.records("messages")
    entries = parse_entries(
        messages, lambda row, message: _entry(row, message, channels, channel_id)
    )
    platform = PLATFORM if channel_id else ""
    return sessionise.build_sessions(
        entries, file.name, options, platform=platform, channel=channel_id
    )


def read_csv(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of a CSV export; the date order is detected from all dates."""
    detector = DateOrderDetector()
    for record in file.records():
        if isinstance(record, RejectedRecord):
            continue
        stamp = parse_time(str(record[1].get("Date")))
        if stamp:
            detector.add(stamp)
    rows = file.records()
    entries = parse_entries(rows, lambda row, cells: _csv_entry(row, cells, detector.order))
    return sessionise.build_sessions(entries, file.name, options)


def _entry(
    row: str, message: Mapping[str, Any], channels: Mapping[str, str], channel_id: str
) -> LogEntry:
    kind = optional_text(message, "type") or "Default"
    reference = object_field(message, "reference")
    at = timestamp_field(message, "timestamp")
    author = _author(object_field(message, "author"))
    text = normalise_discord(text_field(message, "content"), channels)
    return LogEntry(
        row=row,
        at=at,
        author=author,
        text=_mark_mentions(text, object_list(message, "mentions")),
        id=text_field(message, "id"),
        reply_to=optional_text(reference, "messageId"),
        channel=channel_id,
        dropped="" if kind in MESSAGE_TYPES else sessionise.SYSTEM,
        empty=_empty(message, reference),
        edited_at=timestamp_field(message, "timestampEdited")
        if message.get("timestampEdited")
        else 0.0,
    )


def _author(author: Mapping[str, Any]) -> Author:
    names = tuple(filter(None, (optional_text(author, "nickname"), text_field(author, "name"))))
    roles: list[str] = []
    for role in object_list(author, "roles"):
        roles += [str(role.get("name")), str(role.get("id"))]
    is_bot = author.get("isBot") is True
    return make_author(text_field(author, "id"), names, tuple(roles), is_bot=is_bot)


def _empty(message: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    if message.get("forwardedMessage") or reference.get("type") == "Forward":
        return sessionise.FORWARDED
    kinds = {
        "attachments": sessionise.ATTACHMENT,
        "stickers": sessionise.STICKER,
        "embeds": sessionise.EMBED,
    }
    return next((reason for key, reason in kinds.items() if message.get(key)), sessionise.NO_TEXT)


def _mark_mentions(content: str, mentioned: list[dict[str, Any]]) -> str:
    """Replace the exporter's `@` and name with mention marks, using `mentions`."""
    if "@" not in content:
        return content
    ids: dict[str, str] = {}
    for user in mentioned:
        for key in ("name", "nickname"):
            ids[str(user.get(key))] = str(user.get("id"))
    # Longest first: `@Oda Brand` must not be read as Oda.
    for name in sorted(ids, key=len, reverse=True):
        content = mark_mention(ids[name]).join(re.split(rf"@{re.escape(name)}(?!\w)", content))
    return content


def _csv_entry(row: str, cells: dict[str, Any], order: DateOrder) -> LogEntry:
    stamp = parse_time(text_field(cells, "Date"))
    at = stamp.at(order) if stamp else None
    if at is None:
        raise UnusableRecordError(f"Date: {cells['Date'][:40]!r} is not a date and time")
    full_name = text_field(cells, "Author")
    names = (re.sub(r"#\d{4}$", "", full_name), full_name)  # older accounts had a number
    author = make_author(optional_text(cells, "AuthorID"), names)
    content = normalise_discord(text_field(cells, "Content"))
    dropped = sessionise.SYSTEM if SYSTEM_NOTICE.fullmatch(content) else ""
    empty = sessionise.ATTACHMENT if cells["Attachments"] else sessionise.NO_TEXT
    return LogEntry(row, at, author, content, dropped=dropped, empty=empty)


def read_log(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of all channels in a log of one message a line."""
    entries = parse_entries(file.records(), _log_entry)
    return sessionise.build_sessions(entries, file.name, replace(options, arrived=""))


def _log_entry(row: str, line: dict[str, Any]) -> LogEntry:
    channel = text_field(line, "channel")
    id = text_field(line, "id")
    if isinstance(line.get("at"), int | float):
        at = epoch_seconds(line, "at")
    else:
        at = timestamp_field(line, "at")
    if line.get("deleted") is True:
        return LogEntry(row, at, make_author("", ()), "", channel=channel, deletes=id)
    roles = line.get("roles")
    role_names = roles if isinstance(roles, list) else []
    named = tuple(role for role in role_names if isinstance(role, str))
    author_id = text_field(line, "author_id")
    names = (text_field(line, "author"),)
    author = make_author(author_id, names, named, is_bot=line.get("is_bot") is True)
    text = normalise_discord(text_field(line, "text"))
    return LogEntry(
        row, at, author, text=text, id=id, reply_to=optional_text(line, "reply_to"), channel=channel
    )


def _is_csv(peek: Peek) -> bool:
    return peek.kind in ("CSV", "TSV") and set(peek.columns) >= COLUMNS


def _is_json(peek: Peek) -> bool:
    messages = peek.head.get("messages")
    if not isinstance(messages, list):
        return False
    first = messages[0] if messages and isinstance(messages[0], dict) else {}
    return {"guild", "channel"} <= peek.head.keys() or {"id", "timestamp", "author"} <= first.keys()


def _is_log(peek: Peek) -> bool:
    rows = peek.records or (peek.head,)  # a log of one line is an object
    return any(row.keys() >= LOG_FIELDS or row.keys() >= DELETION_FIELDS for row in rows)


JSON_EXPORT = (
    "a Discord export in JSON: {guild, channel, messages: [{id, type, timestamp, content, author}]}"
)
CSV_EXPORT = "a Discord export in CSV: AuthorID, Author, Date, Content, Attachments, Reactions"
LOG = 'one message per line: {"channel", "id", "at", "author", "author_id", "text", "reply_to"?, "is_bot"?}'
FORMATS = (
    SourceFormat(
        "discord",
        "Discord export (JSON)",
        JSON_EXPORT,
        matches=_is_json,
        read=read_json,
        right=DISCORD_API,
    ),
    SourceFormat(
        "discord-csv",
        "Discord export (CSV)",
        CSV_EXPORT,
        matches=_is_csv,
        read=read_csv,
        right=DISCORD_API,
    ),
    SourceFormat(
        "own-log", "Understudy log", LOG, matches=_is_log, read=read_log, right=DISCORD_API
    ),
)
