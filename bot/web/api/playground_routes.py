"""`/play/…`: starts, lists, streams and stops playground runs."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode

from aiohttp import web
from multidict import MultiMapping
from pydantic import Field

from bot.chat.dialogue import DEFAULT_TURNS, MAX_TURNS, MIN_TURNS, Dialogue
from bot.chat.model_names import ChatModel, UnknownModelError, find_model
from bot.services import Services
from bot.web.api.openapi import BodySpec, ResponseSpec, describe_operation, integer_parameter
from bot.web.api.paging import PAGE_PARAMETERS, integer_query, page_links, parse_page_query, require_known_parameters
from bot.web.api.playground_runs import PlaygroundRun, PlaygroundRuns, run_dialogue, run_json, run_side_by_side
from bot.web.app_context import Route, get_services
from bot.web.problems import Problem
from bot.web.request_body import parse_body, read_json_object
from bot.web.sse import stream_events
from personas.prompt import EXAMPLE_USER
from personas.schemas.base import FrozenModel
from personas.schemas.chat import SamplingParams, Turn

MAX_COLUMNS, MAX_ALTERNATIVES, MAX_NEW_TOKENS = 4, 10, 1024
MAX_PROMPT_CHARS = 8000
MAX_SEED = 2**31 - 1
ModelName = Annotated[
    str, Field(min_length=1, max_length=256, description="a persona's id, or ID@VERSION, ID@base, base")
]
PromptText = Annotated[
    str,
    Field(min_length=1, max_length=MAX_PROMPT_CHARS, pattern=r"\S",
          description=f"words, at most {MAX_PROMPT_CHARS} characters"),
]  # fmt: skip


class SamplingBody(FrozenModel):
    """How the replies are drawn. What is left out is as the bot answers members; without a seed one is drawn."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=10_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    alternatives: Annotated[int, Field(ge=0, le=MAX_ALTERNATIVES, description="tokens told at each place")] = 0

    def sampling(self, usual: SamplingParams) -> SamplingParams:
        """The same as the engine takes it."""
        given = {name: value for name, value in self.settings().items() if name != "alternatives"}
        return replace(usual, **{"seed": secrets.randbits(31), **given}, alternatives=self.alternatives or None)

    def settings(self) -> dict[str, Any]:
        """What was set, by name."""
        known = self.model_dump(include=set(SamplingBody.model_fields), exclude_none=True)
        return {name: value for name, value in known.items() if name != "alternatives" or value}


class PlayBody(SamplingBody):
    """The body of `POST /play/runs`: several answer one prompt, side by side.

    `after` names an earlier run whose talk goes on, with the same speakers: then `models` is left out.
    """

    models: Annotated[tuple[ModelName, ...], Field(max_length=MAX_COLUMNS)] = ()
    prompt: PromptText
    after: Annotated[str, Field(max_length=64)] | None = None


class DialogueBody(SamplingBody):
    """The body of `POST /play/duets`: two talk with each other after an opening that is said to both."""

    models: Annotated[tuple[ModelName, ...], Field(min_length=2, max_length=2)]
    opening: PromptText
    turns: Annotated[int, Field(ge=MIN_TURNS, le=MAX_TURNS)] = DEFAULT_TURNS


def form_to_body(form: MultiMapping[Any], text: str) -> dict[str, Any]:
    """A form as such a body; fields that were left empty are left out. `text` names the field with the words."""
    fields = (*SamplingBody.model_fields, "after", "turns")
    body: dict[str, Any] = {name: str(form[name]).strip() for name in fields if str(form.get(name, "")).strip()}
    body["models"] = [str(one).strip() for one in form.getall("with", []) if str(one).strip()]
    return {**body, text: str(form.get(text, "")).replace("\r\n", "\n").strip()}


def permalink(path: str, models: Iterable[str], settings: dict[str, Any]) -> str:
    """An address that opens the form with these speakers and settings. What is said is not in it: addresses are kept
    by browsers and shown to others.
    """
    return f"{path}?{urlencode([*(('with', model) for model in models), *settings.items()])}"


PLAYGROUND_RUNS = web.AppKey("playground runs", PlaygroundRuns)


def set_up_playground(app: web.Application) -> None:
    """Have the application keep runs, and stop them at its end."""
    runs = app[PLAYGROUND_RUNS] = PlaygroundRuns()

    async def close(_: web.Application) -> None:
        await runs.close()

    app.on_shutdown.append(close)


def start_side_by_side(services: Services, runs: PlaygroundRuns, asked: PlayBody) -> PlaygroundRun:
    """Have several answer a prompt, or the next one of a talk. Raises `Problem`."""
    prompt = Turn(EXAMPLE_USER, asked.prompt)
    talks: list[tuple[Turn, ...]]
    if asked.after is None:
        who, talks = _find_models(services, asked.models), [(prompt,)] * len(asked.models)
    elif asked.models:
        raise _field_problem("models", "A talk goes on with the speakers it had.", "Leave models out, or after.")
    else:
        lines = _require_ended(runs.get(asked.after)).lines
        who, talks = tuple(line.speaker for line in lines), [(*line.talk(), prompt) for line in lines]
    run = _new_run(services, "together", who, asked.prompt, asked)
    return runs.start(run, run_side_by_side(services, run, talks))


