"""A persona's versions as a page: their lives and scores; promoted and rolled back after a second look."""

from __future__ import annotations

import time

from aiohttp import web

from bot import promoting
from bot.rollout.comparing import compare
from bot.rollout.words import named, tally_words
from bot.web.frame import back_to, page
from bot.web.here import Route
from bot.web.personas.asking import form_of, text_in
from bot.web.personas.found import Found, persona_at, server_name, standing_of, version_at
from bot.web.personas.lives import drawing, lives_of, score_words
from bot.web.personas.version_rest import make_live, roll_back
from bot.web.problems import Problem
from personas.errors import RequestError
from personas.for_everybody import OPERATOR


async def versions_page(request: web.Request) -> web.Response:
    """Every version there ever was, and what is rolled out now."""
    found, now = persona_at(request), time.time()
    lives = lives_of(found.house, found.id)
    return page(
        request,
        "personas/versions.html",
        title=f"{found.persona.name}: versions",
        section="personas",
        tab="versions",
        found=found,
        standing=standing_of(found.house, found.id),
        lives=lives,
        drawing=drawing(found.persona.name, lives, now),
        score_words=score_words,
        before=_before(found),
        rollouts=_rollouts(found, now),
        behind=found.house.conversations.left_behind,
    )


async def confirm_promote(request: web.Request) -> web.Response:
    """What would speak in place of what, and what the gate says of it."""
    found = persona_at(request)
    made = version_at(request, found)
    objections = await promoting.objections_to(found.house, found.id, made.version, OPERATOR)
    return page(
        request,
        "personas/promote.html",
        title=f"Promote {made.version} of {found.persona.name}",
        section="personas",
        found=found,
        made=made,
        live=named(found.house.store.versions.live(found.id)),
        is_live=found.house.store.versions.live(found.id) == made.version,
        verdict=made.scorecard.verdict,
        objections=objections,
        reasons=objections.reasons if objections else made.scorecard.reasons,
        advice=made.scorecard.advice,
        score=score_words(made),
        action=f"{found.page}/versions/{made.version}/promote",
        back=f"{found.page}/versions",
    )


async def promote(request: web.Request) -> web.Response:
    """Make it live."""
    found = persona_at(request)
    made = version_at(request, found)
    anyway = text_in(await form_of(request), "anyway") == "yes"
    changed = await make_live(found, made, anyway=anyway)
    said = "speaks from the next reply on." if changed else "speaks already."
    return back_to(request, f"{found.page}/versions", f"{made.version} of {found.persona.name} {said}")


async def confirm_rollback(request: web.Request) -> web.Response:
    """What would speak again. Raises `Problem` where there is nothing to go back to."""
    found = persona_at(request)
    before = _before(found)
    if before is None:
        raise Problem("conflict", f"{found.persona.name} has no earlier version to go back to.", "Promote one instead.")
    return page(
        request,
        "personas/rollback.html",
        title=f"Roll {found.persona.name} back",
        section="personas",
        found=found,
        live=named(found.house.store.versions.live(found.id)),
        before=before,
        back=f"{found.page}/versions",
    )


async def rollback(request: web.Request) -> web.Response:
    """Make the version live that was so before."""
    found = persona_at(request)
    row = roll_back(found)
    said = f"{named(row.version)} speaks for {found.persona.name} from the next reply on."
    return back_to(request, f"{found.page}/versions", f"{said[0].upper()}{said[1:]}")


def _before(found: Found) -> str | None:
    """What rolling back would make live, for people; None where there is nothing to go back to."""
    try:
        return named(found.house.store.versions.before(found.id))
    except RequestError:
        return None


def _rollouts(found: Found, now: float) -> list[dict[str, object]]:
    """The rollouts that are on, and the promoted version while it is watched, with what members made of them."""
    told = []
    for rollout in found.house.store.rollouts.running(found.id, now):
        comparison = compare(found.house.store, rollout)
        told.append(
            {
                "rollout": rollout,
                "server": server_name(found.house, rollout.guild_id) if rollout.guild_id else "all servers",
                "before": named(rollout.before),
                "new_tally": tally_words(comparison.new),
                "old_tally": tally_words(comparison.before),
            }
        )
    return told


VERSION = "/dashboard/personas/{persona_id}/versions/{version}/promote"
ROUTES: tuple[Route, ...] = (
    ("GET", "/dashboard/personas/{persona_id}/versions", versions_page),
    ("GET", VERSION, confirm_promote),
    ("POST", VERSION, promote),
    ("GET", "/dashboard/personas/{persona_id}/rollback", confirm_rollback),
    ("POST", "/dashboard/personas/{persona_id}/rollback", rollback),
)
