"""Turns Discord's messages into the text that members see: names in place of ids, for every way in.

Source of the markup: discord.com/developers/docs/reference#message-formatting.
"""

import datetime
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import discord

MARKUP_PATTERN = re.compile(
    r"(?P<code>```.+?```|(?<!`)(?P<ticks>`{1,2})(?!`).+?(?<!`)(?P=ticks)(?!`))"
    r"|<@!?(?P<user>\d{1,20})>"
    r"|<@&(?P<role>\d{1,20})>"
    r"|<#(?P<channel>\d{1,20})>"
    r"|<a?(?P<emoji>:\w+:)\d{1,20}>"
    r"|<t:(?P<time>-?\d{1,17})(?::(?P<style>[a-zA-Z]))?>"
    r"|<(?P<command>/[^:<>\n]{1,110}):\d{1,20}>"
    r"|<id:(?P<page>[a-z-]{1,40})(?::\d{1,20})?>"
    r"|<(?P<sound>sound):\d{1,20}:\d{1,20}>"
    r"|<(?P<link>https?://[^\s<>]{1,2000})>",
    re.DOTALL,
)
USER_PATTERN = re.compile(r"<@!?(\d{1,20})>")
PAGE_NAMES = {
    "customize": "Channels & Roles",
    "browse": "Browse Channels",
    "guide": "Server Guide",
    "home": "Server Guide",
    "linked-roles": "Linked Roles",
}
"""The names that clients show for links to a server's own pages."""
UNKNOWN_USER, UNKNOWN_ROLE, UNKNOWN_CHANNEL = "@unknown-user", "@unknown-role", "#unknown"
"""What clients show of ids that they do not know, or of channels that the reader does not see."""
SMALL_PRINT_PATTERN = re.compile(r"^-# .*\n?", re.MULTILINE)
VIDEO = "video/"
AUDIO = "audio/"
IMAGE = "image/"
BLANK_SIGNS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Hangul fillers and an empty Braille cell, which Unicode counts among letters and symbols."""
NameOf = Callable[[int], str]


@dataclass(frozen=True)
class MarkupNames:
    """The texts that stand for the ids of users, roles and channels."""

    user: NameOf
    role: NameOf
    channel: NameOf


ANONYMOUS_NAMES = MarkupNames(lambda _: "someone", lambda _: "someone", lambda _: "a channel")
"""Names nobody, for texts that are kept beyond their conversation."""


def readable_text(text: str, names: MarkupNames, *, keep_code: bool = True) -> str:
    """Replace Discord's markup by what members see.

    Times are given in UTC, and relative ones as dates, since the text is read again later. Code
    stays as it is, unless `keep_code` is False.
    """

    def replaced(found: re.Match[str]) -> str:
        if found["code"]:
            return (
                found[0]
                if keep_code
                else found[0][0] + readable_text(found[0][1:], names, keep_code=False)
            )
        for kind, name_of in (
            ("user", names.user),
            ("role", names.role),
            ("channel", names.channel),
        ):
            if found[kind]:
                return name_of(int(found[kind]))
        if found["time"]:
            return time_text(int(found["time"]), found["style"] or "f")
        if found["page"]:
            return PAGE_NAMES.get(found["page"], found["page"])
        return found["emoji"] or found["command"] or found["link"] or "(a sound)"

    return MARKUP_PATTERN.sub(replaced, text)


def time_text(seconds: int, style: str) -> str:
    """Return a time in seconds since 1970 in one of Discord's styles, in UTC."""
    try:
        time = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return "an unknown time"
    date = f"{time.day} {time:%B %Y}"
    if style in ("t", "T"):
        return f"{time:%H:%M} UTC"
    if style in ("d", "D"):
        return date
    return f"{time:%A, }{date} {time:%H:%M} UTC" if style == "F" else f"{date} {time:%H:%M} UTC"


