"""Guards the pages of members who signed in with Discord.

A route for members is added to `MemberRoutes`, whose handlers get what was checked: there is no way
to add one without its guard. All other routes refuse a member's session (`bot.web_server`).
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps

import aiohttp
import discord
from aiohttp import web

from bot.chat.places import GuildChannel, may_see
from bot.moderation.roles import Action, RolePermissions
from bot.operations.web.system_state import MAX_DISCONNECTED_S, disconnected_s
from bot.platform.localisation import gettext_lazy
from bot.platform.permissions import is_moderator
from bot.platform.request_origin import RequestOrigin
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.auth import AUTHENTICATOR, SignedInMember
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import CACHED_BODY, MAX_FORM_BYTES, read_body
from bot.platform.web_kit.templating import DASHBOARD
from bot.services import Services
from personas.schemas.chat import Persona

RECHECK_S = 60.0
"""How long a page trusts what Discord said about a member."""
FORM_RECHECK_S = 5.0
"""How long a form does, which changes something."""
FETCH_TIMEOUT_S = 5.0
MAX_KEPT = 5000
MAX_ASKED_AT_ONCE = 5
"""Requests to Discord at once about members, beside those of replies."""
MAX_ID_DIGITS = 19
PAGE_ACTIONS: tuple[Action, ...] = ("train", "promote")
"""Actions of which one opens a server's pages to members who are no moderators."""
REFUSAL_ADVICE = gettext_lazy(
    "Your servers are listed on the first page. Discord says what you may do in each."
)


@dataclass(frozen=True)
class GuildAccess:
    """What a member may do in a server now. `member` was asked of Discord a moment ago."""

    services: Services
    guild: discord.Guild
    member: discord.Member

    @property
    def guild_id(self) -> int:
        return self.guild.id

    @property
    def origin(self) -> RequestOrigin:
        """The origin of what the member changes, for the same functions as their commands."""
        return RequestOrigin(self.guild.id, channel_id=0, user_id=self.member.id)

    @property
    def is_moderator(self) -> bool:
        return is_moderator(self.member)

    def allows(self, *actions: Action) -> bool:
        """True if the member may do one of some actions; without actions, for moderators alone."""
        if not actions or self.is_moderator:
            return self.is_moderator
        roles = RolePermissions(self.services.store)
        return any(roles.allows(self.member, self.guild.id, action) for action in actions)

    def require(self, *actions: Action) -> None:
        """Raise `Problem` for a member who may do none of some actions; without actions, for all but
        moderators.
        """
        if not self.allows(*actions):
            raise Problem(
                "not-allowed",
                gettext_lazy("You may not do this in {server}.", server=self.guild.name),
                gettext_lazy(
                    "It takes Manage Server, or a role that `/moderation roles` names for it."
                ),
            )

    def require_persona(self, persona_id: str) -> Persona:
        """Return a persona of the server, its own or a shared one. Raises `Problem`."""
        persona = self.services.personas.get(persona_id, self.guild.id)
        if persona is None:
            raise Problem(
                "not-found",
                gettext_lazy("There is no such persona here."),
                gettext_lazy("The server's page lists them."),
            )
        return persona

    def owns(self, persona: Persona) -> bool:
        """True for a persona of the server's own; a shared one is the operator's."""
        own = self.services.personas.own(self.guild.id)
        return any(each.id == persona.id for each in own)

    def sees(self, channel: object) -> bool:
        """True for a text channel or thread of the server that the member sees on Discord."""
        return may_see(channel, self.member)

    def writes_in(self, channel: GuildChannel) -> bool:
        """True for a channel or thread of the server in which the member can write on Discord."""
        if not self.sees(channel):
            return False
        granted = channel.permissions_for(self.member)
        if isinstance(channel, discord.Thread):
            return granted.send_messages_in_threads
        return granted.send_messages

    def require_channel(self, channel_id: int) -> GuildChannel:
        """Return a channel with a persona, for moderators who see it. Raises `Problem`."""
        self.require()
        channel = self.guild.get_channel_or_thread(channel_id)
        has_persona = self.services.store.channels.get(self.guild.id, channel_id) is not None
        if not has_persona or not self.sees(channel) or not isinstance(channel, GuildChannel):
            raise Problem(
                "not-found",
                gettext_lazy("There is no such channel here."),
                gettext_lazy("The server's page lists them."),
            )
        return channel


GuildHandler = Callable[[GuildAccess, web.Request], Awaitable[web.StreamResponse]]
SessionHandler = Callable[[SignedInMember, web.Request], Awaitable[web.StreamResponse]]


