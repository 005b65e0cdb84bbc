"""The sandbox server: start, stop, members, waiting for events; and patching discord.py to connect to it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import discord
import discord.gateway
import discord.http
from aiohttp import web
from yarl import URL

from bot.sandbox import http_api, page_api
from bot.sandbox.account_deletion import DepartingMember, delete_account_content, delete_departed_accounts
from bot.sandbox.api_routes import ROUTES
from bot.sandbox.container import FaultControls, SandboxContainer
from bot.sandbox.guild_seed import GuildSeed
from bot.sandbox.member_client import MemberClient
from bot.sandbox.sandbox_errors import Json, NotLoopback
from bot.sandbox.traffic_log import EventLog, EventPredicate

MAX_HISTORY_MESSAGES = 1_000
MAX_HEADER_BYTES = 2**16
"""Bytes of a request's first line, and of a header; mounted applications report longer ones themselves."""
AppMount = Callable[[web.Application], None]


class HasUrl(Protocol):
    """An object with a URL, such as a Sandbox."""

    url: str


def patch_discord(sandbox_or_url: HasUrl | str) -> ExitStack:
    """Connect every discord.py client of this process to the sandbox (or its URL), until the stack is closed."""
    base = URL(sandbox_or_url if isinstance(sandbox_or_url, str) else sandbox_or_url.url)
    before = discord.http.Route.BASE, discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY, discord.Asset.BASE

    def set_urls(api: str, gateway: URL, assets: str) -> None:
        discord.http.Route.BASE = api
        discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = gateway
        discord.Asset.BASE = assets

    set_urls(str(base / "api/v10"), (base / "gateway").with_scheme("ws"), str(base / "cdn"))
    undo = ExitStack()
    undo.callback(set_urls, *before)
    return undo


class Sandbox(FaultControls):
    """A guild on loopback: Discord's API for the bot, a page for people, members and fault controls for tests."""

    def __init__(self, seed: GuildSeed, state: Path | None = None, *, rate_window: float = 1.0) -> None:
        """Open or continue the state (None: in memory); `rate_window` scales rate limits. Raises StateUnreadable."""
        super().__init__(SandboxContainer(seed, state, rate_window))
        self._runner: web.AppRunner | None = None
        self._closed = False
        self.url = ""

    @property
    def token(self) -> str:
        """The bot token that is accepted."""
        return self._container.guild.token

    @property
    def guild_id(self) -> int:
        return int(self._container.guild.id)

    @property
    def bot_id(self) -> int:
        """The id of the bot and of its application."""
        return int(self._container.guild.bot_id)

    @property
    def events(self) -> EventLog:
        """Events that members saw, as (kind, data): `len(events)` is a mark, `events[mark:]` are the events since."""
        return self._container.feed.events

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, mount: AppMount | None = None, links: Sequence[page_api.Link] = ()
    ) -> None:
        """Listen (port 0: a free one); `mount` may add routes. Raises NotLoopback, or OSError for a taken port."""
        if not http_api.is_loopback(host):
            raise NotLoopback(f"the sandbox listens on loopback only, not on {host!r}: use 127.0.0.1, ::1 or localhost")
        app = self._application(links)
        if mount:
            mount(app)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=1.0, max_line_size=MAX_HEADER_BYTES, max_field_size=MAX_HEADER_BYTES
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError:
            await self._close_port()
            raise
        authority = f"[{host}]" if ":" in host else host
        authority += f":{self._runner.addresses[0][1]}"
        self.url = f"http://{authority}"
        self._container.gateway.url, self._container.messages.files_url = f"ws://{authority}/gateway", self.url

    def _application(self, links: Sequence[page_api.Link]) -> web.Application:
        app = web.Application(client_max_size=http_api.MAX_BODY_BYTES, middlewares=[http_api.loopback_middleware])
        app.router.add_get("/gateway", self._container.gateway.serve)
        app.router.add_get("/gateway/", self._container.gateway.serve)
        http_api.mount_api(app, self._container, ROUTES)
        page_api.mount_page(app, self._container, self, links)
        return app

    async def stop(self) -> None:
        """Close every connection, then the port and the state."""
        await self._container.gateway.close()
        await self._close_port()
        self.close_state()

    async def _close_port(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def erase(self, person: DepartingMember) -> None:
        """Delete a person's messages, replies and mentions; their accounts are deleted when the sandbox ends."""
        in_use = self._container.interactions.attachment_ids_of_others(person.ids)
        delete_account_content(self._container.messages, person, in_use)

    def close_state(self) -> None:
        """Close the state and delete departed accounts. May be called twice."""
        if not self._closed:
            self._closed = True
            delete_departed_accounts(self._container.store)
            self._container.store.close()

    async def wait_for(
        self, kind: str, check: EventPredicate = lambda data: True, timeout_s: float = 10.0, since: int | None = None
    ) -> Json:
        """Wait for the next event of a kind (EVENT_KINDS), or the first since index `since`. Raises TimeoutError."""
        return await self._container.feed.wait_for(kind, check, timeout_s, since)

    def channel(self, name: str) -> Json:
        """Return the channel of this name. Raises KeyError."""
        for channel in self._container.guild.channels():
            if channel["name"] == name:
                return channel
        raise KeyError(name)

    def messages(self, channel_name: str) -> list[Json]:
        return self._container.messages.history(self.channel(channel_name)["id"], MAX_HISTORY_MESSAGES)

    def member(self, name: str) -> MemberClient:
        """Return the member of this name. Raises KeyError."""
        for person in self._container.guild.people():
            if person["user"]["global_name"] == name:
                return MemberClient(self._container, person["user"]["id"])
        raise KeyError(name)
