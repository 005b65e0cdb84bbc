"""`/dashboard/servers/ID/blocks`: whom personas do not answer, and how often they answer others, as
`/moderation blocks`, `block`, `unblock` and `limits` do.
"""

from aiohttp import web

from bot.moderation.web.access import GuildAccess, MemberRoutes
from bot.moderation.web.blocks import (
    block_member,
    lift_block,
    set_limits,
    show_blocks,
)
from bot.moderation.web.lookup import SERVER
from bot.moderation.web.moderated_server import ModeratedServer

BLOCKS = f"{SERVER}/blocks"
routes = MemberRoutes()


@routes.add(f"GET {BLOCKS}")
async def get_blocks(access: GuildAccess, request: web.Request) -> web.Response:
    """Page of who is blocked, and of the limits."""
    return await show_blocks(request, ModeratedServer.of_moderator(access))


@routes.add(f"POST {BLOCKS}")
async def post_block(access: GuildAccess, request: web.Request) -> web.Response:
    return await block_member(request, ModeratedServer.of_moderator(access))


@routes.add(f"POST {BLOCKS}/lift")
async def post_lift(access: GuildAccess, request: web.Request) -> web.Response:
    return await lift_block(request, ModeratedServer.of_moderator(access))


@routes.add(f"POST {BLOCKS}/limits")
async def post_limits(access: GuildAccess, request: web.Request) -> web.Response:
    return await set_limits(request, ModeratedServer.of_moderator(access))
