"""Finds messages to personas that came while the bot had no connection: Discord sends it no events
of that time.
"""

import asyncio
import datetime
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import astuple
from functools import partial
from typing import Any

import discord

from bot.chat.addressing import Decision, Rule
from bot.chat.delivery import UNCERTAIN_ERRORS, persist
from bot.chat.discord_addressing import decide_on, persona_replied_to
from bot.chat.message_text import has_words
from bot.chat.places import GuildChannel, SpeakChannel, channel_ref, fetch_channel, may_read
from bot.platform.localisation import gettext_lazy
from bot.services import Bot, Services
from bot.store import StoreError

log = logging.getLogger(__name__)
MISSED_MINUTES = 10
MAX_MISSED_AGE_S = 60.0 * MISSED_MINUTES
"""Older messages are not answered any more: their conversation has gone on."""
LATE_NOTICE_S = 60.0
"""A lost connection is noticed so late: what came in that time is lost, too."""
MAX_READ_MESSAGES = 50
"""Latest messages of a channel that are read."""
MAX_CALLS_IN_CHANNEL = 5
"""Latest messages to personas among them, with those that have an answer; the rest is answered."""
MAX_CHANNELS_AT_ONCE = 4
STORED_POLL_S = 0.02
MAX_DIRECT_CHANNELS = 20
"""Direct-message channels that are read: those that were used last."""
CALLED = frozenset({Rule.DIRECT_MESSAGE, Rule.REPLY, Rule.MENTION, Rule.NAMED})
"""The rules by which a missed message is answered; other ones were said to everybody there."""
OVERDUE_REMARK = gettext_lazy(
    "more than {count} messages to personas were here when the bot came back, and it answers the "
    "latest",
    count=MAX_CALLS_IN_CHANNEL,
)
ANSWERED_REMARK = gettext_lazy("the bot has answered it with a notice")
WORDLESS_REMARK = gettext_lazy("it has no words, and waited when the bot came back")
Answer = Callable[[discord.Message], Coroutine[Any, Any, None]]


