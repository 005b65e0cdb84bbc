"""`/play/…`: starts, lists, streams and stops playground runs."""

from aiohttp import web

from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.openapi import ApiRoutes, BodySpec, ResponseSpec, integer_parameter
from bot.platform.web_kit.paging import (
    PAGE_PARAMETERS,
    integer_query,
    paginate,
    parse_page_query,
    require_known_parameters,
)
from bot.platform.web_kit.sse import stream_events
from bot.platform.web_kit.validation import read_model
from bot.playground.web import actions as playground_service
from bot.playground.web.runs import PlaygroundRun, PlaygroundRunList, PlaygroundRunResponse

routes = ApiRoutes("playground")
MAX_EVENT_ID = 2**31 - 1


@routes.operation(
    "POST /play/runs",
    "Compare up to four replies to one prompt",
    {
        201: ResponseSpec("The started run.", PlaygroundRunResponse),
        404: "The run to go on from is no longer kept.",
        409: "That run has not ended; or the Idempotency-Key came with another request.",
    },
    body=BodySpec(
        playground_service.PlayBody,
        {"models": ["ballast", "ballast@base"], "prompt": "Is the ferry late?", "seed": 7},
    ),
)
async def post_run(request: web.Request) -> web.Response:
    """All get the same conversation and seed; `after` continues an earlier run."""
    body = await read_model(request, playground_service.PlayBody)
    return _created_response(playground_service.start_side_by_side(request, body))


@routes.operation(
    "POST /play/duets",
    "Start a dialogue between two personas",
    {201: ResponseSpec("The started run.", PlaygroundRunResponse)},
    body=BodySpec(
        playground_service.DialogueBody,
        {"models": ["ballast", "oda"], "opening": "What did the tide bring?", "turns": 4},
    ),
)
async def post_dialogue(request: web.Request) -> web.Response:
    """Each gets only its own lore. It ends after its turns, or when one repeats itself."""
    body = await read_model(request, playground_service.DialogueBody)
    return _created_response(playground_service.start_dialogue(request, body))


@routes.operation(
    "GET /play/runs",
    "List the latest playground runs",
    {200: ResponseSpec("The newest first.", PlaygroundRunList)},
    query=PAGE_PARAMETERS,
)
async def get_runs(request: web.Request) -> web.Response:
    """Runs are kept in memory until the bot stops."""
    get_services(request)
    page = parse_page_query(request)
    runs = request.app[playground_service.PLAYGROUND_RUNS].latest()
    shown, links = paginate(request, page, items=runs, key=lambda run: run.id, noun="run")
    return PlaygroundRunList(
        runs=[PlaygroundRunResponse.of(run) for run in shown], links=links
    ).response()


@routes.operation(
    "GET /play/runs/{run_id}",
    "Get a playground run",
    {200: ResponseSpec("The run's progress.", PlaygroundRunResponse), 404: "It is no longer kept."},
)
async def get_run(request: web.Request) -> web.Response:
    """Returns its lines, with all details of each."""
    return PlaygroundRunResponse.of(playground_service.require_run(request)).response()


@routes.operation(
    "GET /play/runs/{run_id}/events",
    "Follow a playground run",
    {
        200: ResponseSpec("Events: line, piece, done, end.", None, "text/event-stream"),
        404: "It is no longer kept.",
    },
    query={
        "after": integer_parameter(
            0,
            MAX_EVENT_ID,
            "The number of the latest event that is known; Last-Event-ID goes before.",
        )
    },
)
async def get_playground_events(request: web.Request) -> web.StreamResponse:
    """Sends all events so far and new ones as server-sent events."""
    run = playground_service.require_run(request)
    require_known_parameters(request, "after")
    after = integer_query(request, "after", 0, MAX_EVENT_ID) or 0
    # A browser that connects again asks for the same address, and says what it has in this header.
    last = request.headers.get("Last-Event-ID", "")
    if last.isascii() and last.isdecimal():
        after = int(last)
    return await stream_events(request, run.events(after))


@routes.operation(
    "POST /play/runs/{run_id}/stop",
    "Stop a playground run",
    {200: ResponseSpec("The stopped run.", PlaygroundRunResponse), 404: "It is no longer kept."},
)
async def post_stop(request: web.Request) -> web.Response:
    """Text generated so far stays."""
    run = playground_service.require_run(request)
    run.stop()
    return PlaygroundRunResponse.of(run).response()


def _created_response(run: PlaygroundRun) -> web.Response:
    created = PlaygroundRunResponse.of(run)
    return created.response(201, {"Location": created.links["self"]})
