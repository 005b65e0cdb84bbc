"""`GET /problems/SLUG`: what the `type` of a problem leads to."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from bot.web.here import Route
from bot.web.openapi import Answer, Param, described
from bot.web.problems import PROBLEMS, Problem

KIND: dict[str, Any] = {
    "type": "object",
    "title": "ProblemType",
    "required": ["type", "status", "title"],
    "properties": {"type": {"type": "string"}, "status": {"type": "integer"}, "title": {"type": "string"}},
}


@described(
    "What a kind of problem is",
    {200: Answer("Its status and title.", KIND), 404: "There is no such kind."},
    tag="about",
    path={"slug": Param("The last part of a problem's `type`.", {"type": "string", "enum": sorted(PROBLEMS)})},
)
async def problem_type(request: web.Request) -> web.Response:
    """What `type` leads to."""
    slug = request.match_info["slug"]
    if slug not in PROBLEMS:
        raise Problem("not-found", f"There is no problem {slug!r}.")
    status, title = PROBLEMS[slug]
    return web.json_response({"type": f"/problems/{slug}", "status": status, "title": title})


ROUTES: tuple[Route, ...] = (("GET", "/problems/{slug}", problem_type),)
