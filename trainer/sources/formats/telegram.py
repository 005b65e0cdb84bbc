"""Telegram's "Export chat history" and "Export Telegram data" in JSON: `result.json` of one chat,
or of all of them.

Format: what Telegram Desktop writes (export/output/export_output_json.cpp in
telegramdesktop/tdesktop). A text is a string, or a list of strings and entities `{type, text}`.
"""

import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from trainer.sources import sessionise
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.markup import clean_text, map_outside_code, mark_mention
from trainer.sources.record_fields import (
    UnusableRecordError,
    epoch_seconds,
    object_list,
    optional_text,
    text_field,
    timestamp_field,
)
from trainer.sources.sessionise import LogEntry, parse_entries
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat
from trainer.sources.speakers import make_author

CHAT_LISTS = ("chats", "left_chats")
CHAT_TYPES = ("personal_chat", "bot_chat", "saved_messages", "replies", "verify_codes", "private_group",
         "private_supergroup", "public_supergroup", "private_channel", "public_channel")  # fmt: skip
DELETED_ACCOUNT = "Deleted Account"
ENTITY_MARKUP = {
    "bold": "**",
    "italic": "*",
    "underline": "__",
    "strikethrough": "~~",
    "spoiler": "||",
    "code": "`",
}
"""Discord's signs for Telegram's entities."""
MEDIA_FIELDS = (
    "photo",
    "file",
    "media_type",
    "sticker_emoji",
    "contact_information",
    "location_information",
    "poll",
)


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of one chat, or of every chat of a full export."""
    head = file.peek().head
    entries: Iterator[LogEntry | RejectedRecord]
    channel = ""
    platform = "telegram"
    if file.kind == "JSON object" and "messages" not in head:
        entries = itertools.chain.from_iterable(_chats(file, name) for name in CHAT_LISTS)
    else:
        entries = parse_entries(file.records("messages"), partial(_entry, head))
        channel = str(head.get("id") or "")
        platform = platform if channel else ""
    return sessionise.build_sessions(
        entries, file.name, options, platform=platform, channel=channel
    )


def _chats(file: SourceFile, name: str) -> Iterator[LogEntry | RejectedRecord]:
    """Yield the messages of all chats of a list; a single chat may be larger than memory."""
    for number, (chat, messages) in enumerate(file.grouped((name, "list"), "messages"), start=1):
        yield from parse_entries(messages, partial(_entry, chat), f"{name} {number}, ")


def _entry(chat: Mapping[str, Any], row: str, message: Mapping[str, Any]) -> LogEntry:
    is_message = text_field(message, "type") == "message"
    names = (optional_text(message, "from"),) if is_message else ()
    author_id = optional_text(message, "from_id")
    is_bot = chat.get("type") == "bot_chat" and author_id == f"user{chat.get('id')}"
    has_medium = any(message.get(key) for key in MEDIA_FIELDS)
    if "date_unixtime" in message:
        at = epoch_seconds(message, "date_unixtime")
    else:
        # Older exports have the device's local time alone.
        at = timestamp_field(message, "date")
    return LogEntry(
        row=row,
        at=at,
        author=make_author(author_id, names if any(names) else (DELETED_ACCOUNT,), is_bot=is_bot),
        text=_render_text(message.get("text")) if is_message else "",
        id=optional_text(message, "id"),
        reply_to=_reply_to(message),
        channel=optional_text(chat, "id"),
        dropped=_skip_reason(message) if is_message else sessionise.SYSTEM,
        empty=sessionise.ATTACHMENT if has_medium else sessionise.NO_TEXT,
        edited_at=epoch_seconds(message, "edited_unixtime")
        if "edited_unixtime" in message
        else 0.0,
    )


def _reply_to(message: Mapping[str, Any]) -> str:
    """Return the id of the message that this one answers; empty for one in another chat."""
    if "reply_to_peer_id" in message:
        return ""
    return optional_text(message, "reply_to_message_id")


def _skip_reason(message: Mapping[str, Any]) -> str:
    forwarded = [message[key] for key in ("forwarded_from", "saved_from") if key in message]
    if any(source != message.get("from") for source in forwarded):
        return sessionise.FORWARDED
    return sessionise.BOT if message.get("via_bot") else ""


def _render_text(value: object) -> str:
    """Convert the text to Discord's markup. Raises `UnusableRecordError` unless it is a text or a
    list of pieces.
    """
    if not isinstance(value, str | list):
        raise UnusableRecordError("text: a text or a list was expected")
    pieces = [value] if isinstance(value, str) else value
    return map_outside_code("".join(map(_piece, pieces)), lambda part: part)


def _piece(piece: object) -> str:
    if isinstance(piece, str):
        return clean_text(piece)
    if not isinstance(piece, dict) or not isinstance(piece.get("text"), str):
        raise UnusableRecordError("text: a piece is neither a text nor an entity")
    kind = piece.get("type")
    text = clean_text(piece["text"])
    if kind == "mention_name":
        return mark_mention(f"user{piece.get('user_id')}")
    if kind == "mention":
        return mark_mention(text.removeprefix("@"))
    if kind == "pre":
        return f"```{optional_text(piece, 'language')}\n{text}\n```"
    if kind == "blockquote":
        return "".join(f"> {line}\n" for line in text.splitlines())
    if kind == "text_link" and piece.get("href") != text:
        return f"[{text}]({optional_text(piece, 'href')})"
    sign = ENTITY_MARKUP.get(str(kind), "")
    inner = text.strip()
    if not sign or not inner:
        return text
    # Spaces stay outside: Discord does not format `** text **`.
    return text.replace(inner, f"{sign}{inner}{sign}")


def _recognises(peek: Peek) -> bool:
    head = peek.head
    if any(isinstance(head.get(name), dict) and "list" in head[name] for name in CHAT_LISTS):
        return True
    if head.get("messages") == [] and {"name", "type", "id"} <= head.keys():
        return head["type"] in CHAT_TYPES
    rows = object_list(head, "messages")
    first = next((row for row in rows if {"id", "type", "date"} <= row.keys()), {})
    return bool({"from", "from_id", "actor", "actor_id", "text", "action"} & first.keys())


EXPECTED = (
    "a Telegram export in JSON: {name, type, id, messages: [{id, type, date, from, from_id, text}]}"
)
FORMAT = SourceFormat("telegram", "Telegram export", EXPECTED, matches=_recognises, read=read)
