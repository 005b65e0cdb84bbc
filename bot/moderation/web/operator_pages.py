"""`/dashboard/moderation`: blocks and limits of each server and of direct messages, and a server's
mutes, roles and age restrictions, for the operator.
"""

from dataclasses import dataclass

from aiohttp import web

from bot.moderation.texts import limits_text
from bot.moderation.web.blocks import (
    block_member,
    lift_block,
    set_limits,
    show_blocks,
)
from bot.moderation.web.moderated_server import (
    DIRECT_MESSAGES,
    ModeratedServer,
    moderated_name,
)
from bot.moderation.web.rules import (
    change_roles,
    lift_mute,
    mark_age,
    mute_persona,
    show_rules,
)
from bot.personas.web.lookup import guild_name
from bot.platform.localisation import gettext_lazy
from bot.platform.request_origin import OPERATOR_ORIGIN
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.paging import paginate, parse_page_query
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.templating import DASHBOARD, render_page
from bot.schedules.web.ids import read_id
from bot.services import Services

SERVERS_PATH = f"{DASHBOARD}/moderation"
SERVER = f"{SERVERS_PATH}/{{guild_id}}"
RULES = f"{SERVER}/rules"
LIST_ADVICE = gettext_lazy("The list of servers has those with the bot.")
routes = Routes()


@dataclass(frozen=True)
class ServerSummary:
    """A server in the list: how many members are blocked there, and how often others are answered."""

    guild_id: int
    name: str
    blocks: int
    limits: str


@routes.add(f"GET {SERVERS_PATH}")
async def get_servers(request: web.Request) -> web.Response:
    """Page of direct messages and all servers."""
    services = get_services(request)
    page = parse_page_query(request)
    shown, links = paginate(request, page, _guild_ids(services), key=str, noun="server")
    blocked = services.store.blocks.counts()
    return render_page(
        request,
        "servers/all.html",
        title=gettext_lazy("Moderation of each server"),
        servers=[
            ServerSummary(
                guild_id=guild_id,
                name=moderated_name(services, guild_id),
                blocks=blocked.get(guild_id, 0),
                limits=limits_text(services.store.limits.get(guild_id), guild_id),
            )
            for guild_id in shown
        ],
        links={"next": "", **links, "first": SERVERS_PATH},
        is_first=page.after is None,
    )


@routes.add(f"GET {SERVER}")
async def get_blocks(request: web.Request) -> web.Response:
    """Page of who is blocked in a server, and of its limits."""
    return await show_blocks(request, _moderated(request))


@routes.add(f"POST {SERVER}")
async def post_block(request: web.Request) -> web.Response:
    return await block_member(request, _moderated(request))


@routes.add(f"POST {SERVER}/lift")
async def post_lift(request: web.Request) -> web.Response:
    return await lift_block(request, _moderated(request))


@routes.add(f"POST {SERVER}/limits")
async def post_limits(request: web.Request) -> web.Response:
    return await set_limits(request, _moderated(request))


@routes.add(f"GET {RULES}")
async def get_rules(request: web.Request) -> web.Response:
    """Page of muted personas in a server, of roles, and of age-restricted personas."""
    return await show_rules(request, _with_rules(request))


@routes.add(f"POST {RULES}/mute")
async def post_mute(request: web.Request) -> web.Response:
    return await mute_persona(request, _with_rules(request))


@routes.add(f"POST {RULES}/unmute")
async def post_unmute(request: web.Request) -> web.Response:
    return await lift_mute(request, _with_rules(request))


@routes.add(f"POST {RULES}/roles")
async def post_roles(request: web.Request) -> web.Response:
    return await change_roles(request, _with_rules(request))


@routes.add(f"POST {RULES}/age")
async def post_age(request: web.Request) -> web.Response:
    return await mark_age(request, _with_rules(request))


def _guild_ids(services: Services) -> list[int]:
    """List direct messages, where this process has them, then the servers with the bot, and those for
    which something was set, which another process may serve, by name.
    """
    store = services.store
    guild_ids = {
        *store.blocks.counts(),
        *store.limits.guilds(),
        *store.mutes.guilds(),
        *store.action_roles.guilds(),
        *store.age_restrictions.guilds(),
    }
    if services.client:
        guild_ids |= {guild.id for guild in services.client.guilds}
    guild_ids.discard(DIRECT_MESSAGES)
    by_name = sorted(guild_ids, key=lambda guild_id: (guild_name(services, guild_id), guild_id))
    return [DIRECT_MESSAGES, *by_name] if store.has_guild(DIRECT_MESSAGES) else by_name


def _with_rules(request: web.Request) -> ModeratedServer:
    """Return the server of the address; direct messages have neither mutes nor roles. Raises
    `Problem`.
    """
    server = _moderated(request)
    if not server.is_server:
        raise Problem("not-found", gettext_lazy("There is no such server."), LIST_ADVICE)
    return server


def _moderated(request: web.Request) -> ModeratedServer:
    """Return the server of the address. Raises `Problem`."""
    services = get_services(request)
    guild_id = read_id(request.match_info["guild_id"], LIST_ADVICE)
    if guild_id not in _guild_ids(services):
        raise Problem("not-found", gettext_lazy("There is no such server."), LIST_ADVICE)
    return ModeratedServer(
        services,
        guild_id,
        by=OPERATOR_ORIGIN.user_id,
        blocks_path=f"{SERVERS_PATH}/{guild_id}",
        rules_path=f"{SERVERS_PATH}/{guild_id}/rules",
        above=(SERVERS_PATH, gettext_lazy("All servers")),
    )
