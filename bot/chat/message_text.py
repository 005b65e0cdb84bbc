"""Turns Discord's messages into the text that members see: names in place of ids, for every way in.

Source of the markup: discord.com/developers/docs/reference#message-formatting.
"""

import datetime
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import discord

from bot.chat.message_parts import described_parts
from bot.safety.actions import DISCLOSURE_LINES
from personas.prompt.frames import break_parts

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
# Clients show these for unknown ids, and for channels that the reader does not see.
UNKNOWN_USER = "@unknown-user"
UNKNOWN_ROLE = "@unknown-role"
UNKNOWN_CHANNEL = "#unknown"
SMALL_PRINT_PATTERN = re.compile(r"^-# .*\n?", re.MULTILINE)
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
    """Replace Discord's markup by the text that members see.

    Times are given in UTC, and relative ones as dates, since the text is read again later. Code
    stays as it is, unless `keep_code` is False.
    """

    name_of = {"user": names.user, "role": names.role, "channel": names.channel}

    def shown(markup: re.Match[str]) -> str:
        if markup["code"]:
            code = markup[0]
            if keep_code:
                return code
            # Without its first tick it is no code any more, and its markup is replaced, too.
            return code[0] + readable_text(code[1:], names, keep_code=False)
        for kind in name_of:
            if markup[kind]:
                return name_of[kind](int(markup[kind]))
        if markup["time"]:
            return time_text(int(markup["time"]), markup["style"] or "f")
        if markup["page"]:
            return PAGE_NAMES.get(markup["page"], markup["page"])
        return markup["emoji"] or markup["command"] or markup["link"] or "(a sound)"

    return MARKUP_PATTERN.sub(shown, text)


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
    weekday = f"{time:%A, }" if style == "F" else ""
    return f"{weekday}{date} {time:%H:%M} UTC"


def server_names(
    guild: discord.Guild | None,
    viewer: object,
    *,
    users: Mapping[int, str],
    unnamed: Iterable[int] = (),
) -> MarkupNames:
    """Return the names of a server as `viewer` sees them; channels that they do not see have none.

    `users` are further names by id. Mentions of `unnamed` users and roles are removed: those of the
    bot, to which a text is addressed.
    """
    unnamed = {*unnamed}

    def user(user_id: int) -> str:
        if user_id in unnamed:
            return ""
        name = users.get(user_id)
        if not name and guild and (member := guild.get_member(user_id)):
            name = member.display_name
        return f"@{name}" if name else UNKNOWN_USER

    def role(role_id: int) -> str:
        if role_id in unnamed:
            return ""
        known = guild.get_role(role_id) if guild else None
        if known is None:
            return UNKNOWN_ROLE
        return f"@{known.name.removeprefix('@')}"  # the name of "@everyone" has one

    def channel(channel_id: int) -> str:
        return channel_name(guild, viewer, channel_id) or UNKNOWN_CHANNEL

    return MarkupNames(user, role, channel)


def channel_name(guild: discord.Guild | None, viewer: object, channel_id: int) -> str | None:
    """Return the name of a channel or public thread that a member sees; None for others."""
    channel = None
    if guild:
        channel = guild.get_channel_or_thread(channel_id)
    if channel is None or not isinstance(viewer, discord.Member):
        return None
    seen_with: discord.abc.GuildChannel | None
    if not isinstance(channel, discord.Thread):
        seen_with = channel
    elif channel.is_private():
        seen_with = None
    else:
        seen_with = channel.parent
    if seen_with is None or not seen_with.permissions_for(viewer).view_channel:
        return None
    return f"#{channel.name}"


def unknown_users(text: str, names: MarkupNames) -> list[int]:
    """List the users without a name that a text mentions."""
    mentioned = dict.fromkeys(map(int, USER_PATTERN.findall(text)))
    return [user_id for user_id in mentioned if names.user(user_id) == UNKNOWN_USER]


def raw_text(message: discord.Message) -> str:
    """Return a message's text with its markup; a forward's is that of the original message, without
    small print.
    """
    if not message.message_snapshots:
        return message.content or layout_text(message.components)
    texts = list[str]()
    for snapshot in message.message_snapshots:
        shown = snapshot.content or layout_text(snapshot.components)
        texts += [shown, *map(embed_text, snapshot.embeds)]
    return _without_notes("\n".join(texts)).strip()


def layout_text(components: Iterable[object]) -> str:
    """Return the text of a bot's message that is laid out with components."""
    texts = list[str]()
    for component in components:
        if isinstance(component, discord.TextDisplay):
            texts.append(component.content)
        elif isinstance(component, discord.Container | discord.SectionComponent):
            texts.append(layout_text(component.children))
    return "\n".join(filter(None, texts))


def said_text(message: discord.Message) -> str:
    """Return the text of a message to a persona, with its markup and the descriptions of its
    parts.
    """
    return "\n".join(
        filter(None, [break_parts(raw_text(message).strip()), *described_parts(message)])
    )


def quoted_text(message: discord.Message) -> str:
    """Return the text of a message that is shown beside another one, with its markup, its embeds
    and the descriptions of its parts, and without a bot's small print.
    """
    text = raw_text(message)
    if message.author.bot:
        text = _without_notes(text)
    parts = [text.strip(), *map(embed_text, message.embeds), *described_parts(message)]
    return "\n".join(part for part in parts if part)


def _without_notes(text: str) -> str:
    """Remove a bot's small print, and the lines that tell that a persona is AI, in any language:
    those of servers with minors are not in small print.
    """
    lines = SMALL_PRINT_PATTERN.sub("", text).split("\n")
    return "\n".join(line for line in lines if line not in DISCLOSURE_LINES)


def embed_text(embed: discord.Embed) -> str:
    """Return the text of an embed: author, title, description, fields and footer."""
    fields = (f"{field.name}: {field.value}" for field in embed.fields)
    parts = (embed.author.name, embed.title, embed.description, *fields, embed.footer.text)
    return "\n".join(part for part in parts if part)


def has_words(text: str) -> bool:
    """Return True if a text has a sign that is seen: a letter, a digit, a symbol or punctuation."""
    return any(unicodedata.category(sign)[0] in "LNPS" and sign not in BLANK_SIGNS for sign in text)
