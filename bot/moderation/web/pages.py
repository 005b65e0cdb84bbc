"""`/dashboard/moderation`: the servers, and direct messages, each with its pages of moderation."""

from dataclasses import dataclass

from aiohttp import web

from bot.moderation.limits import read_limits
from bot.moderation.texts import limits_text
from bot.moderation.web.moderated_server import SERVERS_PATH, moderated_ids, moderated_name
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.paging import navigation_links, paginate, parse_page_query
from bot.platform.web_kit.templating import render_page

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
    shown, links = paginate(request, page, moderated_ids(services), key=str, noun="server")
    blocked = services.store.blocks.counts()
    return render_page(
        request,
        "servers/all.html",
        title="Moderation of each server",
        servers=[
            ServerSummary(
                guild_id=guild_id,
                name=moderated_name(services, guild_id),
                blocks=blocked.get(guild_id, 0),
                limits=limits_text(read_limits(services.store, guild_id), guild_id),
            )
            for guild_id in shown
        ],
        links=navigation_links(page, links, SERVERS_PATH),
    )
