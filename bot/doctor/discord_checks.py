"""Checks at Discord: the token, permissions, intents, and the application's name."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import discord

from bot import permissions
from bot.doctor.local_checks import RENEW_TOKEN_ADVICE, BotCheck
from bot.settings import Settings
from bot.store import Store, find_databases
from personas.errors import UnderstudyError

DISCORD_TIMEOUT_S = 30.0
GUILD_SETTLE_S = 1.0  # time without a further guild after which the list counts as complete
CONNECTION_ERRORS = (aiohttp.ClientError, discord.HTTPException, discord.GatewayNotFound, OSError, TimeoutError)
NETWORK_ADVICE = "check the network, and whether Discord is up (discordstatus.com)"


class DiscordError(UnderstudyError):
    """Discord cannot be reached, or rejects the token."""


async def fetch_application_id(token: str) -> int:
    """Return the id of the application that a token belongs to. Raises `DiscordError`."""
    client = discord.Client(intents=discord.Intents.none())
    try:
        async with asyncio.timeout(DISCORD_TIMEOUT_S):
            await client.login(token)
        return client.application_id or 0
    except discord.LoginFailure as error:
        advice = RENEW_TOKEN_ADVICE[0].upper() + RENEW_TOKEN_ADVICE[1:] + "."
        raise DiscordError("Discord does not accept DISCORD_TOKEN.", advice) from error
    except CONNECTION_ERRORS as error:
        advice = "Check the network, or name the application with --application."
        raise DiscordError(f"Discord cannot be reached: {error}.", advice) from error
    finally:
        await client.close()


async def check_discord(settings: Settings) -> list[BotCheck]:
    """Check what Discord grants this bot; no checks without a token. The bot may run meanwhile."""
    if not settings.discord_token:
        return []
    try:
        try:
            return await _connected_checks(settings, content=True)
        except discord.PrivilegedIntentsRequired:
            return await _connected_checks(settings, content=False)
    except discord.LoginFailure:
        return [BotCheck("Discord", "fail", "it does not accept DISCORD_TOKEN", RENEW_TOKEN_ADVICE)]
    except CONNECTION_ERRORS as error:
        return [BotCheck("Discord", "warn", f"cannot be reached: {error or type(error).__name__}", NETWORK_ADVICE)]


async def _connected_checks(settings: Settings, *, content: bool) -> list[BotCheck]:
    async with asyncio.timeout(DISCORD_TIMEOUT_S), _connected(settings.discord_token, content=content) as client:
        return [
            BotCheck("Discord", "ok", _application_text(client)),
            _check_message_content(settings, granted=content),
            *_check_permissions(client, settings),
        ]


@asynccontextmanager
async def _connected(token: str, *, content: bool) -> AsyncIterator[discord.Client]:
    """Connect a client that only receives its guilds; errors of the connection are raised here."""
    intents = discord.Intents(guilds=True, message_content=content)
    client = discord.Client(intents=intents, chunk_guilds_at_startup=False, guild_ready_timeout=GUILD_SETTLE_S)
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


def _application_text(client: discord.Client) -> str:
    count = len(client.guilds)
    return f"the token is {client.user}'s, in {count} server{'' if count == 1 else 's'}"


def _check_message_content(settings: Settings, *, granted: bool) -> BotCheck:
    need, name = permissions.MESSAGE_CONTENT, "intent"
    if granted:
        return BotCheck(name, "ok", "Message Content is granted")
    where = "Developer Portal → Bot → Privileged Gateway Intents: allow Message Content"
    found = f"Message Content is not granted: {need.cost}"
    if settings.message_content_intent:
        return BotCheck(name, "warn", found, f"{where}, or set MESSAGE_CONTENT_INTENT=false")
    return BotCheck(name, "ok", f"{found}. To change that: {where}")


def _check_permissions(client: discord.Client, settings: Settings) -> Iterator[BotCheck]:
    if not client.guilds:
        url = permissions.invite_url(client.application_id or 0)
        yield BotCheck("permissions", "warn", "the bot is in no server yet", f"invite it: {url}")
        return
    found = [
        lack
        for guild, channels in _channels_in_use(client, settings.home)
        for lack in permissions.find_missing_permissions(guild, channels)
    ]
    for lack in found:
        is_mute = lack.need.permission in ("view_channel", "send_messages")
        yield BotCheck("permissions", "fail" if is_mute else "warn", lack.description, lack.remedy)
    if not found:
        yield BotCheck("permissions", "ok", "all granted, in each server and each channel with a persona")


def _channels_in_use(client: discord.Client, home: Path) -> list[tuple[discord.Guild, list[discord.abc.GuildChannel]]]:
    with ExitStack() as stack:
        stores = [stack.enter_context(Store.read_only(file)) for file in find_databases(home)]
        return [(guild, [it for store in stores for it in channels_in_use(guild, store)]) for guild in client.guilds]


def channels_in_use(guild: discord.Guild, store: Store) -> list[discord.abc.GuildChannel]:
    """Return the channels of a guild that have a persona, and that the bot can see."""
    used = [guild.get_channel(channel.channel_id) for channel in store.channels.of_guild(guild.id)]
    return [channel for channel in used if channel]
