"""`/play/…`: the playground for programs. Replies side by side, duets, and what happens in them as it happens."""

from __future__ import annotations

from aiohttp import web

from bot.web.bodies import json_object, parsed
from bot.web.events import stream
from bot.web.here import Route, house_of
from bot.web.openapi import Answer, Body, described, whole
from bot.web.paging import PAGED, links, number, paged, require_known
from bot.web.play.asked import DuetBody, PlayBody
from bot.web.play.begin import RUNS, begin_duet, begin_together
from bot.web.play.runs import Run
from bot.web.play.shapes import run_json

RUN = {
    "type": "object",
    "required": ["id", "kind", "at", "prompt", "speakers", "settings", "seed", "lines", "ended", "links"],
    "properties": {
        "id": {"type": "string"},
        "kind": {"enum": ["together", "duet"]},
        "at": {"type": "string"},
        "prompt": {"type": "string"},
        "speakers": {"type": "array", "items": {"type": "object"}},
        "settings": {"type": "object"},
        "seed": {"type": "integer"},
        "lines": {"type": "array", "items": {"type": "object"}},
        "ended": {"type": ["string", "null"], "description": "Why it has ended; null while it runs."},
        "links": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
LIST = {
    "type": "object",
    "required": ["runs", "links"],
    "properties": {"runs": {"type": "array", "items": RUN}, "links": {"type": "object"}},
}
TAG = "playground"
LAST_EVENT = 2**31 - 1


@described(
    "Have up to four answer one prompt",
    {201: Answer("The run, which has begun.", RUN), 404: "The run to go on from is no longer kept.",
     409: "That run has not ended; or the Idempotency-Key came with another request."},
    tag=TAG,
    body=Body(PlayBody, {"models": ["ballast", "ballast@base"], "prompt": "Is the ferry late?", "seed": 7}),
)  # fmt: skip
async def post_run(request: web.Request) -> web.Response:
    """All see the same talk and draw from the same seed; `after` goes on with an earlier run."""
    run = begin_together(house_of(request), request.app[RUNS], parsed(PlayBody, await json_object(request)))
    return _created(run)


@described(
    "Have two personas talk with each other",
    {201: Answer("The run, which has begun.", RUN)},
    tag=TAG,
    body=Body(DuetBody, {"models": ["ballast", "oda"], "opening": "What did the tide bring?", "turns": 4}),
)
async def post_duet(request: web.Request) -> web.Response:
    """Each is shown its own lore alone. It ends after its turns, or when somebody says again what was said."""
    run = begin_duet(house_of(request), request.app[RUNS], parsed(DuetBody, await json_object(request)))
    return _created(run)


@described("The latest runs", {200: Answer("The newest first.", LIST)}, tag=TAG, query=PAGED)
async def get_runs(request: web.Request) -> web.Response:
    """They are kept in memory, until the bot ends."""
    house_of(request)
    page, runs = paged(request), request.app[RUNS]
    found = runs.latest()
    if page.after is not None:
        found = found[found.index(runs.get(page.after)) + 1 :]
    last = found[page.limit - 1].id if len(found) > page.limit else None
    told = [run_json(run) for run in found[: page.limit]]
    return web.json_response({"runs": told, "links": links(request, page, last)})


@described("A run", {200: Answer("How far it is.", RUN), 404: "It is no longer kept."}, tag=TAG)
async def get_run(request: web.Request) -> web.Response:
    """Its lines, with all that is known of each."""
    return web.json_response(run_json(run_here(request)))


@described(
    "What happens in a run",
    {200: Answer("Events: line, piece, done, end.", None, "text/event-stream"), 404: "It is no longer kept."},
    tag=TAG,
    query={"after": whole(0, LAST_EVENT, "The number of the latest event that is known; Last-Event-ID goes before.")},
)
async def get_events(request: web.Request) -> web.StreamResponse:
    """Server-sent events from the first on, whenever one comes."""
    run = run_here(request)
    require_known(request, "after")
    after, last = number(request, "after", 0, LAST_EVENT) or 0, request.headers.get("Last-Event-ID", "")
    return await stream(request, run.events(int(last) if last.isascii() and last.isdecimal() else after))


@described("Stop a run", {200: Answer("How far it came.", RUN), 404: "It is no longer kept."}, tag=TAG)
async def post_stop(request: web.Request) -> web.Response:
    """What has been written stays."""
    run = run_here(request)
    run.stop()
    return web.json_response(run_json(run))


def run_here(request: web.Request) -> Run:
    """The run that the address names. Raises `Problem`."""
    house_of(request)
    return request.app[RUNS].get(request.match_info["run_id"])


def _created(run: Run) -> web.Response:
    told = run_json(run)
    return web.json_response(told, status=201, headers={"Location": told["links"]["self"]})


ROUTES: tuple[Route, ...] = (
    ("POST", "/play/runs", post_run),
    ("POST", "/play/duets", post_duet),
    ("GET", "/play/runs", get_runs),
    ("GET", "/play/runs/{run_id}", get_run),
    ("GET", "/play/runs/{run_id}/events", get_events),
    ("POST", "/play/runs/{run_id}/stop", post_stop),
)
