"""Finds what was said to personas while the bot had no connection: Discord sends it no events of
that time.
"""

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import discord

from bot.chat.places import GuildChannel, SpeakChannel, channel_ref, fetch_channel
from bot.services import Bot, Services
from bot.store import StoreError

log = logging.getLogger(__name__)
MAX_MISSED_AGE = datetime.timedelta(hours=1)
"""Older messages are not answered any more."""
MAX_READ_MESSAGES, MAX_ANSWERED_IN_CHANNEL, MAX_CHANNELS_AT_ONCE = 50, 5, 4
"""Latest messages of a channel that are read, and of those for personas, the latest that are
answered.
"""
MAX_DIRECT_CHANNELS = 20
"""Direct-message channels that are read: those that were used last."""
READ_TIMEOUT_S = 30.0


async def answer_missed(
    client: Bot,
    services: Services,
    since: datetime.datetime,
    answer: Callable[[discord.Message], Awaitable[None]],
) -> None:
    """Have messages to personas answered that came after a time, at most an hour ago.

    Only where the bot may read the history, and only messages that mention it or reply to a
    persona, or direct ones: a conversation among members has gone on meanwhile. `answer` ignores
    what was answered before.
    """
    since = max(since, discord.utils.utcnow() - MAX_MISSED_AGE)
    try:
        last_events = services.store.replies.last_events(since.timestamp())
    except StoreError as error:
        log.error("what was said while the bot was away is not looked for: %s", error)
        return
    free = asyncio.Semaphore(MAX_CHANNELS_AT_ONCE)

    async def in_channel(channel: SpeakChannel) -> None:
        async with free:
            place = channel_ref(channel)
            setting = services.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
            set_at = datetime.datetime.fromtimestamp(setting.set_at if setting else 0, datetime.UTC)
            earliest = discord.utils.time_snowflake(max(since, set_at))
            after = max(earliest, last_events.get(channel.id, 0))
            for message in await _read_missed(client, services, channel, after):
                log.info("answering a message in #%s that came while the bot was away", channel)
                message.author = await _member(message)
                await answer(message)

    channels = [
        *_server_channels(client, services, since),
        *await _direct_channels(client, services),
    ]
    results = await asyncio.gather(*map(in_channel, channels), return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            log.warning(
                "a channel was not searched for what was said while the bot was away: %s", result
            )


def _server_channels(
    client: Bot, services: Services, since: datetime.datetime
) -> Iterator[SpeakChannel]:
    """Yield the channels with a persona in which something was said since."""
    after = discord.utils.time_snowflake(since)
    for guild_id, channel_ids in services.store.channels.by_guild().items():
        guild = client.get_guild(guild_id)
        with_persona = {*channel_ids}
        channels: list[GuildChannel] = [*guild.text_channels, *guild.threads] if guild else []
        for channel in channels:
            place = channel_ref(channel)
            has_persona = bool({place.channel_id, place.parent_id} & with_persona)
            if has_persona and (channel.last_message_id or 0) > after and _may_read(channel):
                yield channel


def _may_read(channel: GuildChannel) -> bool:
    return channel.permissions_for(channel.guild.me).read_message_history


async def _direct_channels(client: Bot, services: Services) -> list[SpeakChannel]:
    if not client.serves(0):
        return []
    latest = services.store.replies.latest_channels(0, MAX_DIRECT_CHANNELS)
    found = [await fetch_channel(client, channel_id) for channel_id in latest]
    return [channel for channel in found if channel]


async def _member(message: discord.Message) -> discord.User | discord.Member:
    """Return the author as a member, with their name in the server: a message that is read later
    names the user.
    """
    author = message.author
    guild = message.guild
    if guild is None or isinstance(author, discord.Member):
        return author
    with suppress(discord.HTTPException):
        return guild.get_member(author.id) or await guild.fetch_member(author.id)
    return author


async def _read_missed(
    client: Bot, services: Services, channel: SpeakChannel, after: int
) -> list[discord.Message]:
    """Return the latest messages to personas in a channel after an id, oldest first."""
    history = channel.history(
        limit=MAX_READ_MESSAGES, after=discord.Object(after), oldest_first=False
    )
    async with asyncio.timeout(READ_TIMEOUT_S):
        read = [message async for message in history]
    missed = [
        it
        for it in read
        if not it.author.bot and not it.webhook_id and _is_addressed(client, services, it)
    ]
    if len(missed) > MAX_ANSWERED_IN_CHANNEL:
        left_out = len(missed) - MAX_ANSWERED_IN_CHANNEL
        log.warning(
            "%d older messages to personas in #%s are not answered any more", left_out, channel
        )
    return missed[:MAX_ANSWERED_IN_CHANNEL][::-1]


def _is_addressed(client: Bot, services: Services, message: discord.Message) -> bool:
    if isinstance(message.channel, discord.DMChannel) or client.user in message.mentions:
        return True
    if any(
        role.tags and client.user and role.tags.bot_id == client.user.id
        for role in message.role_mentions
    ):
        return True
    replied_to = message.reference.message_id if message.reference else None
    is_reply = message.type is discord.MessageType.reply and replied_to is not None
    return is_reply and services.store.replies.of_message(replied_to or 0) is not None
