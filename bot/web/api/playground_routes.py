"""`/play/…`: starts, lists, streams and stops playground runs."""

from __future__ import annotations

from aiohttp import web

from bot.web.api.openapi import BodySpec, ResponseSpec, describe_operation, integer_parameter
from bot.web.api.paging import PAGE_PARAMETERS, integer_query, page_links, parse_page_query, require_known_parameters
from bot.web.api.playground_runs import PlaygroundRun, PlaygroundRunList, PlaygroundRunResponse
from bot.web.api.playground_service import (
    PLAYGROUND_RUNS,
    DialogueBody,
    PlayBody,
    require_run,
    start_dialogue,
    start_side_by_side,
)
from bot.web.app_context import Route, get_services
from bot.web.request_body import parse_body, read_json_object
from bot.web.sse import stream_events

PLAYGROUND_TAG = "playground"
MAX_EVENT_ID = 2**31 - 1


@describe_operation(
    "Have up to four answer one prompt",
    {
        201: ResponseSpec("The run, which has begun.", PlaygroundRunResponse),
        404: "The run to go on from is no longer kept.",
        409: "That run has not ended; or the Idempotency-Key came with another request.",
    },
    tag=PLAYGROUND_TAG,
    body=BodySpec(PlayBody, {"models": ["ballast", "ballast@base"], "prompt": "Is the ferry late?", "seed": 7}),
)
async def post_run(request: web.Request) -> web.Response:
    """All get the same conversation and seed; `after` continues an earlier run."""
    run = start_side_by_side(
        get_services(request), request.app[PLAYGROUND_RUNS], parse_body(PlayBody, await read_json_object(request))
    )
    return _created_response(run)


@describe_operation(
    "Have two personas talk with each other",
    {201: ResponseSpec("The run, which has begun.", PlaygroundRunResponse)},
    tag=PLAYGROUND_TAG,
    body=BodySpec(DialogueBody, {"models": ["ballast", "oda"], "opening": "What did the tide bring?", "turns": 4}),
)
async def post_dialogue(request: web.Request) -> web.Response:
    """Each gets only its own lore. It ends after its turns, or when one repeats itself."""
    run = start_dialogue(
        get_services(request), request.app[PLAYGROUND_RUNS], parse_body(DialogueBody, await read_json_object(request))
    )
    return _created_response(run)


@describe_operation(
    "The latest runs",
    {200: ResponseSpec("The newest first.", PlaygroundRunList)},
    tag=PLAYGROUND_TAG,
    query=PAGE_PARAMETERS,
)
async def get_runs(request: web.Request) -> web.Response:
    """Runs are kept in memory until the bot stops."""
    get_services(request)
    page, runs = parse_page_query(request), request.app[PLAYGROUND_RUNS]
    found = runs.latest()
    if page.after is not None:
        found = found[found.index(runs.get(page.after)) + 1 :]
    last = found[page.limit - 1].id if len(found) > page.limit else None
    shown = [PlaygroundRunResponse.of(run) for run in found[: page.limit]]
    return PlaygroundRunList(runs=shown, links=page_links(request, page, last)).response()


@describe_operation(
    "A run",
    {200: ResponseSpec("How far it is.", PlaygroundRunResponse), 404: "It is no longer kept."},
    tag=PLAYGROUND_TAG,
)
async def get_run(request: web.Request) -> web.Response:
    """Its lines, with all that is known of each."""
    return PlaygroundRunResponse.of(require_run(request)).response()


@describe_operation(
    "What happens in a run",
    {200: ResponseSpec("Events: line, piece, done, end.", None, "text/event-stream"), 404: "It is no longer kept."},
    tag=PLAYGROUND_TAG,
    query={
        "after": integer_parameter(
            0, MAX_EVENT_ID, "The number of the latest event that is known; Last-Event-ID goes before."
        )
    },
)
async def get_playground_events(request: web.Request) -> web.StreamResponse:
    """Server-sent events from the first on, whenever one comes."""
    run = require_run(request)
    require_known_parameters(request, "after")
    after, last = integer_query(request, "after", 0, MAX_EVENT_ID) or 0, request.headers.get("Last-Event-ID", "")
    return await stream_events(request, run.events(int(last) if last.isascii() and last.isdecimal() else after))


@describe_operation(
    "Stop a run",
    {200: ResponseSpec("How far it came.", PlaygroundRunResponse), 404: "It is no longer kept."},
    tag=PLAYGROUND_TAG,
)
async def post_stop(request: web.Request) -> web.Response:
    """Text generated so far stays."""
    run = require_run(request)
    run.stop()
    return PlaygroundRunResponse.of(run).response()


def _created_response(run: PlaygroundRun) -> web.Response:
    created = PlaygroundRunResponse.of(run)
    return created.response(201, {"Location": created.links["self"]})


ROUTES: tuple[Route, ...] = (
    ("POST", "/play/runs", post_run),
    ("POST", "/play/duets", post_dialogue),
    ("GET", "/play/runs", get_runs),
    ("GET", "/play/runs/{run_id}", get_run),
    ("GET", "/play/runs/{run_id}/events", get_playground_events),
    ("POST", "/play/runs/{run_id}/stop", post_stop),
)
