"""`/dashboard/servers/ID/personas/ID/versions/VERSION`: the score card of a version that a server may
use.
"""

from aiohttp import web

from bot.moderation.web.access import GuildAccess, MemberRoutes
from bot.moderation.web.lookup import PERSONA, persona_in_path, persona_path, require_version
from bot.platform.localisation import gettext_lazy
from bot.versions.web.scorecard_pages import read_full_card, render_card, require_location
from personas.schemas.chat import Persona

VERSION = f"{PERSONA}/versions/{{version}}"
AGE_TEXT = gettext_lazy(
    "This persona is age-restricted: its replies are shown in age-restricted channels of Discord "
    "alone."
)
OPERATORS_TEXT = gettext_lazy(
    "Its replies are not shown here: the operator trained it, on material that this server did not "
    "give."
)
routes = MemberRoutes()


@routes.add(f"GET {VERSION}")
async def get_score_card(access: GuildAccess, request: web.Request) -> web.Response:
    """Page of a score card: replies side by side, the verdict, and figures, folded."""
    access.require("train", "promote")
    persona = persona_in_path(access, request)
    installed = require_version(access, persona, request.match_info["version"])
    place = require_location(access.services, f"{persona.id}/{installed.version}")
    card = await read_full_card(place)
    if card:
        # It names personas of other servers.
        card = card.model_copy(update={"separation": None})
    return render_card(
        request,
        place,
        card,
        files={},
        others=(),
        is_live=access.services.store.versions.live(persona.id, access.guild_id) == place.version,
        export_bytes=0,
        untold=_untold(access, persona, installed.job_id),
        back=persona_path(access, persona),
    )


def _untold(access: GuildAccess, persona: Persona, job_id: str) -> str:
    """Say why the replies of a version's card are not shown to members of a server; empty where they
    are.
    """
    services = access.services
    if services.reply_service.rules.age.applies(persona, access.guild_id):
        return AGE_TEXT
    job = services.store.jobs.get(job_id)
    if job and (job.guild_id == access.guild_id or job.shipped):
        return ""
    return OPERATORS_TEXT
