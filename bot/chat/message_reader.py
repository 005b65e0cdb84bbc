"""Reads the messages, commands and forms of members, with the messages that are shown beside them."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import discord

from bot.chat.message_parts import described_parts
from bot.chat.message_text import (
    MarkupNames,
    quoted_text,
    raw_text,
    readable_text,
    server_names,
    unknown_users,
)
from bot.chat.places import ChannelCache, is_outside
from bot.chat.sent_files import SentFiles
from bot.store import QuotedMessage, Store, StoreError
from personas.prompt.frames import break_parts

log = logging.getLogger(__name__)
LOOK_UP_TIMEOUT_S = 1.0
"""Longest wait for names and messages that the bot has not seen; a command has to be acknowledged
in three seconds.
"""
MAX_LOOKED_UP_USERS = 5
MAX_REMEMBERED_THREADS = 10_000
LOOK_UP_ERRORS = (discord.HTTPException, aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True)
class IncomingMessage:
    """A message to answer. `event_id` is Discord's id of the message or interaction.

    Members see beside it the message that it replies to (`quoted`) and the one from which its
    thread was started (`thread_start`). `spoken`: the words of a voice message, with which `text`
    begins.
    """

    event_id: int
    author_id: int
    author_name: str
    text: str
    quoted: QuotedMessage | None = None
    thread_start: QuotedMessage | None = None
    spoken: str = ""

    def with_spoken(self, words: str) -> "IncomingMessage":
        """Return the message with the words of its voice message, if there are any."""
        return replace(self, text=f"{words}\n{self.text}", spoken=words) if words else self


class MessageReader:
    """Makes messages, commands and forms into `IncomingMessage`s: each with the same text as
    members see.
    """

    def __init__(self, store: Store, files: SentFiles) -> None:
        self._store = store
        self._files = files
        self._without_start: ChannelCache[bool] = ChannelCache(MAX_REMEMBERED_THREADS)

    async def read(self, message: discord.Message) -> IncomingMessage:
        """Read a member's message."""
        author = message.author
        quoted = await self._replied_to(message)
        start = await self._thread_start(message.channel)
        names = _names(message, author, is_addressed=True)
        if message.message_snapshots:  # Discord names the users in messages, but not in forwards
            names = await _with_fetched_names(raw_text(message), names, message.guild)
        # Last, because discord.py edits the message meanwhile.
        self._files.note(message)
        text = _addressed_text(message, names)
        return IncomingMessage(
            event_id=message.id,
            author_id=author.id,
            author_name=author.display_name,
            text=text,
            quoted=quoted,
            thread_start=start,
        )

    async def read_interaction(
        self, interaction: discord.Interaction[Any], text: str
    ) -> IncomingMessage:
        """Read the text that a member has typed into a command or a form."""
        user = interaction.user
        is_near = not is_outside(interaction)
        guild = interaction.guild if is_near else None
        own = _own_ids(guild, interaction.client.user)
        names = server_names(guild, user, users={user.id: user.display_name}, unnamed=own)
        text = break_parts(
            readable_text(text, await _with_fetched_names(text, names, guild)).strip()
        )
        return IncomingMessage(
            event_id=interaction.id,
            author_id=user.id,
            author_name=user.display_name,
            text=text,
            thread_start=await self._thread_start(interaction.channel) if is_near else None,
        )

    def text(self, message: discord.Message) -> str:
        """Return the text of a message to a persona, without mentions of the bot."""
        self._files.note(message)
        return _addressed_text(message, _names(message, message.author, is_addressed=True))

    def shown_text(self, message: discord.Message) -> str:
        """Return a message's own text as members see it, with the name of whom it mentions."""
        return readable_text(message.content, _names(message, message.author, is_addressed=False))

    def quoted(self, message: discord.Message) -> QuotedMessage:
        """Return a message as it is shown beside another one. Without any content Discord hides
        it.
        """
        self._files.note(message)
        known = None
        if message.guild:
            known = message.guild.get_member(message.author.id)
        author = known or message.author
        names = _names(message, author, is_addressed=False)
        text = readable_text(quoted_text(message), names).strip()
        return QuotedMessage(
            message_id=message.id,
            channel_id=message.channel.id,
            author_id=author.id,
            author_name=author.display_name,
            text=text or None,
        )

    async def _replied_to(self, message: discord.Message) -> QuotedMessage | None:
        """Return the message that a message replies to; None if there is none any more."""
        reference = message.reference
        if reference is None or reference.message_id is None:
            return None
        if message.type is not discord.MessageType.reply:
            return None
        if isinstance(reference.resolved, discord.DeletedReferencedMessage):
            return None
        original = reference.resolved or reference.cached_message
        if original is None:
            with suppress(*LOOK_UP_ERRORS):
                original = await _fetch(message.channel, reference.message_id)
        return self.quoted(original) if original else None

    async def _thread_start(self, channel: object) -> QuotedMessage | None:
        """Return the message that a thread was started from, which has its id; None if it is stored
        already.
        """
        if not isinstance(channel, discord.Thread) or channel.id in self._without_start:
            return None
        try:
            if self._store.quoted.find([channel.id]) or self._store.messages.is_deleted(channel.id):
                return None
        except StoreError:  # it is looked for with the next message
            return None
        parent = channel.parent
        # The first message of a post in a forum stands in the thread itself.
        place = parent if isinstance(parent, discord.TextChannel) else channel
        try:
            start = channel.starter_message or await _fetch(place, channel.id)
        except LOOK_UP_ERRORS as error:  # it is asked for with the next message
            log.info("the message that #%s was started from is not read: %s", channel, error)
            return None
        if start is None:
            self._without_start[channel.id] = True
            return None
        return self.quoted(start)