def start_dialogue(services: Services, runs: PlaygroundRuns, asked: DialogueBody) -> PlaygroundRun:
    """Have two talk with each other. Raises `Problem`."""
    one, other = who = _find_models(services, asked.models)
    if one.persona is None or other.persona is None:
        raise _field_problem("models", "The base model alone has no part to play.", "Name two personas.")
    names = one.persona.name, other.persona.name
    run = _new_run(services, "duet", who, asked.opening, asked)
    run.settings["turns"] = asked.turns
    return runs.start(run, run_dialogue(services, run, Dialogue(names, Turn(EXAMPLE_USER, asked.opening), asked.turns)))


def _new_run(
    services: Services, kind: Any, who: tuple[ChatModel, ...], prompt: str, how: SamplingBody
) -> PlaygroundRun:
    return PlaygroundRun(kind, who, prompt, how.sampling(services.request_builder.sampling), how.settings())


def _find_models(services: Services, names: tuple[str, ...]) -> tuple[ChatModel, ...]:
    if not names:
        raise _field_problem("models", "Nobody is asked.", "Choose at least one persona.")
    try:
        return tuple(find_model(services.request_builder, name) for name in names)
    except UnknownModelError as error:
        raise _field_problem("models", error.message, error.advice) from None


def _require_ended(run: PlaygroundRun) -> PlaygroundRun:
    if run.kind != "together":
        raise _field_problem("after", f"The run {run.id} is a duet.", "Only replies side by side go on.")
    if not run.ended:
        raise Problem("conflict", "The replies are still being written.", "Stop them, or wait.")
    return run


def _field_problem(field: str, detail: str, advice: str) -> Problem:
    errors = [{"field": field, "pointer": f"#/{field}", "detail": f"{detail} {advice}"}]
    return Problem("invalid-request", detail, advice, errors=errors)


RUN_SCHEMA = {
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
RUN_LIST_SCHEMA = {
    "type": "object",
    "required": ["runs", "links"],
    "properties": {"runs": {"type": "array", "items": RUN_SCHEMA}, "links": {"type": "object"}},
}
PLAYGROUND_TAG = "playground"
MAX_EVENT_ID = 2**31 - 1


@describe_operation(
    "Have up to four answer one prompt",
    {201: ResponseSpec("The run, which has begun.", RUN_SCHEMA), 404: "The run to go on from is no longer kept.",
     409: "That run has not ended; or the Idempotency-Key came with another request."},
    tag=PLAYGROUND_TAG,
    body=BodySpec(PlayBody, {"models": ["ballast", "ballast@base"], "prompt": "Is the ferry late?", "seed": 7}),
)  # fmt: skip
async def post_run(request: web.Request) -> web.Response:
    """All see the same talk and draw from the same seed; `after` goes on with an earlier run."""
    run = start_side_by_side(
        get_services(request), request.app[PLAYGROUND_RUNS], parse_body(PlayBody, await read_json_object(request))
    )
    return _created_response(run)


@describe_operation(
    "Have two personas talk with each other",
    {201: ResponseSpec("The run, which has begun.", RUN_SCHEMA)},
    tag=PLAYGROUND_TAG,
    body=BodySpec(DialogueBody, {"models": ["ballast", "oda"], "opening": "What did the tide bring?", "turns": 4}),
)
async def post_dialogue(request: web.Request) -> web.Response:
    """Each is shown its own lore alone. It ends after its turns, or when somebody says again what was said."""
    run = start_dialogue(
        get_services(request), request.app[PLAYGROUND_RUNS], parse_body(DialogueBody, await read_json_object(request))
    )
    return _created_response(run)


@describe_operation(
    "The latest runs",
    {200: ResponseSpec("The newest first.", RUN_LIST_SCHEMA)},
    tag=PLAYGROUND_TAG,
    query=PAGE_PARAMETERS,
)
async def get_runs(request: web.Request) -> web.Response:
    """They are kept in memory, until the bot ends."""
    get_services(request)
    page, runs = parse_page_query(request), request.app[PLAYGROUND_RUNS]
    found = runs.latest()
    if page.after is not None:
        found = found[found.index(runs.get(page.after)) + 1 :]
    last = found[page.limit - 1].id if len(found) > page.limit else None
    told = [run_json(run) for run in found[: page.limit]]
    return web.json_response({"runs": told, "links": page_links(request, page, last)})


@describe_operation(
    "A run", {200: ResponseSpec("How far it is.", RUN_SCHEMA), 404: "It is no longer kept."}, tag=PLAYGROUND_TAG
)
async def get_run(request: web.Request) -> web.Response:
    """Its lines, with all that is known of each."""
    return web.json_response(run_json(require_run(request)))


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
    "Stop a run", {200: ResponseSpec("How far it came.", RUN_SCHEMA), 404: "It is no longer kept."}, tag=PLAYGROUND_TAG
)
async def post_stop(request: web.Request) -> web.Response:
    """What has been written stays."""
    run = require_run(request)
    run.stop()
    return web.json_response(run_json(run))


def require_run(request: web.Request) -> PlaygroundRun:
    """The run that the address names. Raises `Problem`."""
    get_services(request)
    return request.app[PLAYGROUND_RUNS].get(request.match_info["run_id"])


def _created_response(run: PlaygroundRun) -> web.Response:
    told = run_json(run)
    return web.json_response(told, status=201, headers={"Location": told["links"]["self"]})


ROUTES: tuple[Route, ...] = (
    ("POST", "/play/runs", post_run),
    ("POST", "/play/duets", post_dialogue),
    ("GET", "/play/runs", get_runs),
    ("GET", "/play/runs/{run_id}", get_run),
    ("GET", "/play/runs/{run_id}/events", get_playground_events),
    ("POST", "/play/runs/{run_id}/stop", post_stop),
)
