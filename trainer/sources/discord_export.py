"""Discord channels as DiscordChatExporter writes them, in JSON and in CSV.

Format: https://github.com/Tyrrrz/DiscordChatExporter (Exporting/JsonMessageWriter, CsvMessageWriter). Only the fields
named here are read; others may be there or not. Such an export came through Discord's API, and counts as that unless
another right is stated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from personas.rights import DISCORD_API
from trainer.conversation import Conversation, Rejected
from trainer.sources import sessions
from trainer.sources.cast import Author, author_of
from trainer.sources.dates import Order, OrderGuess, stamp_of
from trainer.sources.fields import WrongField, entries, members, moment, objects, optional, text
from trainer.sources.files import Peek, SourceFile
from trainer.sources.formats import Format, ReadOptions
from trainer.sources.markup import from_discord, mention
from trainer.sources.sessions import Entry

SPOKEN_TYPES = ("Default", "Reply", "ChatInputCommand", "ContextMenuCommand", "20", "23")
"""The last four are what bots answer to commands; the exporter writes types that it does not know as numbers."""
COLUMNS = {"Author", "Date", "Content", "Attachments"}
NOTICES = re.compile(
    r"(?:Joined the server|Pinned a message|Started a thread|Added .{1,99} to the group|Added a recipient|"
    r"Removed .{1,99} from the group|Removed a recipient|Left the group|Changed the channel icon|"
    r"Started a call that lasted [\d.,]+ minutes|Changed the channel name(?:: .+)?)\.?"
)
"""What the exporter writes for system messages, which a CSV does not tell from others."""


def read_json(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | Rejected]:
    """The sessions of a JSON export. Raises `MaterialError` when it holds no messages."""
    channel = file.peek().head.get("channel")
    channels = {str(channel.get("id")): str(channel.get("name"))} if isinstance(channel, dict) else {}

    def parse(row: str, message: dict[str, Any]) -> Entry:
        return _entry(row, message, channels)

    return sessions.conversations(entries(file.records("messages"), parse), file.name, options)


def read_csv(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | Rejected]:
    """The sessions of a CSV export, whose dates are in the order that fits them all."""
    guess = OrderGuess()
    for record in file.records():
        if not isinstance(record, Rejected) and (stamp := stamp_of(str(record[1].get("Date")))):
            guess.add(stamp)
    return sessions.conversations(entries(file.records(), _row_parser(guess.order)), file.name, options)


def _entry(row: str, message: Mapping[str, Any], channels: Mapping[str, str]) -> Entry:
    kind = optional(message, "type") or "Default"
    reference = members(message, "reference")
    return Entry(
        row=row,
        at=moment(message, "timestamp"),
        author=_author(members(message, "author")),
        text=_mentions_marked(from_discord(text(message, "content"), channels), objects(message, "mentions")),
        id=text(message, "id"),
        reply_to=optional(reference, "messageId"),
        dropped="" if kind in SPOKEN_TYPES else sessions.SYSTEM,
        empty=_empty(message, reference),
    )


def _author(author: Mapping[str, Any]) -> Author:
    names = tuple(filter(None, (optional(author, "nickname"), text(author, "name"))))
    roles = tuple(str(role.get(key)) for role in objects(author, "roles") for key in ("name", "id"))
    return author_of(text(author, "id"), names, roles, is_bot=author.get("isBot") is True)


def _empty(message: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """Why a message without text has none."""
    if message.get("forwardedMessage") or reference.get("type") == "Forward":
        return sessions.FORWARDED
    kinds = {"attachments": sessions.ATTACHMENT, "stickers": sessions.STICKER, "embeds": sessions.EMBED}
    return next((reason for key, reason in kinds.items() if message.get(key)), sessions.NO_TEXT)


def _mentions_marked(content: str, mentioned: list[dict[str, Any]]) -> str:
    """The exporter puts `@` and a name where a mention was; who is meant stands in `mentions`."""
    if "@" not in content:
        return content
    ids = {str(user.get(key)): str(user.get("id")) for user in mentioned for key in ("name", "nickname")}
    for name in sorted(ids, key=len, reverse=True):
        content = mention(ids[name]).join(re.split(rf"@{re.escape(name)}(?!\w)", content))
    return content


def _row_parser(order: Order) -> Callable[[str, dict[str, Any]], Entry]:
    def parse(row: str, cells: dict[str, Any]) -> Entry:
        stamp = stamp_of(text(cells, "Date"))
        if stamp is None or (at := stamp.at(order)) is None:
            raise WrongField(f"Date: {cells['Date'][:40]!r} is no date and time")
        full = text(cells, "Author")
        author = author_of(optional(cells, "AuthorID"), (re.sub(r"#\d{4}$", "", full), full))
        content = from_discord(text(cells, "Content"))
        is_notice = NOTICES.fullmatch(content) is not None
        empty = sessions.ATTACHMENT if cells["Attachments"] else sessions.NO_TEXT
        return Entry(row, at, author, content, dropped=sessions.SYSTEM if is_notice else "", empty=empty)

    return parse


def _is_json(peek: Peek) -> bool:
    messages = peek.head.get("messages")
    if not isinstance(messages, list):
        return False
    first = messages[0] if messages and isinstance(messages[0], dict) else {}
    return {"guild", "channel"} <= peek.head.keys() or {"id", "timestamp", "author"} <= first.keys()


def _is_csv(peek: Peek) -> bool:
    return peek.kind in ("CSV", "TSV") and set(peek.columns) >= COLUMNS


FORMATS = (
    Format(
        "discord",
        "Discord export (JSON)",
        "a Discord export in JSON: {guild, channel, messages: [{id, type, timestamp, content, author}]}",
        _is_json,
        read_json,
        DISCORD_API,
    ),
    Format(
        "discord-csv",
        "Discord export (CSV)",
        "a Discord export in CSV: AuthorID, Author, Date, Content, Attachments, Reactions",
        _is_csv,
        read_csv,
        DISCORD_API,
    ),
)
