"""A bot in two servers, its dashboard behind a token, and the operator's browser; the sandbox is
Discord. Tobias is a member of both servers, Otto of the second one alone.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bot.demo_guild import MEMBER
from bot.platform.web_kit.auth import Authenticator
from bot.store import Channel
from bot.web_server import WebServer
from personas.card.card_reader import parse_card
from sandbox import ChannelSeed, GuildSeed, MemberSeed, Permission, RoleSeed
from tests.bot.conftest import QUAY, Stage, on_stage
from tests.personas.cards import brought_in

TOKEN = "correct-horse-battery-staple-42"
OTTO = "Otto Brand"
SIGN_IN = "/dashboard/sign-in"
SERVERS = "/dashboard/moderation"
BREAKWATER = GuildSeed(
    name="Breakwater",
    channels=(ChannelSeed("boathouse", "boats"), ChannelSeed("ropewalk", "ropes")),
    members=(
        MemberSeed("Ida Stone", owner=True),
        MemberSeed(OTTO, ("Moderator",)),
        MemberSeed(MEMBER),
    ),
    roles=(RoleSeed("Moderator", int(Permission.MANAGE_GUILD | Permission.MANAGE_MESSAGES)),),
    bot_name="Understudy",
)


@dataclass
class Answer:
    """What a browser got."""

    status: int
    text: str
    headers: Any

    @property
    def location(self) -> str:
        return str(self.headers.get("Location", ""))


class Browser:
    """Sends requests as a browser does, with its cookies; redirections are followed by hand."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        headers = {"Accept": "text/html", **more.pop("headers", {})}
        async with self.session.request(
            method, self.url + path, headers=headers, allow_redirects=False, **more
        ) as answer:
            return Answer(answer.status, await answer.text(), answer.headers)

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.ask("GET", path, **more)

    async def submit(self, path: str, **fields: str) -> Answer:
        own = {"Origin": self.url, "Sec-Fetch-Site": "same-origin"}
        return await self.ask("POST", path, data=fields, headers=own)


@dataclass
class TwoServers:
    """The bot, its two servers, and the operator's browser."""

    stage: Stage
    operator: Browser

    @property
    def first(self) -> int:
        return self.stage.sandbox.guild_ids[0]

    @property
    def second(self) -> int:
        return self.stage.sandbox.guild_ids[1]

    def user_id(self, name: str, guild_id: int | None = None) -> int:
        return int(self.stage.sandbox.member(name, guild_id).id)

    def channel_id(self, name: str, guild_id: int) -> int:
        return int(self.stage.sandbox.channel(name, guild_id)["id"])

    def set_roles(self, name: str, *roles: str) -> None:
        """Give a member of the first server these roles, and no others."""
        self.stage.sandbox.set_roles(str(self.user_id(name)), roles)

    def role_id(self, name: str, guild_id: int) -> int:
        guild = self.stage.client.get_guild(guild_id)
        return next(role.id for role in guild.roles if role.name == name)

    def bring_in(self, guild_id: int, name: str) -> str:
        """Give a server a persona of its own; returns its id."""
        document = {
            "spec": "chara_card_v2",
            "spec_version": "2.0",
            "data": {"name": name, "description": f"{name} keeps the lamp.", "first_mes": "Ahoy."},
        }
        card = parse_card(json.dumps(document).encode(), "a test")
        personas = self.stage.client.services.personas
        return brought_in(personas, guild_id, card).persona.id

    def settle(self, guild_id: int, channel: str, persona_id: str) -> int:
        """Let a persona live in a channel; returns its id."""
        channel_id = self.channel_id(channel, guild_id)
        place = Channel(guild_id, channel_id, persona_id, "everything", 1, 1.0)
        self.stage.store.channels.assign(place)
        return channel_id


@asynccontextmanager
async def two_servers(home: Path) -> AsyncIterator[TwoServers]:
    """Run it, with the operator signed in."""
    jar = aiohttp.CookieJar(unsafe=True)  # it would take no cookies from an address
    async with (
        on_stage(
            home, more_guilds=[BREAKWATER], web_server=WebServer(Authenticator(TOKEN))
        ) as stage,
        aiohttp.ClientSession(cookie_jar=jar) as session,
    ):
        operator = Browser(session, stage.sandbox.url)
        assert (await operator.submit(SIGN_IN, token=TOKEN)).status == 303
        made = TwoServers(stage, operator)
        made.settle(made.first, QUAY, "ballast")
        yield made
