"""A sandbox on a free port, and a small discord.py client to point at it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import discord
import pytest
from discord import app_commands

from sandbox import (
    SILENCED_PERMISSIONS,
    ChannelSeed,
    GuildSeed,
    MemberSeed,
    Permission,
    RoleSeed,
    Sandbox,
    patch_discord,
)

SEED = GuildSeed(
    name="Test guild",
    channels=(ChannelSeed("tavern", "warm"), ChannelSeed("cellar", nsfw=True)),
    members=(
        MemberSeed("Mora", ("Moderator",), owner=False),
        MemberSeed("Nils"),
        MemberSeed("Olga", owner=True),
        MemberSeed("Quinn", ("Quiet",)),
    ),
    roles=(
        RoleSeed("Quiet", 0, denied=SILENCED_PERMISSIONS),
        RoleSeed("Moderator", int(Permission.MANAGE_GUILD | Permission.MANAGE_MESSAGES), 0x3366CC),
    ),
    bot_name="Probe",
)
# Discord's rate limits, fifty times as quick to pass.
RATE_WINDOW = 0.02


class Probe(discord.Client):
    """Remembers what it is told, and waits on it."""

    def __init__(self, **intents: bool) -> None:
        wanted = discord.Intents.default()
        wanted.message_content = True
        for name, value in intents.items():
            setattr(wanted, name, value)
        super().__init__(intents=wanted, guild_ready_timeout=0.02)
        self.tree = app_commands.CommandTree(self)
        self.received: asyncio.Queue[discord.Message] = asyncio.Queue()
        self.resumed = asyncio.Event()

    async def on_message(self, message: discord.Message) -> None:
        self.received.put_nowait(message)

    async def on_resumed(self) -> None:
        self.resumed.set()

    async def receive(
        self, check: Callable[[discord.Message], bool] = lambda message: True
    ) -> discord.Message:
        """The next message that fits."""
        async with asyncio.timeout(5):
            while not check(message := await self.received.get()):
                pass
            return message

    def room(self, name: str = "tavern") -> discord.TextChannel:
        """A channel of the guild by its name."""
        found = discord.utils.get(self.guilds[0].text_channels, name=name)
        assert found is not None
        return found


@asynccontextmanager
async def running(client: discord.Client, token: str) -> AsyncIterator[None]:
    """The client logged in and ready; what ends it early is raised here."""
    task = asyncio.create_task(client.start(token))
    ready = asyncio.create_task(client.wait_until_ready())
    try:
        async with asyncio.timeout(5):
            await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield
    finally:
        ready.cancel()
        await client.close()
        await asyncio.gather(task, ready, return_exceptions=True)


@pytest.fixture
async def api(sandbox: Sandbox) -> AsyncIterator[Any]:
    """The HTTP API by hand, as the bot: `await api("GET", "/users/@me")` gives status, answer and
    headers.
    """
    async with aiohttp.ClientSession(headers={"Authorization": f"Bot {sandbox.token}"}) as session:

        async def ask(method: str, path: str, body: Any = None) -> tuple[int, Any, Any]:
            async with session.request(method, f"{sandbox.url}/api/v10{path}", json=body) as answer:
                return (
                    answer.status,
                    await answer.json() if answer.status != 204 else None,
                    answer.headers,
                )

        yield ask


Run = Callable[[discord.Client], AbstractAsyncContextManager[None]]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    made = Sandbox(SEED, rate_window=RATE_WINDOW)
    await made.start()
    with patch_discord(made):
        yield made
    await made.stop()


@pytest.fixture
async def probe(sandbox: Sandbox) -> AsyncIterator[Probe]:
    """A client that is logged in."""
    client = Probe()
    async with running(client, sandbox.token):
        yield client


@pytest.fixture
def seed() -> GuildSeed:
    return SEED


@pytest.fixture
def new_probe() -> type[Probe]:
    return Probe


@pytest.fixture
def run() -> Any:
    return running
