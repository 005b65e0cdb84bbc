"""Understudy's own chat log: JSON Lines, one message a line."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from personas.schemas.base import DISCORD_API
from trainer.sources import sessionise
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.markup import normalise_discord
from trainer.sources.record_fields import epoch_seconds, optional_text, text_field, timestamp_field
from trainer.sources.sessionise import LogEntry, parse_entries
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat
from trainer.sources.speakers import make_author

MESSAGE_FIELDS = {"channel", "id", "at", "author", "text"}
DELETION_FIELDS = {"channel", "id", "at", "deleted"}


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of all channels in the log."""
    entries = parse_entries(file.records(), _entry)
    return sessionise.build_sessions(entries, file.name, replace(options, arrived=""), has_edits=True)


def _entry(row: str, line: dict[str, Any]) -> LogEntry:
    channel, id = text_field(line, "channel"), text_field(line, "id")
    at = epoch_seconds(line, "at") if isinstance(line.get("at"), int | float) else timestamp_field(line, "at")
    if line.get("deleted") is True:
        return LogEntry(row, at, make_author("", ()), "", channel=channel, deletes=id)
    roles = line.get("roles")
    named = tuple(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else ()
    author_id, names = text_field(line, "author_id"), (text_field(line, "author"),)
    author = make_author(author_id, names, named, is_bot=line.get("is_bot") is True)
    text = normalise_discord(text_field(line, "text"))
    return LogEntry(row, at, author, text, id, optional_text(line, "reply_to"), channel)


def _recognises(peek: Peek) -> bool:
    rows = peek.records or (peek.head,)  # a log of one line is an object
    return any(row.keys() >= MESSAGE_FIELDS or row.keys() >= DELETION_FIELDS for row in rows)


EXPECTED = 'one message per line: {"channel", "id", "at", "author", "author_id", "text", "reply_to"?, "is_bot"?}'
FORMAT = SourceFormat("own-log", "Understudy log", EXPECTED, _recognises, read, DISCORD_API)
