"""`GET /healthz`: whether the bot is there, for whatever watches it."""

from __future__ import annotations

from aiohttp import web

from bot.web.here import house_of


async def healthz(request: web.Request) -> web.Response:
    """200 once the bot answers members; 503, a problem, before and after, and when the database cannot be read."""
    jobs = house_of(request).store.jobs
    waiting, running = len(jobs.in_state("queued")), len(jobs.in_state("running"))
    return web.json_response({"status": "ok", "jobs": {"queued": waiting, "running": running}})


ROUTES = (("GET", "/healthz", healthz),)
