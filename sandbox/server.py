"""The sandbox server: start, stop, members, waiting for events; and patching discord.py to connect
to it.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import discord
import discord.gateway
import discord.http
from aiohttp import web
from yarl import URL

from sandbox import http_api, outside_places, page_api
from sandbox.account_deletion import (
    DepartingMember,
    delete_account_content,
    delete_departed_accounts,
)
from sandbox.api_routes import ROUTES
from sandbox.container import FaultControls, SandboxContainer, SharedComponents
from sandbox.guild_seed import MEMBER_PERMISSIONS, GuildSeed
from sandbox.member_client import MemberClient
from sandbox.proxy_bot import ProxyBot
from sandbox.sandbox_errors import Json, NotLoopback
from sandbox.traffic_log import EventLog, EventPredicate

MAX_HISTORY_MESSAGES = 10_000
MAX_HEADER_BYTES = 2**16
"""Bytes of a request's first line, and of a header; mounted applications report longer ones
themselves.
"""
AppMount = Callable[[web.Application], None]


class HasUrl(Protocol):
    """An object with a URL, such as a Sandbox."""

    url: str


def patch_discord(sandbox_or_url: HasUrl | str) -> ExitStack:
    """Connect every discord.py client of this process to the sandbox (or its URL), until the stack
    is closed.
    """
    if isinstance(sandbox_or_url, str):
        base = URL(sandbox_or_url)
    else:
        base = URL(sandbox_or_url.url)
    before = (
        discord.http.Route.BASE,
        discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY,
        discord.Asset.BASE,
    )

    def set_urls(api: str, gateway: URL, assets: str) -> None:
        discord.http.Route.BASE = api
        discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = gateway
        discord.Asset.BASE = assets

    set_urls(str(base / "api/v10"), (base / "gateway").with_scheme("ws"), str(base / "cdn"))
    undo = ExitStack()
    undo.callback(set_urls, *before)
    return undo


class Sandbox(FaultControls):
    """Guilds on loopback: Discord's API for the bot, a page for people, members and fault controls
    for tests.
    """

    def __init__(
        self,
        seed: GuildSeed,
        state: Path | None = None,
        *,
        rate_window: float = 1.0,
        more_guilds: Sequence[GuildSeed] = (),
        shards: int = 1,
    ) -> None:
        """Open or continue the state (None: in memory). Raises StateUnreadable.

        `rate_window` scales rate limits. The bot is in the guild of `seed` and in `more_guilds`;
        members of the same name are the same account. `shards` is what `GET /gateway/bot`
        recommends.
        """
        self._shared = SharedComponents((seed, *more_guilds), state, rate_window, shards)
        super().__init__(self._shared.guilds[0])
        self._shared.conditions.on_change = self.publish
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
    def guild_ids(self) -> list[int]:
        """The ids of all guilds, the first one's first."""
        return [int(one.guild.id) for one in self._shared.guilds]

    @property
    def bot_id(self) -> int:
        """The id of the bot and of its application."""
        return int(self._container.guild.bot_id)

    @property
    def events(self) -> EventLog:
        """Events that members saw, as (kind, data): `len(events)` is a mark, `events[mark:]` are
        the events since.
        """
        return self._container.feed.events

    async def start(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        mount: AppMount | None = None,
        links: Sequence[page_api.Link] = (),
        notice: str = "",
        create_runner: Callable[..., web.AppRunner] = web.AppRunner,
    ) -> None:
        """Listen (port 0: a free one). Raises NotLoopback, or OSError for a taken port.

        `mount` may add routes; `notice` is the address of one that answers with a notice for the page
        (README.md); `create_runner` is called with the application and the options of
        `web.AppRunner`.
        """
        # Whoever reaches the port can act as any member.
        if not http_api.is_loopback(host):
            raise NotLoopback(
                f"the sandbox listens on loopback only, not on {host!r}: use 127.0.0.1, ::1 or "
                "localhost"
            )
        app = self._application(links, notice)
        if mount:
            mount(app)
        self._runner = create_runner(
            app,
            access_log=None,
            shutdown_timeout=1.0,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError:
            await self._close_port()
            raise
        # A URL has an IPv6 address in brackets.
        authority = f"[{host}]" if ":" in host else host
        authority += f":{self._runner.addresses[0][1]}"
        self.url = f"http://{authority}"
        self._shared.gateway.url = f"ws://{authority}/gateway"
        for one in self._shared.guilds:
            one.messages.files_url = self.url

    def _application(self, links: Sequence[page_api.Link], notice: str) -> web.Application:
        app = web.Application(
            client_max_size=http_api.MAX_BODY_BYTES, middlewares=[http_api.loopback_middleware]
        )
        app.router.add_get("/gateway", self._container.gateway.serve)
        app.router.add_get("/gateway/", self._container.gateway.serve)
        http_api.mount_api(app, self._shared, ROUTES)
        page_api.mount_page(app, self._shared, links, notice=notice)
        return app

    async def stop(self) -> None:
        """Close every connection, then the port and the state."""
        # The sockets first: a port with open connections waits for them.
        await self._container.gateway.close()
        await self._close_port()
        self.close_state()

    async def _close_port(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def erase(self, person: DepartingMember) -> None:
        """Delete a person's messages, replies and mentions; their accounts are deleted when the
        sandbox ends.
        """
        guilds = self._shared.guilds
        in_use: set[str] = set()
        for container in guilds:
            in_use |= container.interactions.attachment_ids_of_others(person.ids)

        def delete(message: Json) -> None:
            container = self._shared.of_channel(message["channel_id"]) or guilds[0]
            container.messages.delete(message["id"])

        delete_account_content(self._shared.store, delete, person, in_use)

    def close_state(self) -> None:
        """Close the state and delete departed accounts. May be called twice."""
        if not self._closed:
            self._closed = True
            delete_departed_accounts(self._shared.store)
            self._shared.store.close()

    async def wait_for(
        self,
        kind: str,
        check: EventPredicate = lambda data: True,
        timeout_s: float = 10.0,
        since: int | None = None,
    ) -> Json:
        """Wait for the next event of a kind (EVENT_KINDS), or the first since index `since`. Raises
        TimeoutError.
        """
        return await self._container.feed.wait_for(kind, check, timeout_s, since)

    def _of_guild(self, guild_id: int | None) -> SandboxContainer:
        if guild_id is None:
            return self._container
        container = self._shared.of_guild(str(guild_id))
        if container is None:
            raise KeyError(guild_id)
        return container

    def channel(self, name: str, guild_id: int | None = None) -> Json:
        """Return the channel of this name, in the first guild or the one named. Raises KeyError."""
        for channel in self._of_guild(guild_id).guild.channels():
            if channel["name"] == name:
                return channel
        raise KeyError(name)

    def messages(self, channel_name: str, guild_id: int | None = None) -> list[Json]:
        channel = self.channel(channel_name, guild_id)
        return self._of_guild(guild_id).messages.history(channel["id"], MAX_HISTORY_MESSAGES)

    def webhooks(self, channel_name: str, guild_id: int | None = None) -> list[Json]:
        channel = self.channel(channel_name, guild_id)
        return self._of_guild(guild_id).webhooks.of_channel(channel["id"])

    def outside_channel(
        self, name: str, *, permissions: int = MEMBER_PERMISSIONS, nsfw: bool = False
    ) -> Json:
        """Create a channel of a guild in which the bot is not, for the commands of a person who has
        installed the application; `MemberClient.slash` takes it.
        """
        return outside_places.create_channel(
            self._shared.store, name, permissions=permissions, nsfw=nsfw
        )

    def outside_group(self, name: str) -> Json:
        """Create a group of people without the bot, likewise."""
        return outside_places.create_group(self._shared.store, name)

    def outside_messages(self, place: Json, member: MemberClient) -> list[Json]:
        """Return what a member sees of the application's messages in such a place."""
        return self._container.messages.seen_by(member.id, place["id"], MAX_HISTORY_MESSAGES)

    def proxy_bot(self, guild_id: int | None = None) -> ProxyBot:
        """Return a bot that posts members' messages again under other names, as PluralKit does."""
        return ProxyBot(self._of_guild(guild_id))

    def member(self, name: str, guild_id: int | None = None) -> MemberClient:
        """Return the member of this name, in the first guild or the one named. Raises KeyError."""
        container = self._of_guild(guild_id)
        for person in container.guild.people():
            if person["user"]["global_name"] == name:
                return MemberClient(container, person["user"]["id"])
        raise KeyError(name)