def mentions_bot(message: discord.Message, bot: discord.abc.User | None) -> bool:
    """Report whether a message mentions the bot, or its own role: clients offer it beside the bot,
    under the same name.
    """
    if bot is None:
        return False
    if bot in message.mentions:
        return True
    for role in message.role_mentions:
        if role.tags is not None and role.tags.bot_id == bot.id:
            return True
    return False


def _names(message: discord.Message, viewer: object, *, is_addressed: bool) -> MarkupNames:
    """Return the names in a message; mentions of the bot are removed where it `is_addressed`."""
    me: discord.abc.User | None = None
    if message.guild:
        me = message.guild.me
    elif isinstance(message.channel, discord.DMChannel):
        me = message.channel.me
    users = {user.id: user.display_name for user in message.mentions}
    own = _own_ids(message.guild, me) if is_addressed else ()
    return server_names(message.guild, viewer, users=users, unnamed=own)


def _own_ids(guild: discord.Guild | None, me: discord.abc.User | None) -> list[int]:
    """Return the ids of the bot and of its role in a server."""
    ids = []
    if me:
        ids.append(me.id)
    if guild and guild.self_role:
        ids.append(guild.self_role.id)
    return ids


async def _with_fetched_names(
    text: str, names: MarkupNames, guild: discord.Guild | None
) -> MarkupNames:
    """Ask for the names of a few members that a text mentions and the bot does not know yet."""
    unknown = unknown_users(text, names)[:MAX_LOOKED_UP_USERS]
    if guild is None or not unknown:
        return names
    fetched = await asyncio.gather(*(_fetch_name(guild, user_id) for user_id in unknown))
    known = {user_id: f"@{name}" for user_id, name in zip(unknown, fetched, strict=True) if name}
    return replace(names, user=lambda user_id: known.get(user_id) or names.user(user_id))


async def _fetch_name(guild: discord.Guild, user_id: int) -> str | None:
    with suppress(*LOOK_UP_ERRORS):
        async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
            return (await guild.fetch_member(user_id)).display_name
    return None


async def _fetch(channel: discord.abc.Messageable, message_id: int) -> discord.Message | None:
    """Fetch a message that the bot has not seen; None where it may not, or where there is none."""
    with suppress(discord.NotFound, discord.Forbidden):
        async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
            return await channel.fetch_message(message_id)
    return None


def _addressed_text(message: discord.Message, names: MarkupNames) -> str:
    """Return the text of a message to a persona and the descriptions of its parts. What was typed is
    broken up where it has the form of such a part: after the mention of the bot before it is gone.
    """
    typed = break_parts(readable_text(raw_text(message), names).strip())
    parts = [readable_text(part, names) for part in described_parts(message)]
    return "\n".join(filter(None, [typed, *parts])).strip()
