"""Telegram's "Export chat history" and "Export Telegram data" in JSON: `result.json` of one chat, or of all of them.

Format: what Telegram Desktop writes (export/output/export_output_json.cpp in telegramdesktop/tdesktop). A text is a
string, or a list of strings and entities `{type, text}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from trainer.conversation import Conversation, Rejected
from trainer.sources import sessions
from trainer.sources.cast import author_of
from trainer.sources.fields import WrongField, entries, moment, objects, optional, seconds, text
from trainer.sources.files import Peek, SourceFile
from trainer.sources.formats import Format, ReadOptions
from trainer.sources.markup import clean, mention, outside_code
from trainer.sources.sessions import Entry

LISTS = ("chats", "left_chats")
CHATS = ("personal_chat", "bot_chat", "saved_messages", "replies", "verify_codes", "private_group",
         "private_supergroup", "public_supergroup", "private_channel", "public_channel")  # fmt: skip
DELETED_ACCOUNT = "Deleted Account"
SIGNS = {"bold": "**", "italic": "*", "underline": "__", "strikethrough": "~~", "spoiler": "||", "code": "`"}
"""Discord's signs for Telegram's entities."""
MEDIA = ("photo", "file", "media_type", "sticker_emoji", "contact_information", "location_information", "poll")


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | Rejected]:
    """The sessions of one chat, or of every chat of a whole export."""
    head = file.peek().head
    found: Iterator[Entry | Rejected]
    if file.kind == "JSON object" and "messages" not in head:
        found = (entry for name in LISTS for entry in _chats(file, name))
    else:
        found = entries(file.records("messages"), lambda row, message: _entry(row, message, head))
    return sessions.conversations(found, file.name, options)


def _chats(file: SourceFile, name: str) -> Iterator[Entry | Rejected]:
    """The messages of all chats of a list, of which one alone may be larger than memory."""
    for number, (chat, messages) in enumerate(file.grouped((name, "list"), "messages"), start=1):

        def parse(row: str, message: dict[str, Any], number: int = number, chat: dict[str, Any] = chat) -> Entry:
            return _entry(f"{name} {number}, {row}", message, chat)

        for item in entries(messages, parse):
            yield replace(item, row=f"{name} {number}, {item.row}") if isinstance(item, Rejected) else item


def _entry(row: str, message: Mapping[str, Any], chat: Mapping[str, Any]) -> Entry:
    spoken = text(message, "type") == "message"
    names = (optional(message, "from"),) if spoken else ()
    author_id = optional(message, "from_id")
    is_bot = chat.get("type") == "bot_chat" and author_id == f"user{chat.get('id')}"
    has_medium = any(message.get(key) for key in MEDIA)
    return Entry(
        row=row,
        at=seconds(message, "date_unixtime") if "date_unixtime" in message else moment(message, "date"),
        author=author_of(author_id, names if any(names) else (DELETED_ACCOUNT,), is_bot=is_bot),
        text=_written(message.get("text")) if spoken else "",
        id=optional(message, "id"),
        reply_to="" if "reply_to_peer_id" in message else optional(message, "reply_to_message_id"),
        channel=optional(chat, "id"),
        dropped=_dropped(message) if spoken else sessions.SYSTEM,
        empty=sessions.ATTACHMENT if has_medium else sessions.NO_TEXT,
    )


def _dropped(message: Mapping[str, Any]) -> str:
    forwarded = [message[key] for key in ("forwarded_from", "saved_from") if key in message]
    if any(source != message.get("from") for source in forwarded):
        return sessions.FORWARDED
    return sessions.BOT if message.get("via_bot") else ""


def _written(value: object) -> str:
    """The text in Discord's markup. Raises `WrongField` for what is neither a text nor a list of pieces."""
    if isinstance(value, str):
        return outside_code(clean(value), lambda part: part)
    if not isinstance(value, list):
        raise WrongField("text: a text or a list was expected")
    return outside_code("".join(_piece(piece) for piece in value), lambda part: part)


def _piece(piece: object) -> str:
    if isinstance(piece, str):
        return clean(piece)
    if not isinstance(piece, dict) or not isinstance(piece.get("text"), str):
        raise WrongField("text: a piece is neither a text nor an entity")
    kind, said = piece.get("type"), clean(piece["text"])
    if kind == "mention_name":
        return mention(f"user{piece.get('user_id')}")
    if kind == "mention":
        return mention(said.removeprefix("@"))
    if kind == "pre":
        return f"```{optional(piece, 'language')}\n{said}\n```"
    if kind == "blockquote":
        return "".join(f"> {line}\n" for line in said.splitlines())
    if kind == "text_link" and piece.get("href") != said:
        return f"[{said}]({optional(piece, 'href')})"
    return _within(SIGNS.get(str(kind), ""), said)


def _within(sign: str, said: str) -> str:
    """Signs stand next to letters, so the space around a piece stays outside of them."""
    around = re.fullmatch(r"(\s*)(.*?)(\s*)", said, re.DOTALL)
    return f"{around[1]}{sign}{around[2]}{sign}{around[3]}" if sign and around and around[2] else said


def _recognises(peek: Peek) -> bool:
    head = peek.head
    if any(isinstance(head.get(name), dict) and "list" in head[name] for name in LISTS):
        return True
    if head.get("messages") == [] and {"name", "type", "id"} <= head.keys():
        return head["type"] in CHATS
    rows = objects(head, "messages")
    first = next((row for row in rows if {"id", "type", "date"} <= row.keys()), {})
    return bool({"from", "from_id", "actor", "actor_id", "text", "action"} & first.keys())


FORMATS = (
    Format(
        "telegram",
        "Telegram export",
        "a Telegram export in JSON: {name, type, id, messages: [{id, type, date, from, from_id, text}]}",
        _recognises,
        read,
    ),
)
