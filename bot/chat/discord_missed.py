"""Finds messages to personas that came while the bot had no connection: Discord sends it no events
of that time.
"""

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import discord

from bot.chat.message_reader import mentions_bot
from bot.chat.places import GuildChannel, SpeakChannel, channel_ref, fetch_channel
from bot.services import Bot, Services
from bot.store import StoreError

log = logging.getLogger(__name__)
MAX_MISSED_AGE = datetime.timedelta(hours=1)
"""Older messages are not answered any more."""
MAX_READ_MESSAGES = 50
"""Latest messages of a channel that are read."""
MAX_ANSWERED_IN_CHANNEL = 5
"""Latest messages to personas among them that are answered."""
MAX_CHANNELS_AT_ONCE = 4
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
    messages that were answered before.
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
            earliest = since
            if setting:  # a new persona does not answer messages from before it came
                set_at = datetime.datetime.fromtimestamp(setting.set_at, datetime.UTC)
                earliest = max(since, set_at)
            after = max(discord.utils.time_snowflake(earliest), last_events.get(channel.id, 0))
            for message in await _read_missed(client, services, channel, after):
                log.info("answering a message in #%s that came while the bot was away", channel)
                message.author = await _member(message)
                await answer(message)

    channels = list(_server_channels(client, services, since))
    if client.serves(0):  # direct messages
        for channel_id in services.store.replies.latest_channels(0, MAX_DIRECT_CHANNELS):
            if channel := await fetch_channel(client, channel_id):
                channels.append(channel)
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
        if guild is None:
            continue
        with_persona = {*channel_ids}
        channels: list[GuildChannel] = [*guild.text_channels, *guild.threads]
        for channel in channels:
            place = channel_ref(channel)
            has_persona = place.channel_id in with_persona or place.parent_id in with_persona
            is_new = (channel.last_message_id or 0) > after
            # Last: it takes long, and cannot be told of a thread whose parent the bot does not see.
            if has_persona and is_new and channel.permissions_for(guild.me).read_message_history:
                yield channel


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
    missed = list[discord.Message]()
    for message in read:
        is_member = not message.author.bot and not message.webhook_id
        if is_member and _is_addressed(client, services, message):
            missed.append(message)
    left_out = missed[MAX_ANSWERED_IN_CHANNEL:]
    if left_out:
        log.warning(
            "%d older messages to personas in #%s are not answered any more", len(left_out), channel
        )
    return missed[:MAX_ANSWERED_IN_CHANNEL][::-1]


def _is_addressed(client: Bot, services: Services, message: discord.Message) -> bool:
    if isinstance(message.channel, discord.DMChannel) or mentions_bot(message, client.user):
        return True
    reference = message.reference
    if message.type is not discord.MessageType.reply or reference is None:
        return False
    if reference.message_id is None:
        return False
    return services.store.replies.of_message(reference.message_id) is not None
