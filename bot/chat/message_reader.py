"""Reads what members write on Discord, with the messages that are shown beside it."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import discord

from bot.chat.message_text import (
    MarkupNames,
    quoted_text,
    raw_text,
    readable_text,
    server_names,
    unknown_users,
)
from bot.chat.places import ChannelCache
from bot.store import QuotedMessage, Store, StoreError

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
    thread was started (`thread_start`).
    """

    event_id: int
    author_id: int
    author_name: str
    text: str
    quoted: QuotedMessage | None = None
    thread_start: QuotedMessage | None = None


class MessageReader:
    """Makes messages, commands and forms into `IncomingMessage`s: each with the same text as
    members see.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._without_start: ChannelCache[bool] = ChannelCache(MAX_REMEMBERED_THREADS)

    async def read(self, message: discord.Message) -> IncomingMessage:
        """Read a member's message."""
        author = message.author
        quoted = await self._replied_to(message)
        start = await self._thread_start(message.channel)
        names = _names(message, author, is_addressed=True)
        if message.message_snapshots:  # of a message itself, Discord names all users who exist
            names = await _with_fetched_names(raw_text(message), names, message.guild)
        text = readable_text(
            raw_text(message), names
        )  # last: discord.py edits the message meanwhile
        return IncomingMessage(
            message.id, author.id, author.display_name, text.strip(), quoted, start
        )

    async def read_interaction(
        self, interaction: discord.Interaction[Any], text: str
    ) -> IncomingMessage:
        """Read what a member has typed into a command or a form."""
        user = interaction.user
        guild = interaction.guild
        own = _own_ids(guild, interaction.client.user)
        names = server_names(guild, user, users={user.id: user.display_name}, unnamed=own)
        text = readable_text(text, await _with_fetched_names(text, names, guild)).strip()
        start = await self._thread_start(interaction.channel)
        return IncomingMessage(interaction.id, user.id, user.display_name, text, None, start)

    def text(self, message: discord.Message) -> str:
        """Return the text of a message to a persona, without mentions of the bot."""
        return readable_text(
            raw_text(message), _names(message, message.author, is_addressed=True)
        ).strip()

    def quoted(self, message: discord.Message) -> QuotedMessage:
        """Return a message as it is shown beside another one. Without any content Discord hides
        it.
        """
        known = message.guild.get_member(message.author.id) if message.guild else None
        author = known or message.author
        text = readable_text(
            quoted_text(message), _names(message, author, is_addressed=False)
        ).strip()
        return QuotedMessage(
            message.id, message.channel.id, author.id, author.display_name, text or None
        )

    async def _replied_to(self, message: discord.Message) -> QuotedMessage | None:
        """Return the message that a message replies to; None if there is none any more."""
        reference = message.reference
        if (
            reference is None
            or reference.message_id is None
            or message.type is not discord.MessageType.reply
        ):
            return None
        if isinstance(reference.resolved, discord.DeletedReferencedMessage):
            return None
        found = reference.resolved or reference.cached_message
        with suppress(*LOOK_UP_ERRORS):
            found = found or await _fetch(message.channel, reference.message_id)
        return self.quoted(found) if found else None

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
        place = (
            channel.parent if isinstance(channel.parent, discord.TextChannel) else channel
        )  # else it is a post
        try:
            found = channel.starter_message or await _fetch(place, channel.id)
        except LOOK_UP_ERRORS as error:  # it is asked for with the next message
            log.info("the message that #%s was started from is not read: %s", channel, error)
            return None
        if found is None:
            self._without_start[channel.id] = True
        return self.quoted(found) if found else None


def _names(message: discord.Message, viewer: object, *, is_addressed: bool) -> MarkupNames:
    """Return the names in a message; of the bot's own nothing is left where it `is_addressed`."""
    users = {user.id: user.display_name for user in message.mentions}
    me = message.guild.me if message.guild else _me(message)
    own = _own_ids(message.guild, me) if is_addressed else ()
    return server_names(message.guild, viewer, users=users, unnamed=own)


def _me(message: discord.Message) -> discord.abc.User | None:
    channel = message.channel
    return channel.me if isinstance(channel, discord.DMChannel) else None


def _own_ids(guild: discord.Guild | None, me: discord.abc.User | None) -> list[int]:
    return [it.id for it in (me, guild.self_role if guild else None) if it]


async def _with_fetched_names(
    text: str, names: MarkupNames, guild: discord.Guild | None
) -> MarkupNames:
    """Ask for the names of a few members whom a text mentions, and who are not known yet."""
    unknown = unknown_users(text, names)[:MAX_LOOKED_UP_USERS]
    if guild is None or not unknown:
        return names
    found = await asyncio.gather(*(_fetch_name(guild, user_id) for user_id in unknown))
    known = {user_id: f"@{name}" for user_id, name in zip(unknown, found, strict=True) if name}
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