async def answer_missed(
    client: Bot,
    services: Services,
    away_since: float,
    answer: Answer,
) -> None:
    """Have messages to personas answered, in their order, that came since the bot was away (in
    seconds since 1970, 0 where nobody knows), at most ten minutes ago.

    Only where the bot may read the history, and only messages that call a persona (`CALLED`), or
    speak of self-harm where it answers all: a conversation among members has gone on meanwhile.
    `answer` ignores messages that were answered before, so a bot that is killed in between answers
    none twice.
    """
    now = services.time_zones.clock.now()
    from_time = max(now - MAX_MISSED_AGE_S, away_since - LATE_NOTICE_S)
    since = datetime.datetime.fromtimestamp(from_time, datetime.UTC)
    if from_time > away_since:
        services.decisions.looked_back_to = from_time
    free = asyncio.Semaphore(MAX_CHANNELS_AT_ONCE)

    async def in_channel(channel: SpeakChannel) -> None:
        async with free:
            place = channel_ref(channel)
            setting = services.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
            earliest = since
            if setting:  # a new persona does not answer messages from before it came
                set_at = datetime.datetime.fromtimestamp(setting.set_at, datetime.UTC)
                earliest = max(since, set_at)
            wait_s = services.answering.in_channel(*astuple(place)).wait_s
            for lines in _quick_lines(
                await _read_missed(client, services, channel, earliest), wait_s
            ):
                log.info("answering messages in #%s that came while the bot was away", channel)
                for message in lines:
                    message.author = await _member(message)
                await _answer_lines(services, lines, answer)

    try:
        channels = list(_server_channels(client, services, since))
        channels += await _direct_channels(client, services)
    except StoreError as error:
        log.error("what was said while the bot was away is not looked for: %s", error)
        return
    results = await asyncio.gather(*map(in_channel, channels), return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            log.warning(
                "a channel was not searched for what was said while the bot was away: %s", result
            )


async def _answer_lines(services: Services, lines: list[discord.Message], answer: Answer) -> None:
    """Have lines answered at once, as one reply answers those that wait; each is stored before the
    next is read, however long that takes. None once the bot stops: its next start answers them, in
    their order.
    """
    if services.reply_service.is_closed:
        return
    events = services.reply_service.events
    async with asyncio.TaskGroup() as tasks:
        for line in lines:
            task = tasks.create_task(answer(line))
            is_stored = partial(_is_stored, services, line)
            while not task.done() and not await events.read(is_stored):  # noqa: ASYNC110  or ended
                await asyncio.sleep(STORED_POLL_S)


def _quick_lines(messages: list[discord.Message], wait_s: float) -> list[list[discord.Message]]:
    """Split messages, oldest first, into the lines that one reply would have answered."""
    groups = list[list[discord.Message]]()
    for message in messages:
        before = groups[-1][-1] if groups else None
        is_of_same = before is not None and before.author.id == message.author.id
        if before and is_of_same and _gap_s(before, message) < wait_s:
            groups[-1].append(message)
        else:
            groups.append([message])
    return groups


def _gap_s(before: discord.Message, message: discord.Message) -> float:
    return (message.created_at - before.created_at).total_seconds()


async def _direct_channels(client: Bot, services: Services) -> list[SpeakChannel]:
    """Return the direct-message channels that were used last."""
    channels = []
    for channel_id in services.store.replies.latest_channels(0, MAX_DIRECT_CHANNELS):
        with suppress(discord.HTTPException, *UNCERTAIN_ERRORS):
            if channel := await fetch_channel(client, channel_id):
                channels.append(channel)
    return channels


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
        channels = list[GuildChannel](guild.threads)
        channels += [channel for channel in guild.channels if isinstance(channel, GuildChannel)]
        for channel in channels:
            place = channel_ref(channel)
            has_persona = place.channel_id in with_persona or place.parent_id in with_persona
            is_new = (channel.last_message_id or 0) > after
            # Last: it takes long, and cannot be told of a thread whose parent the bot does not see.
            if has_persona and is_new and may_read(channel, guild.me):
                yield channel


async def _member(message: discord.Message) -> discord.User | discord.Member:
    """Return the author as a member, with their name in the server: a message that is read later
    names the user.
    """
    author = message.author
    guild = message.guild
    if guild is None or isinstance(author, discord.Member):
        return author
    with suppress(discord.HTTPException, *UNCERTAIN_ERRORS):
        return guild.get_member(author.id) or await guild.fetch_member(author.id)
    return author


async def _read_missed(
    client: Bot, services: Services, channel: SpeakChannel, since: datetime.datetime
) -> list[discord.Message]:
    """Return those of the latest messages in a channel that call a persona, or speak of self-harm to
    one, and have no answer yet, oldest first.
    """

    async def read() -> list[discord.Message]:
        history = channel.history(limit=MAX_READ_MESSAGES, after=since, oldest_first=False)
        return [message async for message in history]

    latest = await persist(read)
    own_id = client.user.id if client.user else 0
    noticed = {
        message.reference.message_id
        for message in latest
        if message.author.id == own_id and message.reference
    }
    missed = list[discord.Message]()
    calls = 0
    for message in latest:
        if message.author.bot or message.webhook_id:
            continue
        decision = decide_on(client, message, channel)
        if decision.rule not in CALLED:
            if message.id not in noticed and _needs_help(services, message, decision):
                missed.append(message)
            _note_quiet(services, message, decision)
            continue
        calls += 1
        if _is_handled(services, message):
            continue
        remark: str = ""
        if message.id in noticed:
            remark = ANSWERED_REMARK
        elif _is_wordless(services, message):
            remark = WORDLESS_REMARK
        elif calls > MAX_CALLS_IN_CHANNEL and not _speaks_of_self_harm(services, message):
            remark = OVERDUE_REMARK
        else:
            missed.append(message)
        services.decisions.note_missed(channel.id, message.id, decision, remark)
    return missed[::-1]


def _is_handled(services: Services, message: discord.Message) -> bool:
    """Report whether a message was answered, or taken already, as after a connection that was
    lost later than it seemed. An edit may since have made one that was left alone a call.
    """
    noted = services.decisions.find(message.channel.id, message.id)
    if noted and noted.decision.is_answered:
        return True
    return _is_stored(services, message)


def _is_stored(services: Services, message: discord.Message) -> bool:
    replies = services.store.replies
    return bool(replies.get(message.id) or replies.of_line(message.id))


def _needs_help(services: Services, message: discord.Message, decision: Decision) -> bool:
    """Report whether a message that calls nobody speaks of self-harm where a persona answers all."""
    if decision.rule is not Rule.EVERY_MESSAGE or _is_handled(services, message):
        return False
    return _speaks_of_self_harm(services, message)


def _speaks_of_self_harm(services: Services, message: discord.Message) -> bool:
    return services.safety.finds(services.message_reader.text(message)) is not None


def _note_quiet(services: Services, message: discord.Message, decision: Decision) -> None:
    """Remember that a message waited, and that the hours are quiet now."""
    channel_id = message.channel.id
    is_known = services.decisions.find(channel_id, message.id) or _is_stored(services, message)
    if decision.rule is Rule.QUIET_HOURS and not is_known:
        services.decisions.note_missed(channel_id, message.id, decision)


def _is_wordless(services: Services, message: discord.Message) -> bool:
    """Report whether a message has no text that a persona could answer: the notice that says so
    would come again at each start.
    """
    quotes_other = message.reference and not persona_replied_to(services, message)
    return not quotes_other and not has_words(services.message_reader.text(message))
