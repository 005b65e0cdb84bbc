"""Checks at Discord: the token, permissions, intents, and the application's name."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress

import discord

from bot.operations.doctor.checks import BotCheck, CheckState
from bot.platform import permissions
from bot.platform.errors import DiscordError, connection_error
from bot.settings import Settings
from bot.store import HOME_DATABASE, Store

DISCORD_TIMEOUT_S = 30.0
SHARD_START_S = 6.0
"""Time that each further shard takes: Discord lets one begin in five seconds."""
GUILDS_AT_ONCE = 20
"""Servers whose permissions are searched before the event loop goes on: some milliseconds."""
# In more than so many servers, missing permissions are searched again only after this time.
MAX_GUILDS_SEARCHED = 100
PERMISSIONS_AGE_S = 60.0
GUILD_SETTLE_S = 1.0  # time without a further guild after which the list counts as complete


async def fetch_application_id(token: str) -> int:
    """Return the id of the application that a token belongs to. Raises `DiscordError`."""
    client = _create_client(discord.Intents(guilds=True))
    try:
        async with asyncio.timeout(DISCORD_TIMEOUT_S):
            await client.login(token)
        return client.application_id or 0
    except Exception as error:  # discord.py raises whatever an unexpected response leads to
        translated = connection_error(error)
        advice = f"{translated.advice} Or name the application with --application."
        raise DiscordError(translated.message, advice) from error
    finally:
        await client.close()


async def fetch_shard_count(token: str) -> int:
    """Return how many connections Discord recommends to a bot. Raises `DiscordError`."""
    client = _create_client(discord.Intents(guilds=True))
    try:
        await client.login(token)
        count, _, _ = await client.http.get_bot_gateway()
        return count
    except Exception as error:  # as above
        raise connection_error(error) from error
    finally:
        await client.close()


async def check_discord(settings: Settings) -> list[BotCheck]:
    """Check what Discord grants this bot; no checks without a token. The bot may run meanwhile."""
    if not settings.discord_token:
        return []
    try:
        # Discord does not say which intent it refuses.
        for members in (True, False) if settings.members_intent else (False,):
            for content in (True, False):
                with suppress(discord.PrivilegedIntentsRequired):
                    return await _connected_checks(settings, content=content, members=members)
        raise DiscordError("Discord refuses even a session without privileged intents.", "")
    except Exception as error:  # as above
        translated = connection_error(error)
        is_temporary = isinstance(translated, DiscordError) and translated.is_temporary
        state: CheckState = "warn" if is_temporary else "fail"
        return [BotCheck("Discord", state, translated.message, translated.advice)]


def _create_client(intents: discord.Intents, shards: int = 1) -> discord.Client:
    # discord.py warns that libraries for voice are missing; nothing here has voice features.
    discord.VoiceClient.warn_nacl = False
    discord.VoiceClient.warn_dave = False
    client_type = discord.AutoShardedClient if shards > 1 else discord.Client
    return client_type(
        intents=intents, chunk_guilds_at_startup=False, guild_ready_timeout=GUILD_SETTLE_S
    )


async def _connected_checks(settings: Settings, *, content: bool, members: bool) -> list[BotCheck]:
    async with asyncio.timeout(DISCORD_TIMEOUT_S):
        shards = await fetch_shard_count(settings.discord_token)
    intents = discord.Intents(guilds=True, message_content=content, members=members)
    async with (
        asyncio.timeout(DISCORD_TIMEOUT_S + SHARD_START_S * (shards - 1)),
        _connected(settings.discord_token, _create_client(intents, shards)) as client,
    ):
        count = len(client.guilds)
        servers = "1 server" if count == 1 else f"{count} servers"
        return [
            BotCheck("Discord", "ok", f"the token is {client.user}'s, in {servers}"),
            _check_message_content(settings, granted=content),
            *_check_members(settings, granted=members),
            *_check_user_install(settings, client.application),
            *_check_permissions(client, settings),
        ]


@asynccontextmanager
async def _connected(token: str, client: discord.Client) -> AsyncIterator[discord.Client]:
    """Connect a client that only receives its guilds; errors of the connection are raised here."""
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


def _check_message_content(settings: Settings, *, granted: bool) -> BotCheck:
    need = permissions.MESSAGE_CONTENT
    name = "intent"
    if granted:
        return BotCheck(name, "ok", "Message Content is granted")
    where = "Developer Portal → Bot → Privileged Gateway Intents: allow Message Content"
    found = f"Message Content is not granted: {need.cost}"
    if settings.message_content_intent:
        return BotCheck(name, "warn", found, f"{where}, or set MESSAGE_CONTENT_INTENT=false")
    return BotCheck(name, "ok", f"{found}. To change that: {where}")


def _check_members(settings: Settings, *, granted: bool) -> Iterator[BotCheck]:
    """Check the server members intent, where the bot asks for it."""
    if not settings.members_intent:
        return
    if granted:
        yield BotCheck("intent", "ok", "Server Members is granted")
        return
    yield BotCheck(
        "intent",
        "warn",
        f"Server Members is not granted: {permissions.MEMBERS.cost}",
        "Developer Portal → Bot → Privileged Gateway Intents: allow Server Members, or set "
        "MEMBERS_INTENT=false",
    )


def _check_user_install(
    settings: Settings, application: discord.AppInfo | None
) -> Iterator[BotCheck]:
    """Check whether the portal lets people install the bot for themselves, where the bot offers
    that.
    """
    if not settings.user_install or application is None:
        return
    if application.user_integration_config is not None:
        yield BotCheck("installation", "ok", "people may install the bot for themselves")
        return
    yield BotCheck(
        "installation",
        "warn",
        "User Install is off: nobody can install the bot for themselves",
        "Developer Portal → Installation → Installation Contexts: switch User Install on, or set "
        "USER_INSTALL=false",
    )


def _check_permissions(client: discord.Client, settings: Settings) -> Iterator[BotCheck]:
    if not client.guilds:
        url = permissions.invite_url(client.application_id or 0)
        yield BotCheck("permissions", "warn", "the bot is in no server yet", f"invite it: {url}")
        return
    is_complete = True
    file = settings.home / HOME_DATABASE
    with Store.read_only(file) if file.exists() else nullcontext() as store:
        for guild in client.guilds:
            channels = channels_in_use(guild, store) if store else []
            lacks = permissions.find_missing_permissions(guild, channels)
            if store and store.faces.get(guild.id):
                lacks += permissions.find_missing_for_face(guild)
            for lack in lacks:
                is_complete = False
                is_mute = lack.need.permission in ("view_channel", "send_messages", "connect")
                state: CheckState = "fail" if is_mute else "warn"
                yield BotCheck("permissions", state, lack.description, lack.remedy)
    if is_complete:
        yield BotCheck(
            "permissions", "ok", "all granted, in each server and each channel with a persona"
        )


async def missing_permissions(
    client: discord.Client, store: Store
) -> list[permissions.MissingPermission]:
    """Return the permissions that the bot lacks in its servers. The event loop goes on meanwhile:
    of many servers, some are searched at a time.
    """
    used = store.channels.by_guild()
    with_face = {face.guild_id for face in store.faces.all()}
    missing = list[permissions.MissingPermission]()
    for number, guild in enumerate(client.guilds, start=1):
        channels = []
        for channel_id in used.get(guild.id, ()):
            if channel := guild.get_channel(channel_id):
                channels.append(channel)
        missing += permissions.find_missing_permissions(guild, channels)
        if guild.id in with_face:
            missing += permissions.find_missing_for_face(guild)
        if number % GUILDS_AT_ONCE == 0:
            await asyncio.sleep(0)
    return missing


class PermissionReport:
    """Keeps what `missing_permissions` found in many servers for a while: that takes a second in
    some thousands.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ended_at = float("-inf")
        self._found: list[permissions.MissingPermission] = []
        self._search: asyncio.Task[None] | None = None

    async def latest(
        self, client: discord.Client | None, store: Store
    ) -> list[permissions.MissingPermission]:
        """Return what is missing now, or was `PERMISSIONS_AGE_S` ago, where the bot is in many
        servers.
        """
        if client is None:
            return []
        is_recent = self._clock() < self._ended_at + PERMISSIONS_AGE_S
        if not is_recent or len(client.guilds) <= MAX_GUILDS_SEARCHED:
            if self._search is None or self._search.done():
                self._search = asyncio.create_task(self._update(client, store))
            await asyncio.shield(self._search)
        return self._found

    async def _update(self, client: discord.Client, store: Store) -> None:
        self._found = await missing_permissions(client, store)
        self._ended_at = self._clock()


def channels_in_use(guild: discord.Guild, store: Store) -> list[discord.abc.GuildChannel]:
    """Return the channels of a guild that have a persona, and that the bot can see."""
    used = [guild.get_channel(channel.channel_id) for channel in store.channels.of_guild(guild.id)]
    return [channel for channel in used if channel]
