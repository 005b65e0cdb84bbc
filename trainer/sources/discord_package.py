"""The data package that Discord hands a person on request: what that one person wrote, in every channel.

Two layouts, zipped or unpacked: `messages/c<channel id>/messages.csv` (ID, Timestamp, Contents, Attachments; in the
oldest packages the folder has no `c`), since 2024 `Messages/c<channel id>/messages.json`, a list of objects with the
same names. The upper folder follows the account's language. `user.json` names the person.

Nobody else's messages are in it. So when a persona is asked for, the person is it, and "…" stands where others most
likely spoke: before what the person said first, and wherever the person was silent for a minute.

Described at https://support.discord.com/hc/articles/360004957991.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from personas.errors import MaterialError
from personas.rights import DATA_PACKAGE
from trainer.conversation import Conversation, Rejected
from trainer.sources import sessions
from trainer.sources.cast import SOMEONE, Author, author_of
from trainer.sources.fields import WrongField, entries, moment, optional, text
from trainer.sources.files import Peek, SourceFile
from trainer.sources.formats import Format, ReadOptions
from trainer.sources.markup import from_discord, is_command
from trainer.sources.sessions import Entry

CHANNEL = re.compile(r"(?:^|/)c?(?P<id>\d{15,20})/messages\.(?:csv|json)$")
USER = re.compile(r"(?:^|/)user\.json$")
PARTS = [name for part in ("account", "activity", "activities", "ads", "messages", "programs", "servers",
                           "support_tickets") for name in (part, part.capitalize())]  # fmt: skip
"""What the folders of a package are called in English. In other languages they are known by what is in them."""
LISTED, TRACKED = ("user.json", "index.json"), ("analytics", "modeling", "reporting", "tns")
OWNER = "owner"
OTHERS = author_of("others", (SOMEONE,))
UNKNOWN = "…"
BURST_S = 60.0


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | Rejected]:
    """The person's messages, in sessions by channel."""
    owner = _owner(file)
    channels = (_entries(file, name, owner) for name in file.names if CHANNEL.search(name))
    if options.persona or options.persona_names:
        options = replace(options, persona_names=(*options.persona_names, owner.id))
        channels = (_with_others(channel) for channel in channels)
    found = (entry for channel in channels for entry in channel)
    return sessions.conversations(found, file.name, options)


def _owner(file: SourceFile) -> Author:
    for name in filter(USER.search, file.names):
        try:
            user = next(iter(file.member(name).records()), None)
            if isinstance(user, tuple) and "username" in user[1]:
                names = (optional(user[1], "global_name"), text(user[1], "username"))
                return author_of(text(user[1], "id"), names)
        except (MaterialError, WrongField):
            continue
    return author_of(OWNER, (OWNER,))


def _entries(file: SourceFile, name: str, owner: Author) -> Iterator[Entry | Rejected]:
    match = CHANNEL.search(name)
    channel = match["id"] if match else ""

    def parse(row: str, message: dict[str, Any]) -> Entry:
        return Entry(
            row=f"{name} {row}",
            at=moment(message, "Timestamp"),
            author=owner,
            text=from_discord(optional(message, "Contents")),
            id=text(message, "ID"),
            channel=channel,
            empty=sessions.ATTACHMENT if message.get("Attachments") else sessions.NO_TEXT,
        )

    try:
        for item in entries(file.member(name).records(), parse):
            yield replace(item, row=f"{name} {item.row}") if isinstance(item, Rejected) else item
    except MaterialError as error:  # one channel's file; the others may well be whole
        yield Rejected(str(PurePosixPath(name)), error.message, rows=0)


def _with_others(channel: Iterable[Entry | Rejected]) -> Iterator[Entry | Rejected]:
    """The channel's messages in the order of time, others' unknown ones among them."""
    said: list[Entry] = []
    for item in channel:
        if isinstance(item, Entry) and item.text and not is_command(item.text):
            said.append(item)
        else:
            yield item
    said.sort(key=lambda entry: entry.at)
    last_at = float("-inf")
    for entry in said:
        if entry.at - last_at > BURST_S:
            yield Entry("", entry.at, OTHERS, UNKNOWN, channel=entry.channel)
        yield entry
        last_at = entry.at


def _claims(names: Sequence[str]) -> Sequence[str]:
    """The messages of the first package, and its other parts, which lie in folders beside that of the messages."""
    paths = [(name, PurePosixPath(name)) for name in names]
    said = next((path.parent.parent for name, path in paths if CHANNEL.search(name)), None)
    if said is None:
        return []
    parts = {said.parent / part for part in PARTS} | {said}
    parts |= {path.parent for _, path in paths if path.name in LISTED and path.parent.parent == said.parent}
    parts |= {path.parent.parent for _, path in paths if path.parent.name in TRACKED}
    parts.discard(said.parent)  # the oldest packages are no folder of their own
    return [
        name
        for name, path in paths
        if (CHANNEL.search(name) and path.parent.parent == said) or parts & set(path.parents)
    ]


def _recognises(peek: Peek) -> bool:
    return any(CHANNEL.search(name) for name in peek.names)


FORMATS = (
    Format(
        "discord-package",
        "Discord data package",
        "a Discord data package, zipped or unpacked: messages/c<id>/messages.csv or Messages/c<id>/messages.json",
        _recognises,
        read,
        DATA_PACKAGE,
        _claims,
    ),
)
