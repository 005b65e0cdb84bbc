"""Slack workspace exports: a zip (or its folder) with users.json, channels.json and
channel/YYYY-MM-DD.json.

Format: https://slack.com/help/articles/220556107 and, for texts,
https://docs.slack.dev/messaging/formatting-message-text. A thread is a separate conversation from
its channel.
"""

import html
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from trainer.sources import sessionise
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.file_names import is_media_file
from trainer.sources.markup import clean_text, convert_emphasis, map_outside_code, mark_mention
from trainer.sources.record_fields import (
    UnusableRecordError,
    epoch_seconds,
    object_field,
    object_list,
    optional_text,
    text_field,
)
from trainer.sources.sessionise import LogEntry, parse_file
from trainer.sources.source_file import SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat
from trainer.sources.speakers import Author, make_author

DAY_FILE = re.compile(r"(?:^|/)(?P<channel>[^/]+)/\d{4}-\d{2}-\d{2}\.json$")
CHANNEL_LISTS = ("channels.json", "groups.json", "dms.json", "mpims.json")
WORKSPACE_FILES = (
    *("users.json", *CHANNEL_LISTS, "integration_logs.json", "canvases.json", "lists.json"),
    *("file_conversations.json", "org_users.json", "huddle_transcripts.json"),
)
"""Files at the root of an export, beside a folder per channel."""
MESSAGE_SUBTYPES = (
    "",
    *"me_message thread_broadcast reply_broadcast file_share file_comment bot_message".split(),
)
UPLOADED = re.compile(
    r"<@[^>]+> (?:uploaded|shared) a file: <[^>]+>(?: and commented: (?P<comment>.*))?", re.DOTALL
)
"""Text of file messages before 2018; the comment after it is the person's own."""
TOKEN = re.compile(
    r"<(?:@(?P<user>[A-Z0-9]+)|#(?P<channel>[A-Z0-9]+)|!(?P<special>[^|>]+)|(?P<link>[^|<>\s]+))(?:\|(?P<label>[^>]*))?>"
)
SKIN_TONE = re.compile(r":skin-tone-\d:")
SLACKBOT = "USLACKBOT"


@dataclass(frozen=True)
class SlackWorkspace:
    """Names of the user, channel and group ids in messages."""

    users: Mapping[str, Author]
    channels: Mapping[str, str]

    @cached_property
    def channel_ids(self) -> Mapping[str, str]:
        """The id of each channel by its name, which another workspace may have too."""
        return {name: id for id, name in self.channels.items()}

    def author(self, message: Mapping[str, Any]) -> Author:
        """Return the author; a bot has its id and its own name."""
        profile = object_field(message, "bot_profile")
        bot = optional_text(message, "bot_id")
        user = optional_text(message, "user")
        if bot or message.get("subtype") == "bot_message":
            names = (optional_text(message, "username"), optional_text(profile, "name"))
            return make_author(user or bot, names, tuple(filter(None, (bot,))), is_bot=True)
        if user in self.users:
            return self.users[user]
        return _person(user or text_field(message, "user"), object_field(message, "user_profile"))

    def render(self, raw: str) -> str:
        """Convert a text to Discord's markup."""
        parts = TOKEN.split(clean_text(raw))
        pieces = [html.unescape(parts[0])]
        for place in range(1, len(parts), TOKEN.groups + 1):
            user, channel, special, link, label = parts[place : place + TOKEN.groups]
            if user:
                pieces.append(mark_mention(user))
            else:
                pieces.append(html.unescape(self._label(channel, special, link, label or "")))
            # Entities are resolved piece by piece: `&lt;` must not become the start of a token.
            pieces.append(html.unescape(parts[place + TOKEN.groups]))
        return map_outside_code(
            "".join(pieces), lambda part: convert_emphasis(SKIN_TONE.sub("", part))
        )

    def _label(self, channel: str | None, special: str | None, link: str | None, label: str) -> str:
        if channel:
            return f"#{label or self.channels.get(channel, 'channel')}"
        if special:
            return label or f"@{special.split('^')[0]}"
        link = str(link)
        bare = re.sub(r"^(?:mailto:|tel:|https?://)", "", link).rstrip("/")
        # Slack labels each address that it recognises with what was typed.
        if label.rstrip("/") in ("", link, bare) or ":/" not in link:
            return label or link
        return f"[{label}]({link})"


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the sessions of every channel, each thread separately."""
    workspace = _workspace(file)
    days = sorted(name for name in file.names if DAY_FILE.search(name))
    entries = itertools.chain.from_iterable(_entries(file, name, workspace) for name in days)
    return sessionise.build_sessions(entries, file.name, options, platform="slack")


def _workspace(file: SourceFile) -> SlackWorkspace:
    users = dict[str, Author]()
    channels = dict[str, str]()
    for user in _read_lists(file, ("users.json",)):
        with suppress(UnusableRecordError):
            profile = object_field(user, "profile") | {"name": user.get("name")}
            person = _person(text_field(user, "id"), profile)
            # Slackbot is not marked as a bot.
            is_bot = user.get("is_bot") is True or person.id == SLACKBOT
            users[person.id] = replace(person, is_bot=is_bot)
    for channel in _read_lists(file, CHANNEL_LISTS):
        with suppress(UnusableRecordError):
            channels[text_field(channel, "id")] = optional_text(channel, "name") or "channel"
    return SlackWorkspace(users, channels)


def _read_lists(file: SourceFile, lists: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Read the lists at the top of the export; messages do without unreadable ones."""
    for name in file.names:
        if PurePosixPath(name).name not in lists:
            continue
        for record in file.member(name).records():
            if not isinstance(record, RejectedRecord) and isinstance(record[1].get("id"), str):
                yield record[1]


