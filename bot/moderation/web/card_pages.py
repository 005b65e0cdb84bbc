"""`/dashboard/servers/ID/personas/ID/card`: the card and the lore of a server's own persona, for its
moderators.

The operator's pages do the work: they get the persona with its server and the member who changes it.
"""

from aiohttp import web

from bot.moderation.web.access import GuildAccess, MemberRoutes
from bot.moderation.web.lookup import PERSONA, MembersPersona, own_persona_in_path
from bot.personas.web import card_pages, lore_pages
from bot.platform.localisation import gettext_lazy

CARD = f"{PERSONA}/card"
LORE_FILE = f"{CARD}/lore/{{guild}}/{{file}}"
SHARED_ADVICE = gettext_lazy(
    "Its card and lore are the operator's; `/persona lore add` adds lore for this server."
)
routes = MemberRoutes()


@routes.add(f"GET {CARD}")
async def get_card(access: GuildAccess, request: web.Request) -> web.Response:
    return await card_pages.render_card_page(request, _persona(access, request))


@routes.add(f"POST {CARD}")
async def post_card(access: GuildAccess, request: web.Request) -> web.Response:
    return await card_pages.save_card_form(request, _persona(access, request))


@routes.add(f"GET {CARD}/earlier/{{number}}")
async def get_revision(access: GuildAccess, request: web.Request) -> web.Response:
    return await card_pages.render_revision(request, _persona(access, request))


@routes.add(f"POST {CARD}/earlier/{{number}}")
async def post_revision(access: GuildAccess, request: web.Request) -> web.Response:
    return await card_pages.restore_revision(request, _persona(access, request))


@routes.add(f"GET {CARD}/lore")
async def get_lore(access: GuildAccess, request: web.Request) -> web.Response:
    return await lore_pages.render_lore_page(request, _persona(access, request))


@routes.add(f"POST {CARD}/lore")
async def post_lore(access: GuildAccess, request: web.Request) -> web.Response:
    return await lore_pages.use_lore_form(request, _persona(access, request))


@routes.add(f"POST {CARD}/lore-sets/{{set}}")
async def post_lore_set(access: GuildAccess, request: web.Request) -> web.Response:
    return await lore_pages.choose_lore_set(request, _persona(access, request))


@routes.add(f"GET {LORE_FILE}")
async def get_lore_file(access: GuildAccess, request: web.Request) -> web.Response:
    return await lore_pages.render_lore_file(request, _persona(access, request))


@routes.add(f"POST {LORE_FILE}")
async def post_lore_file(access: GuildAccess, request: web.Request) -> web.Response:
    return await lore_pages.save_lore_file(request, _persona(access, request))


@routes.add(f"POST {LORE_FILE}/remove")
async def post_lore_file_removal(access: GuildAccess, request: web.Request) -> web.Response:
    return await lore_pages.remove_lore_file(request, _persona(access, request))


@routes.add(f"POST {LORE_FILE}/bring-back")
async def post_lore_file_revision(access: GuildAccess, request: web.Request) -> web.Response:
    return await lore_pages.restore_lore_file(request, _persona(access, request))


def _persona(access: GuildAccess, request: web.Request) -> MembersPersona:
    """Return the persona of the address for a moderator, as commands on cards and lore are theirs
    alone. Raises `Problem`.
    """
    access.require()
    persona = own_persona_in_path(access, request, SHARED_ADVICE)
    return MembersPersona(access.services, access.guild_id, persona, by=access.member.id)
