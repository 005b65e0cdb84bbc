"""`/dashboard/servers/ID/rules`: muted personas, roles and age restrictions, as `/persona mute` and
`unmute`, `/moderation roles` and `age` set them.
"""

from aiohttp import web

from bot.moderation.web.access import GuildAccess, MemberRoutes
from bot.moderation.web.lookup import SERVER
from bot.moderation.web.moderated_server import ModeratedServer
from bot.moderation.web.rules import (
    change_roles,
    lift_mute,
    mark_age,
    mute_persona,
    show_rules,
)

RULES = f"{SERVER}/rules"
routes = MemberRoutes()


@routes.add(f"GET {RULES}")
async def get_rules(access: GuildAccess, request: web.Request) -> web.Response:
    """Page of muted personas, of roles, and of age-restricted personas."""
    return await show_rules(request, ModeratedServer.of_moderator(access))


@routes.add(f"POST {RULES}/mute")
async def post_mute(access: GuildAccess, request: web.Request) -> web.Response:
    return await mute_persona(request, ModeratedServer.of_moderator(access))


@routes.add(f"POST {RULES}/unmute")
async def post_unmute(access: GuildAccess, request: web.Request) -> web.Response:
    return await lift_mute(request, ModeratedServer.of_moderator(access))


@routes.add(f"POST {RULES}/roles")
async def post_roles(access: GuildAccess, request: web.Request) -> web.Response:
    return await change_roles(request, ModeratedServer.of_moderator(access))


@routes.add(f"POST {RULES}/age")
async def post_age(access: GuildAccess, request: web.Request) -> web.Response:
    return await mark_age(request, ModeratedServer.of_moderator(access))
