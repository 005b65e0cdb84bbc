"""Matrix events in a mapped table or list, as Element and other clients export a room.

Source: https://spec.matrix.org/latest/client-server-api/ (m.room.message, m.room.redaction,
m.replace, m.in_reply_to). An edit is an event of its own that names the message it replaces, and
the text of a reply may begin with the lines that it answers.
"""

import re
from collections.abc import Mapping
from typing import Any

from trainer.sources import sessionise
from trainer.sources.markup import tidy_text
from trainer.sources.record_fields import object_field, optional_text
from trainer.sources.sessionise import LogEntry
from trainer.sources.speakers import Author, make_author

PLATFORM = "matrix"
MESSAGE = "m.room.message"
REDACTION = "m.room.redaction"
SPEECH = ("m.text", "m.emote", "m.notice")
FALLBACK = re.compile(r"\A> (?:\* ?)?<@[^>\n]+>[^\n]*\n(?:>[^\n]*\n)*\n?")
"""The quoted message before a reply, for clients that show no references."""
EDIT_MARK = re.compile(r"\A\s*\* ")


def is_event(row: Mapping[str, Any]) -> bool:
    """Report whether a row is a Matrix event."""
    kind = row.get("type")
    is_named = isinstance(kind, str) and "." in kind and "sender" in row
    return is_named and isinstance(row.get("content"), dict)


def parse_event(row: str, event: Mapping[str, Any], at: float, name: str, channel: str) -> LogEntry:
    """Return the message of an event, or what it changes. `name` is that of its sender, `channel`
    that of the row. Raises `UnusableRecordError`.
    """
    content = object_field(event, "content")
    relation = object_field(content, "m.relates_to")
    channel = channel or optional_text(event, "room_id")
    author = _author(event, name, content)
    if event["type"] == REDACTION:
        deleted = optional_text(event, "redacts") or optional_text(content, "redacts")
        return LogEntry(row, at, author, "", channel=channel, deletes=deleted)
    id = optional_text(event, "event_id")
    if relation.get("rel_type") == "m.replace":
        id = optional_text(relation, "event_id")
        new = object_field(content, "m.new_content")
        text = _text(new) if new else EDIT_MARK.sub("", _text(content))
    else:
        text = _text(content)
    return LogEntry(
        row,
        at,
        author,
        text=text,
        id=id,
        reply_to=_reply_to(relation),
        channel=channel,
        dropped=_dropped(event, content),
        empty=sessionise.ATTACHMENT
        if "url" in content or "file" in content
        else sessionise.NO_TEXT,
        edited_at=at,
    )


def _author(event: Mapping[str, Any], name: str, content: Mapping[str, Any]) -> Author:
    sender = optional_text(event, "sender")
    short = sender.removeprefix("@").partition(":")[0]
    names = (short,) if name in ("", sender) else (name, short)
    return make_author(sender, names, is_bot=content.get("msgtype") == "m.notice")


def _text(content: Mapping[str, Any]) -> str:
    body = FALLBACK.sub("", optional_text(content, "body"))
    kind = content.get("msgtype", "m.text")
    if kind in SPEECH:
        return tidy_text(body)
    # A medium has a caption if its file is named beside it.
    file = content.get("filename")
    return tidy_text(body) if isinstance(file, str) and body != file else ""


def _reply_to(relation: Mapping[str, Any]) -> str:
    if relation.get("is_falling_back") is True:
        return ""  # a message of a thread, which answers nobody in particular
    return optional_text(object_field(relation, "m.in_reply_to"), "event_id")


def _dropped(event: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    if event["type"] not in (MESSAGE, "m.sticker"):
        return sessionise.SYSTEM
    return "" if content else sessionise.DELETED