class MemberChecks:
    """Asks Discord who a member is in a server, and trusts the answer for a minute."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._asking: dict[tuple[int, int], asyncio.Task[discord.Member | None]] = {}
        self._at_once = asyncio.Semaphore(MAX_ASKED_AT_ONCE)
        self._checked: OrderedDict[tuple[int, int], tuple[float, discord.Member | None]] = (
            OrderedDict()
        )

    async def member_in(
        self, guild: discord.Guild, user_id: int, max_age_s: float
    ) -> discord.Member | None:
        """Return a member of a server; None for whoever is none. Raises `Problem` where Discord does
        not say: then nobody is trusted.
        """
        key = guild.id, user_id
        at, member = self._checked.get(key, (float("-inf"), None))
        if self._now() - at < max_age_s:
            return member
        if key not in self._asking:
            task = self._asking[key] = asyncio.create_task(self._ask(guild, user_id))
            task.add_done_callback(lambda ended: self._ended(key, ended))
        # Whoever asks for the same meanwhile waits for the same answer.
        return await asyncio.shield(self._asking[key])

    def _ended(self, key: tuple[int, int], task: asyncio.Task[discord.Member | None]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # told to those who wait, of whom there may be none any more

    async def _ask(self, guild: discord.Guild, user_id: int) -> discord.Member | None:
        key = guild.id, user_id
        member: discord.Member | None
        try:
            async with self._at_once, asyncio.timeout(FETCH_TIMEOUT_S):
                member = await guild.fetch_member(user_id)
        except discord.NotFound:
            member = None
        except (discord.HTTPException, aiohttp.ClientError, OSError, TimeoutError) as error:
            self._checked.pop(key, None)
            raise _unknown_problem() from error
        self._checked[key] = self._now(), member
        self._checked.move_to_end(key)
        if len(self._checked) > MAX_KEPT:
            self._checked.popitem(last=False)
        return member


MEMBER_CHECKS = web.AppKey("member checks", MemberChecks)


class MemberRoutes(Routes):
    """Routes of members who signed in with Discord. Each is guarded by what its address names."""

    # Its handlers take a `GuildAccess` besides: whoever adds others by mistake is told by mypy.
    def add(self, route: str) -> Callable[[GuildHandler], GuildHandler]:  # type: ignore[override]
        """Register a handler for the members of the server in the address, who may do something
        there; it gets what they may.
        """
        if "/{guild_id}" not in route:
            raise ValueError(f"{route} names no server whose members could be checked")
        register = super().add(route)

        def guard(handler: GuildHandler) -> GuildHandler:
            @wraps(handler)
            async def guarded(request: web.Request) -> web.StreamResponse:
                _require_member(request)
                if request.method == "POST":
                    # First: who is slow to send it may lose the right meanwhile.
                    request[CACHED_BODY] = await read_body(request, MAX_FORM_BYTES)
                return await handler(await _require_access(request), request)

            register(guarded)
            return handler

        return guard

    def add_list(self, route: str) -> Callable[[SessionHandler], SessionHandler]:
        """Register a handler for every member with a session; it gets whose it is, and has to check
        each server that it shows (`accesses`).
        """
        register = super().add(route)

        def guard(handler: SessionHandler) -> SessionHandler:
            @wraps(handler)
            async def guarded(request: web.Request) -> web.StreamResponse:
                return await handler(_require_member(request), request)

            register(guarded)
            return handler

        return guard


async def accesses(request: web.Request, member: SignedInMember) -> list[GuildAccess]:
    """Return what a member may do in each of their servers, by the servers' names; none for those in
    which they may do nothing.
    """
    services = get_services(request)
    results = await asyncio.gather(
        *(_access(request, services, member, guild_id) for guild_id in member.guild_ids),
        return_exceptions=True,
    )
    found = [each for each in results if isinstance(each, GuildAccess)]
    for error in results:
        # Of a server about which Discord says nothing right now, the others are shown all the same.
        if isinstance(error, BaseException) and not (found and isinstance(error, Problem)):
            raise error
    return sorted(found, key=lambda access: (access.guild.name, access.guild_id))


async def _require_access(request: web.Request) -> GuildAccess:
    """Return what the request's member may do in the server of its address. Raises `Problem`, the
    same for a server that there is not and for another one.
    """
    member = _require_member(request)
    services = get_services(request)
    text = request.match_info["guild_id"]
    is_id = text.isascii() and text.isdecimal() and len(text) <= MAX_ID_DIGITS
    access = None
    if is_id and int(text) in member.guild_ids:
        access = await _access(request, services, member, int(text))
    if access is None:
        raise Problem(
            "not-allowed",
            gettext_lazy("This server is not among those that you moderate."),
            REFUSAL_ADVICE,
        )
    return access


def _require_member(request: web.Request) -> SignedInMember:
    """Return the member of the request's session. Raises `Problem`."""
    member = request.app[AUTHENTICATOR].member_of(request)
    if member is None:
        raise Problem(
            "not-found",
            gettext_lazy("This page is for moderators who signed in with Discord."),
            gettext_lazy("The operator's pages begin at {path}.", path=DASHBOARD),
        )
    return member


async def _access(
    request: web.Request, services: Services, member: SignedInMember, guild_id: int
) -> GuildAccess | None:
    """Return what a member may do in a server; None where that is nothing. Raises `Problem`."""
    # Without the gateway, the permissions of roles and channels may have changed unnoticed.
    if services.client is None or disconnected_s(services) > MAX_DISCONNECTED_S:
        raise _unknown_problem()
    guild = services.client.get_guild(guild_id)
    if guild is None:
        return None
    if guild.unavailable:
        raise _unknown_problem()
    max_age_s = RECHECK_S if request.method in ("GET", "HEAD") else FORM_RECHECK_S
    found = await request.app[MEMBER_CHECKS].member_in(guild, member.user_id, max_age_s)
    # Discord takes no commands from either.
    if found is None or found.pending or found.is_timed_out():
        return None
    access = GuildAccess(services, guild, found)
    return access if access.allows(*PAGE_ACTIONS) else None


def _unknown_problem() -> Problem:
    return Problem(
        "not-connected",
        gettext_lazy("Discord does not say right now what you may do."),
        gettext_lazy("Try again in a minute."),
        headers={"Retry-After": "30"},
    )
