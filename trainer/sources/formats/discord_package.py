"""Discord data packages: one person's messages in every channel, zipped or unpacked."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from personas.errors import MaterialError
from personas.schemas.base import DATA_PACKAGE
from trainer.sources import sessionise
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.formats.discord_export import PLATFORM
from trainer.sources.markup import is_command, normalise_discord
from trainer.sources.record_fields import (
    UnusableRecordError,
    optional_text,
    text_field,
    timestamp_field,
)
from trainer.sources.sessionise import LogEntry, parse_file
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat
from trainer.sources.speakers import UNKNOWN_SPEAKER, Author, make_author

CHANNEL = re.compile(r"(?:^|/)c?(?P<id>\d{15,20})/messages\.(?:csv|json)$")
USER = re.compile(r"(?:^|/)user\.json$")
PARTS = "account activity activities ads messages programs servers support_tickets".split()
PACKAGE_FOLDERS = (*PARTS, *map(str.capitalize, PARTS))
"""English folder names of a package; in other languages folders are recognised by their content."""
INDEX_FILES = ("user.json", "index.json")
ANALYTICS_FOLDERS = ("analytics", "modeling", "reporting", "tns")
OWNER = "owner"
OTHER_AUTHOR = make_author("others", (UNKNOWN_SPEAKER,))
UNKNOWN_TEXT = "…"
BURST_S = 60.0


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the person's messages, in sessions by channel."""
    owner = _owner(file)
    channels = _channels(file, owner)
    if options.persona or options.persona_names:
        # All messages are the owner's, so a persona that is asked for is the owner; without the
        # others' lines, its own would answer nobody.
        options = replace(options, persona_names=(*options.persona_names, owner.id))
        channels = map(_add_unknown_replies, channels)
    entries = itertools.chain.from_iterable(channels)
    return sessionise.build_sessions(entries, file.name, options, platform=PLATFORM)


def _channels(file: SourceFile, owner: Author) -> Iterator[Iterator[LogEntry | RejectedRecord]]:
    for name in file.names:
        match = CHANNEL.search(name)
        if match:
            yield _entries(file, name, match["id"], owner)


def _owner(file: SourceFile) -> Author:
    for name in filter(USER.search, file.names):
        try:
            user = next(iter(file.member(name).records()), None)
            if isinstance(user, tuple) and "username" in user[1]:
                names = (optional_text(user[1], "global_name"), text_field(user[1], "username"))
                return make_author(text_field(user[1], "id"), names)
        except (MaterialError, UnusableRecordError):
            continue
    return make_author(OWNER, (OWNER,))


def _entries(
    file: SourceFile, name: str, channel: str, owner: Author
) -> Iterator[LogEntry | RejectedRecord]:
    def parse(row: str, message: dict[str, Any]) -> LogEntry:
        return LogEntry(
            row=row,
            at=timestamp_field(message, "Timestamp"),
            author=owner,
            text=normalise_discord(optional_text(message, "Contents")),
            id=text_field(message, "ID"),
            channel=channel,
            empty=sessionise.ATTACHMENT if message.get("Attachments") else sessionise.NO_TEXT,
        )

    return parse_file(file, name, parse)


def _add_unknown_replies(
    channel: Iterable[LogEntry | RejectedRecord],
) -> Iterator[LogEntry | RejectedRecord]:
    """Order the channel's messages by time, with placeholders for other people's missing ones."""
    messages: list[LogEntry] = []
    for item in channel:
        if isinstance(item, LogEntry) and item.text and not is_command(item.text):
            messages.append(item)
        else:
            yield item
    messages.sort(key=lambda entry: entry.at)
    last_at = float("-inf")
    for entry in messages:
        if entry.at - last_at > BURST_S:
            yield LogEntry("", entry.at, OTHER_AUTHOR, UNKNOWN_TEXT, channel=entry.channel)
        yield entry
        last_at = entry.at


def _claims(names: Sequence[str]) -> Sequence[str]:
    """Claim the messages of the first package and its other parts, in sibling folders of the
    messages.
    """
    paths = [(name, PurePosixPath(name)) for name in names]
    messages = next((path.parent.parent for name, path in paths if CHANNEL.search(name)), None)
    if messages is None:
        return []
    root = messages.parent
    parts = {root / part for part in PACKAGE_FOLDERS} | {messages}
    for _, path in paths:
        if path.name in INDEX_FILES and path.parent.parent == root:
            parts.add(path.parent)
        if path.parent.name in ANALYTICS_FOLDERS:
            parts.add(path.parent.parent)
    parts.discard(root)  # the oldest packages have no folder of their own
    claimed = []
    for name, path in paths:
        is_channel = CHANNEL.search(name) and path.parent.parent == messages
        if is_channel or not parts.isdisjoint(path.parents):
            claimed.append(name)
    return claimed


def _recognises(peek: Peek) -> bool:
    return any(CHANNEL.search(name) for name in peek.names)


EXPECTED = (
    "a Discord data package, zipped or unpacked: messages/c<id>/messages.csv or "
    "Messages/c<id>/messages.json"
)
FORMAT = SourceFormat(
    "discord-package",
    "Discord data package",
    EXPECTED,
    matches=_recognises,
    read=read,
    right=DATA_PACKAGE,
    claims=_claims,
)
