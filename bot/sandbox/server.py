"""The sandbox as others use it: start it, play its members, wait for what the bot does."""

from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web

from bot.sandbox import origins, page, rest
from bot.sandbox.controls import Controls
from bot.sandbox.errors import Json, NotLoopback
from bot.sandbox.feed import Check, EventLog
from bot.sandbox.leaving import Leaver, end_accounts, leave
from bot.sandbox.member import Member
from bot.sandbox.routes import ROUTES
from bot.sandbox.seed import GuildSeed
from bot.sandbox.world import World

HISTORY = 1_000
LONGEST_LINE = 2**16
"""Bytes of a request's first line, and of a header: who is mounted here says itself what is too long."""
Mount = Callable[[web.Application], None]


class Sandbox(Controls):
    """A guild on loopback: Discord's API for the bot, a page for people, `Member` and the controls for tests."""

    def __init__(self, seed: GuildSeed, state: Path | None = None, *, rate_window: float = 1.0) -> None:
        """Open the state (None: kept in memory, gone afterwards). Raises StateUnreadable.

        A state file with a guild in it is continued; what the seed adds is added. `rate_window` makes the windows of
        all rate limits longer or shorter.
        """
        super().__init__(World.open(seed, state, rate_window))
        self._runner: web.AppRunner | None = None
        self._closed = False
        self.url = ""

    @property
    def token(self) -> str:
        """The bot token that is accepted."""
        return self._world.guild.token

    @property
    def guild_id(self) -> int:
        """The guild's id."""
        return int(self._world.guild.id)

    @property
    def bot_id(self) -> int:
        """The id of the bot and of its application."""
        return int(self._world.guild.bot_id)

    @property
    def events(self) -> EventLog:
        """What members saw, as (kind, data): `len(events)` is a mark, `events[mark:]` what happened since."""
        return self._world.feed.events

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, mount: Mount | None = None, links: Sequence[page.Link] = ()
    ) -> None:
        """Listen (port 0: a free one). Raises NotLoopback, and OSError if the port is taken.

        `mount` may add routes and middlewares of its own to the application before it is served; `links` are shown on
        the page: a label and an address each.
        """
        _refuse_open_door(host)
        app = self._application(links)
        if mount:
            mount(app)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=1.0, max_line_size=LONGEST_LINE, max_field_size=LONGEST_LINE
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
        self._world.gateway.url, self._world.messages.files_url = f"ws://{authority}/gateway", self.url

    def _application(self, links: Sequence[page.Link]) -> web.Application:
        app = web.Application(client_max_size=rest.LARGEST_BODY_BYTES, middlewares=[origins.only_loopback])
        app.router.add_get("/gateway", self._world.gateway.serve)
        app.router.add_get("/gateway/", self._world.gateway.serve)
        rest.mount(app, self._world, ROUTES)
        page.mount(app, self._world, self, links)
        return app

    async def stop(self) -> None:
        """Close every connection, then the port and the state."""
        await self._world.gateway.close()
        await self._close_port()
        self.close_state()

    async def _close_port(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def forget(self, who: Leaver) -> None:
        """Delete what somebody wrote, what answers and what names them; accounts leave when the sandbox ends."""
        in_use = self._world.interactions.files_of_others(who.ids)
        leave(self._world.guild, self._world.messages, who, in_use)

    def close_state(self) -> None:
        """Let go of the state; the accounts of those who left are ended. May be called twice."""
        if not self._closed:
            self._closed = True
            end_accounts(self._world.store)
            self._world.store.close()

    async def wait_for(
        self, kind: str, check: Check = lambda data: True, timeout_s: float = 10.0, since: int | None = None
    ) -> Json:
        """What a member sees next: "message", "edit", "delete", "typing", "answer" or "commands".

        `since` is an index into `events`: what happened from there on counts too. Raises TimeoutError.
        """
        return await self._world.feed.wait_for(kind, check, timeout_s, since)

    def channel(self, name: str) -> Json:
        """The channel of this name. Raises KeyError."""
        for channel in self._world.guild.channels():
            if channel["name"] == name:
                return channel
        raise KeyError(name)

    def messages(self, channel_name: str) -> list[Json]:
        """The channel's history, oldest first."""
        return self._world.messages.history(self.channel(channel_name)["id"], HISTORY)

    def member(self, name: str) -> Member:
        """The person of this name. Raises KeyError."""
        for person in self._world.guild.people():
            if person["user"]["global_name"] == name:
                return Member(self._world, person["user"]["id"])
        raise KeyError(name)


def _refuse_open_door(host: str) -> None:
    if not origins.is_loopback(host):
        raise NotLoopback(f"the sandbox listens on loopback only, not on {host!r}: use 127.0.0.1, ::1 or localhost")
