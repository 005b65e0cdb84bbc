"""Instagram's "Download your information" in JSON: `message_1.json`, or the folder or archive with
all chats.

Messenger's files have the same shape. The newest messages come first, and long chats continue in
`message_2.json` and so on. The exporter writes UTF-8 bytes as if each were a letter ("Ã©" for "é");
this is undone here.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from trainer.sources import sessionise
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.file_names import is_media_file
from trainer.sources.markup import tidy_text
from trainer.sources.record_fields import (
    epoch_seconds,
    object_field,
    object_list,
    optional_text,
    text_field,
)
from trainer.sources.sessionise import LogEntry, parse_entries
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat
from trainer.sources.speakers import make_author

MESSAGE_FILE = re.compile(r"message_\d+\.json")
NOTICE = re.compile(
    r"Liked a message|Reacted .{1,16} to your message|.{1,60} (?:started|ended) (?:a|an|the) .{0,9}(?:call|chat)\.?"
)
SENT_MEDIUM = re.compile(r".{1,60} sent (?:an attachment|a photo|a video|a voice message|a link)\.")
MEDIA = ("photos", "videos", "audio_files", "gifs", "files", "sticker", "share")
CALLS = ("Call", "Subscribe", "Unsubscribe")
MS_PER_SECOND = 1000.0


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of one chat, or of every chat in a folder or archive; the parts of a chat
    are joined.
    """
    parts = [file.member(name) for name in file.names if _is_part(name)] if file.names else [file]
    is_alone = not file.names
    entries = itertools.chain.from_iterable(_entries(part, is_alone=is_alone) for part in parts)
    return sessionise.build_sessions(entries, file.name, options)


def fix_mojibake(written: str) -> str:
    """Decode a text whose UTF-8 bytes were read as Latin-1; other texts are unchanged."""
    try:
        return written.encode("latin-1").decode()
    except UnicodeError:
        return written


def _entries(part: SourceFile, *, is_alone: bool) -> Iterator[LogEntry | RejectedRecord]:
    channel = "" if is_alone else str(PurePosixPath(part.name).parent)
    prefix = "" if is_alone else f"{part.name} "
    messages = part.records("messages")
    entries = parse_entries(messages, lambda row, message: _entry(row, message, channel), prefix)
    # Newest first; reversed so that messages of one millisecond stay in order. A part has 10,000
    # messages.
    yield from reversed(list(entries))


def _entry(row: str, message: Mapping[str, Any], channel: str) -> LogEntry:
    text = tidy_text(fix_mojibake(optional_text(message, "content")))
    has_medium = any(message.get(key) for key in MEDIA)
    if has_medium and SENT_MEDIUM.fullmatch(text):
        text = ""
    link = optional_text(object_field(message, "share"), "link")
    return LogEntry(
        row=row,
        at=epoch_seconds(message, "timestamp_ms", MS_PER_SECOND),
        author=make_author("", (fix_mojibake(text_field(message, "sender_name")),)),
        text="" if text == link else text,
        channel=channel,
        dropped=_skip_reason(message, text),
        empty=sessionise.ATTACHMENT if has_medium else sessionise.NO_TEXT,
    )


def _skip_reason(message: Mapping[str, Any], text: str) -> str:
    if message.get("is_unsent") is True:
        return sessionise.DELETED
    is_call = message.get("type") in CALLS or "call_duration" in message
    return sessionise.SYSTEM if is_call or NOTICE.fullmatch(text) else ""


def _is_part(name: str) -> bool:
    return MESSAGE_FILE.fullmatch(PurePosixPath(name).name) is not None and "__MACOSX" not in name


def _claims(names: Sequence[str]) -> Sequence[str]:
    """Claim the parts of all chats and their attachments in sibling folders."""
    parts = [name for name in names if _is_part(name)]
    folders = {PurePosixPath(name).parent for name in parts} - {PurePosixPath()}
    media = filter(is_media_file, names)
    sent = [name for name in media if not folders.isdisjoint(PurePosixPath(name).parents)]
    return [*parts, *sent]


def _recognises(peek: Peek) -> bool:
    if peek.names:
        return any(_is_part(name) for name in peek.names)
    for row in object_list(peek.head, "messages"):
        if {"sender_name", "timestamp_ms"} <= row.keys():
            return True
    return {"participants", "messages", "thread_path"} <= peek.head.keys()


EXPECTED = (
    "an Instagram or Messenger chat: {participants, messages: [{sender_name, timestamp_ms, "
    "content}]}"
)
FORMAT = SourceFormat(
    "instagram", "Instagram messages", EXPECTED, matches=_recognises, read=read, claims=_claims
)
