"""What Discord says of the bot: whether its token is known, which permissions and intents it has, who it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import discord

from bot import permissions
from bot.doctor.check import Check
from bot.settings import Settings
from bot.store import Store
from personas.errors import UnderstudyError

PATIENCE_S = 30.0
SETTLE_S = 1.0
"""So long after the latest server nothing more is waited for."""
REACHED_BY_NOBODY = (aiohttp.ClientError, discord.HTTPException, discord.GatewayNotFound, OSError, TimeoutError)
RENEW = "copy it anew: Developer Portal → the application → Bot → Reset Token"
NETWORK = "check the network, and whether Discord is up (discordstatus.com)"


class DiscordError(UnderstudyError):
    """Discord cannot be asked, or does not know the token."""


async def application_id_of(token: str) -> int:
    """The id of the application that a token is of. Raises `DiscordError`."""
    client = discord.Client(intents=discord.Intents.none())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await client.login(token)
        return client.application_id or 0
    except discord.LoginFailure as error:
        raise DiscordError("Discord does not accept DISCORD_TOKEN.", RENEW[0].upper() + RENEW[1:] + ".") from error
    except REACHED_BY_NOBODY as error:
        advice = "Check the network, or name the application with --application."
        raise DiscordError(f"Discord cannot be reached: {error}.", advice) from error
    finally:
        await client.close()


async def checks(settings: Settings) -> list[Check]:
    """What Discord grants this bot; nothing where there is no token. The bot may run meanwhile."""
    if not settings.discord_token:
        return []
    try:
        async with asyncio.timeout(PATIENCE_S), _connected(settings.discord_token, content=True) as client:
            return [Check("Discord", "ok", _who(client)), _content(settings, granted=True), *_lacks(client, settings)]
    except discord.PrivilegedIntentsRequired:
        pass
    except discord.LoginFailure:
        return [Check("Discord", "fail", "it does not accept DISCORD_TOKEN", RENEW)]
    except REACHED_BY_NOBODY as error:
        return [Check("Discord", "warn", f"cannot be reached: {error or type(error).__name__}", NETWORK)]
    return await _checks_without_content(settings)


async def _checks_without_content(settings: Settings) -> list[Check]:
    try:
        async with asyncio.timeout(PATIENCE_S), _connected(settings.discord_token, content=False) as client:
            return [Check("Discord", "ok", _who(client)), _content(settings, granted=False), *_lacks(client, settings)]
    except REACHED_BY_NOBODY as error:
        return [Check("Discord", "warn", f"cannot be reached: {error or type(error).__name__}", NETWORK)]


@asynccontextmanager
async def _connected(token: str, *, content: bool) -> AsyncIterator[discord.Client]:
    """A client that hears of its guilds and does nothing; what ends it comes out of here."""
    intents = discord.Intents(guilds=True, message_content=content)
    client = discord.Client(intents=intents, chunk_guilds_at_startup=False, guild_ready_timeout=SETTLE_S)
    running = asyncio.create_task(client.start(token))
    ready = asyncio.create_task(client.wait_until_ready())
    try:
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        yield client
    finally:
        ready.cancel()
        await client.close()
        await asyncio.gather(running, ready, return_exceptions=True)


def _who(client: discord.Client) -> str:
    count = len(client.guilds)
    return f"the token is {client.user}'s, in {count} server{'' if count == 1 else 's'}"


def _content(settings: Settings, *, granted: bool) -> Check:
    need, name = permissions.MESSAGE_CONTENT, "intent"
    if granted:
        return Check(name, "ok", "Message Content is granted")
    where = "Developer Portal → Bot → Privileged Gateway Intents: allow Message Content"
    found = f"Message Content is not granted: {need.cost}"
    if settings.message_content_intent:
        return Check(name, "warn", found, f"{where}, or set MESSAGE_CONTENT_INTENT=false")
    return Check(name, "ok", f"{found}. To change that: {where}")


def _lacks(client: discord.Client, settings: Settings) -> Iterator[Check]:
    if not client.guilds:
        url = permissions.invite_url(client.application_id or 0)
        yield Check("permissions", "warn", "the bot is in no server yet", f"invite it: {url}")
        return
    found = [
        lack
        for guild, channels in _channels_in_use(client, settings.home)
        for lack in permissions.lacks(guild, channels)
    ]
    for lack in found:
        is_mute = lack.need.permission in ("view_channel", "send_messages")
        yield Check("permissions", "fail" if is_mute else "warn", lack.words, lack.remedy)
    if not found:
        yield Check("permissions", "ok", "all are there, in each server and each channel with a persona")


def _channels_in_use(client: discord.Client, home: Path) -> list[tuple[discord.Guild, list[discord.abc.GuildChannel]]]:
    database = home / "understudy.sqlite"
    if not database.exists():
        return [(guild, []) for guild in client.guilds]
    with Store.read_only(database) as store:
        return [(guild, channels_in_use(guild, store)) for guild in client.guilds]


def channels_in_use(guild: discord.Guild, store: Store) -> list[discord.abc.GuildChannel]:
    """The channels of a guild that have a persona, and that the bot can see."""
    used = [guild.get_channel(channel.channel_id) for channel in store.channels.of_guild(guild.id)]
    return [channel for channel in used if channel]
