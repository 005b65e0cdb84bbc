"""`GET /healthz`: whether the bot is there, for whatever watches it."""

from __future__ import annotations

from aiohttp import web

from bot.web.here import Route, house_of
from bot.web.openapi import Answer, described
from bot.web.sessions import DOOR

HEALTH = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"const": "ok"}, "jobs": {"type": "object", "additionalProperties": {"type": "integer"}}},
}


@described("Whether the bot is there", {200: Answer("It answers members.", HEALTH)}, tag="about")
async def healthz(request: web.Request) -> web.Response:
    """200 once the bot answers members; 503, a problem, before and after, and when the database cannot be read.

    Answered without a token, too, and then no more than that.
    """
    jobs = house_of(request).store.jobs
    waiting, running = len(jobs.in_state("queued")), len(jobs.in_state("running"))
    more = {"jobs": {"queued": waiting, "running": running}} if request.app[DOOR].lets_in(request) else {}
    return web.json_response({"status": "ok", **more})


ROUTES: tuple[Route, ...] = (("GET", "/healthz", healthz),)