def server_names(
    guild: discord.Guild | None,
    viewer: object,
    *,
    users: Mapping[int, str],
    unnamed: Iterable[int] = (),
) -> MarkupNames:
    """Return the names of a server as `viewer` sees them; channels that they do not see have none.

    `users` are further names by id. `unnamed` are users and roles of whose mentions nothing is
    left: the bot's own, to whom a text is said.
    """
    own = {*unnamed}

    def user(user_id: int) -> str:
        member = guild.get_member(user_id) if guild else None
        name = users.get(user_id) or (member.display_name if member else None)
        return "" if user_id in own else f"@{name}" if name else UNKNOWN_USER

    def role(role_id: int) -> str:
        found = guild.get_role(role_id) if guild else None
        return (
            "" if role_id in own else f"@{found.name.removeprefix('@')}" if found else UNKNOWN_ROLE
        )

    return MarkupNames(
        user, role, lambda channel_id: channel_name(guild, viewer, channel_id) or UNKNOWN_CHANNEL
    )


def channel_name(guild: discord.Guild | None, viewer: object, channel_id: int) -> str | None:
    """Return the name of a channel or public thread that a member sees; None for others."""
    channel = guild.get_channel_or_thread(channel_id) if guild else None
    place = (
        channel.parent
        if isinstance(channel, discord.Thread) and not channel.is_private()
        else channel
    )
    if (
        channel is None
        or place is None
        or isinstance(place, discord.Thread)
        or not isinstance(viewer, discord.Member)
    ):
        return None
    return f"#{channel.name}" if place.permissions_for(viewer).view_channel else None


def unknown_users(text: str, names: MarkupNames) -> list[int]:
    """List the users whom a text mentions, and who have no name."""
    mentioned = dict.fromkeys(map(int, USER_PATTERN.findall(text)))
    return [user_id for user_id in mentioned if names.user(user_id) == UNKNOWN_USER]


def raw_text(message: discord.Message) -> str:
    """Return a message's text with its markup; a forward has that of what it forwards, without
    small print.
    """
    if not message.message_snapshots:
        return message.content
    texts = (
        "\n".join([it.content, *map(embed_text, it.embeds)]) for it in message.message_snapshots
    )
    return SMALL_PRINT_PATTERN.sub("", "\n".join(texts)).strip()


def quoted_text(message: discord.Message) -> str:
    """Return what members see of a message that is shown beside another one, with its markup.

    What is no text is named in brackets; a bot's small print is left out.
    """
    text = (
        SMALL_PRINT_PATTERN.sub("", raw_text(message)) if message.author.bot else raw_text(message)
    )
    parts = [text.strip(), *map(embed_text, message.embeds)]
    if unread := unread_parts(message):
        parts.append(f"[{join_words(unread)}]")
    return "\n".join(part for part in parts if part)


def embed_text(embed: discord.Embed) -> str:
    """Return the text of an embed: author, title, description, fields and footer."""
    fields = (f"{field.name}: {field.value}" for field in embed.fields)
    parts = (embed.author.name, embed.title, embed.description, *fields, embed.footer.text)
    return "\n".join(part for part in parts if part)


def unread_parts(message: discord.Message) -> list[str]:
    """Name what a message shows beside its text, such as "a sticker" and "2 pictures"."""
    kinds = Counter[str]()
    sources: list[discord.Message | discord.MessageSnapshot] = [message, *message.message_snapshots]
    for shown in sources:
        kinds.update({"sticker": len(shown.stickers)})
        kinds.update(map(_attachment_kind, shown.attachments))
    kinds.update(
        {
            "poll": message.poll is not None,
            "invitation to an activity": message.activity is not None,
        }
    )
    article = {"invitation to an activity": "an", "audio file": "an"}
    return [
        f"{article.get(kind, 'a')} {kind}" if count == 1 else f"{count} {kind}s"
        for kind, count in kinds.items()
        if count
    ]


def _attachment_kind(attachment: discord.Attachment) -> str:
    kind = attachment.content_type or ""
    if attachment.is_voice_message():
        return "voice message"
    names = {IMAGE: "picture", VIDEO: "video", AUDIO: "audio file"}
    return next((name for prefix, name in names.items() if kind.startswith(prefix)), "file")


def join_words(words: Sequence[str]) -> str:
    """Join words as in a sentence: "a, b and c"."""
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def has_words(text: str) -> bool:
    """Return True if a text has a sign that is seen: a letter, a digit, a symbol or punctuation."""
    return any(unicodedata.category(sign)[0] in "LNPS" and sign not in BLANK_SIGNS for sign in text)
