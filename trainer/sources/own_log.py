"""Our own log: JSON Lines, one message a line, for talk that comes from nowhere else.

    {"channel": "tavern", "id": "7", "at": "2026-03-01T09:00:00+00:00", "author": "Mira", "author_id": "42",
     "text": "Is there soup?", "reply_to": "6", "is_bot": false}

`at` is ISO 8601 or seconds since 1970; `text` may hold Discord's markup. `reply_to`, `is_bot` and `roles` (a list of
names) may be left out. The log is only ever appended to: a later line with the same channel and id is an edit, and
`{"channel": …, "id": …, "at": …, "deleted": true}` deletes. Lines without another stated right count as taken from
Discord's API, because that is where a bot that keeps such a log hears them; they arrived when they were said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from personas.rights import DISCORD_API
from trainer.conversation import Conversation, Rejected
from trainer.sources import sessions
from trainer.sources.cast import author_of
from trainer.sources.fields import entries, moment, optional, seconds, text
from trainer.sources.files import Peek, SourceFile
from trainer.sources.formats import Format, ReadOptions
from trainer.sources.markup import from_discord
from trainer.sources.sessions import Entry

FIELDS = {"channel", "id", "at", "author", "text"}
DELETION = {"channel", "id", "at", "deleted"}


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | Rejected]:
    """The sessions of all channels in the log."""
    found = entries(file.records(), _entry)
    return sessions.conversations(found, file.name, replace(options, arrived=""), has_edits=True)


def _entry(row: str, line: dict[str, Any]) -> Entry:
    channel, id = text(line, "channel"), text(line, "id")
    at = seconds(line, "at") if isinstance(line.get("at"), int | float) else moment(line, "at")
    if line.get("deleted") is True:
        return Entry(row, at, author_of("", ()), "", channel=channel, deletes=id)
    roles = line.get("roles")
    named = tuple(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else ()
    return Entry(
        row=row,
        at=at,
        author=author_of(text(line, "author_id"), (text(line, "author"),), named, is_bot=line.get("is_bot") is True),
        text=from_discord(text(line, "text")),
        id=id,
        reply_to=optional(line, "reply_to"),
        channel=channel,
    )


def _recognises(peek: Peek) -> bool:
    rows = peek.records or (peek.head,)  # a log of one line is an object
    return any(row.keys() >= FIELDS or row.keys() >= DELETION for row in rows)


FORMATS = (
    Format(
        "own-log",
        "Understudy log",
        'one message a line: {"channel", "id", "at", "author", "author_id", "text", "reply_to"?, "is_bot"?}',
        _recognises,
        read,
        DISCORD_API,
    ),
)
