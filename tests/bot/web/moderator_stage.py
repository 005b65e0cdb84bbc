"""A bot in two servers, its dashboard behind a token, and browsers of members who sign in with
Discord; the sandbox is Discord.

Mina moderates the first server, Otto and Nora the second one; Nora sees no channel there. Tobias is
a member of both.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from bot.demo_guild import MEMBER, MODERATOR
from bot.operations.web.discord_sign_in_pages import DiscordLogin
from bot.platform.web_kit.auth import Authenticator
from bot.platform.web_kit.login_states import LoginStates
from bot.store import Channel
from bot.web_server import WebServer
from personas.card.card_reader import parse_card
from sandbox import ChannelSeed, GuildSeed, MemberSeed, Permission, RoleSeed
from tests.bot.conftest import QUAY, Stage, on_stage
from tests.bot.version_rows import install
from tests.personas.cards import brought_in

TOKEN = "correct-horse-battery-staple-42"
SECRET = "a-client-secret-of-the-sandbox"
OTTO = "Otto Brand"
UNSEEING = "Nora Quill"
SIGN_IN = "/dashboard/sign-in"
DISCORD = f"{SIGN_IN}/discord"
SERVERS = "/dashboard/servers"
BREAKWATER = GuildSeed(
    name="Breakwater",
    channels=(ChannelSeed("boathouse", "boats"), ChannelSeed("ropewalk", "ropes")),
    members=(
        MemberSeed("Ida Stone", owner=True),
        MemberSeed(OTTO, ("Moderator",)),
        MemberSeed(MEMBER),
        MemberSeed(MODERATOR),
        MemberSeed(UNSEEING, ("Moderator", "Unseeing")),
    ),
    roles=(
        RoleSeed("Moderator", int(Permission.MANAGE_GUILD | Permission.MANAGE_MESSAGES)),
        RoleSeed("Unseeing", 0, denied=int(Permission.VIEW_CHANNEL)),
    ),
    bot_name="Understudy",
)


class Time:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Answer:
    """What a browser got."""

    status: int
    text: str
    headers: Any
    url: str

    @property
    def location(self) -> str:
        return str(self.headers.get("Location", ""))


class Browser:
    """Sends requests as a browser does, with its cookies; redirections are followed by hand."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    @property
    def cookies(self) -> dict[str, str]:
        return {cookie.key: cookie.value for cookie in self.session.cookie_jar}

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        headers = {"Accept": "text/html", **more.pop("headers", {})}
        url = path if "://" in path else self.url + path
        async with self.session.request(
            method, url, headers=headers, allow_redirects=False, **more
        ) as answer:
            text = await answer.text() if answer.content_type != "image/png" else ""
            return Answer(answer.status, text, answer.headers, url)

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.ask("GET", path, **more)

    async def submit(self, path: str, **fields: str) -> Answer:
        own = {"Origin": self.url, "Sec-Fetch-Site": "same-origin"}
        return await self.ask("POST", path, data=fields, headers=own)

    async def follow(self, path: str, language: str = "en") -> Answer:
        """Follow a link of another site."""
        headers = {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Accept-Language": language,
        }
        return await self.get(path, headers=headers)

    async def begin(self, **fields: str) -> str:
        """Press the button; returns the address of Discord's page for consent."""
        answer = await self.submit(DISCORD, **fields)
        assert answer.status == 303, answer.text
        return answer.location

    async def consent(self, location: str, name: str) -> str:
        """Choose a member on Discord's page, or Cancel; returns the way back."""
        page = await self.get(location)
        assert page.status == 200, page.text
        buttons = {
            label: user
            for user, label in re.findall(r'name="user" value="(\d*)">([^<]+)<', page.text)
        }
        hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text)
        form = {field: html.unescape(value) for field, value in hidden} | {"user": buttons[name]}
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(location))
        answer = await self.ask(
            "POST", f"{origin}/oauth2/authorize", data=form, headers={"Origin": origin}
        )
        assert answer.status == 302, answer.text
        return answer.location

    async def sign_in(self, name: str, **fields: str) -> Answer:
        """Sign in as a member; returns the page at the end."""
        return await self.follow(await self.consent(await self.begin(**fields), name))


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


@dataclass
class ModeratorStage:
    """The bot, its two servers, and the clock of its sessions."""

    stage: Stage
    time: Time
    sessions: list[aiohttp.ClientSession]
    login: DiscordLogin

    @property
    def first(self) -> int:
        return self.stage.sandbox.guild_ids[0]

    @property
    def second(self) -> int:
        return self.stage.sandbox.guild_ids[1]

    def browser(self) -> Browser:
        """A browser without cookies."""
        session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        self.sessions.append(session)
        return Browser(session, self.stage.sandbox.url)

    async def signed_in(self, name: str) -> Browser:
        browser = self.browser()
        answer = await browser.sign_in(name)
        assert answer.status == 200, answer.text
        return browser

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

    def install(self, persona_id: str, guild_id: int, **more: Any) -> str:
        """Install a version that a server trained; returns its name."""
        return install(self.stage.store, persona_id, guild=guild_id, **more)


@asynccontextmanager
async def moderator_stage(home: Path, *, secret: str = SECRET) -> AsyncIterator[ModeratorStage]:
    """Run it; without a secret, nobody signs in with Discord."""
    time = Time()
    door = Authenticator(TOKEN, now=time)
    login = DiscordLogin(secret, LoginStates(time))
    front = WebServer(door, login=login)
    async with on_stage(home, more_guilds=[BREAKWATER], web_server=front) as stage:
        stage.sandbox.oauth2.client_secret = SECRET
        made = ModeratorStage(stage, time, [], login)
        made.settle(made.first, QUAY, "ballast")
        try:
            yield made
        finally:
            for session in made.sessions:
                await session.close()