def _person(id: str, profile: Mapping[str, Any]) -> Author:
    names = [profile.get(key) for key in ("display_name", "real_name", "name")]
    return make_author(id, tuple(name for name in names if isinstance(name, str)))


def _entries(
    file: SourceFile, name: str, workspace: SlackWorkspace
) -> Iterator[LogEntry | RejectedRecord]:
    match = DAY_FILE.search(name)
    folder = match["channel"] if match else ""
    channel = workspace.channel_ids.get(folder, folder)
    return parse_file(file, name, lambda row, message: _entry(row, message, channel, workspace))


def _entry(
    row: str, record: Mapping[str, Any], channel: str, workspace: SlackWorkspace
) -> LogEntry:
    kind = optional_text(record, "subtype")
    at = epoch_seconds(record, "ts")
    if kind == "message_deleted":
        thread = _thread(object_field(record, "previous_message"), channel)
        return _deletion(row, at, thread, text_field(record, "deleted_ts"), channel)
    message = object_field(record, "message") if kind == "message_changed" else record
    subtype = optional_text(message, "subtype")
    if kind == "message_changed" and subtype == "tombstone":
        # A message with replies is not deleted but changed, to a notice that it was.
        return _deletion(row, at, _thread(message, channel), text_field(message, "ts"), channel)
    text, author = _text_and_author(message, workspace)
    dropped = ""
    if subtype == "tombstone":
        dropped = sessionise.DELETED
    elif subtype not in MESSAGE_SUBTYPES:
        dropped = sessionise.SYSTEM
    id = text_field(message, "ts")
    thread = optional_text(message, "thread_ts")
    return LogEntry(
        row=row,
        at=epoch_seconds(message, "ts"),
        author=author,
        text=workspace.render(text) if not dropped else "",
        id=id,
        reply_to=thread if thread != id else "",
        channel=_thread(message, channel),
        dropped=dropped,
        empty=_empty(message),
        edited_at=_edited_at(message),
        # A message moves from its channel to a thread when it is answered there.
        id_space=channel,
    )


def _edited_at(message: Mapping[str, Any]) -> float:
    edited = message.get("edited")
    return epoch_seconds(edited, "ts") if isinstance(edited, dict) and "ts" in edited else 0.0


def _deletion(row: str, at: float, thread: str, deleted: str, channel: str) -> LogEntry:
    author = make_author("", ())
    return LogEntry(row, at, author, "", channel=thread, deletes=deleted, id_space=channel)


def _thread(message: Mapping[str, Any], channel: str) -> str:
    thread = optional_text(message, "thread_ts")
    return f"{channel} {thread}" if thread else channel


def _text_and_author(message: Mapping[str, Any], workspace: SlackWorkspace) -> tuple[str, Author]:
    comment = object_field(message, "comment")
    if message.get("subtype") == "file_comment" and comment:
        return text_field(comment, "comment"), workspace.author(comment)
    text = optional_text(message, "text")
    upload = UPLOADED.fullmatch(text) if "file" in message else None
    if upload:
        text = upload["comment"] or ""
    if message.get("type", "message") != "message":
        raise UnusableRecordError("type: a message was expected")
    return text, workspace.author(message)


def _empty(message: Mapping[str, Any]) -> str:
    if message.get("file") or message.get("files"):
        return sessionise.ATTACHMENT
    if object_list(message, "attachments") or message.get("blocks"):
        return sessionise.EMBED
    return sessionise.NO_TEXT


def _claims(names: Sequence[str]) -> Sequence[str]:
    """Claim the lists at the top of a workspace, its channels' days, and attachments."""
    paths = [(name, PurePosixPath(name)) for name in names]
    tops = {path.parent for _, path in paths if path.name in ("users.json", *CHANNEL_LISTS)}
    days = [(name, path) for name, path in paths if DAY_FILE.search(name)]
    for top in sorted(tops):
        channels = {path.parent for _, path in days if path.parent.parent == top}
        if not channels:
            continue
        claimed = {name for name, path in days if path.parent in channels}
        for name, path in paths:
            is_list = path.parent == top and path.name in WORKSPACE_FILES
            is_sent = is_media_file(name) and not channels.isdisjoint(path.parents)
            if is_list or is_sent:
                claimed.add(name)
        return [name for name in names if name in claimed]
    return []


EXPECTED = (
    "a Slack export, zipped or unpacked: users.json, channels.json, <channel>/<YYYY-MM-DD>.json"
)
FORMAT = SourceFormat(
    "slack",
    "Slack export",
    EXPECTED,
    matches=lambda peek: bool(_claims(peek.names)),
    read=read,
    claims=_claims,
)
