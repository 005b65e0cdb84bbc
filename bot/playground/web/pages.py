"""`/dashboard/play`: replies of one or two models, and dialogues, on a page that works without
scripts.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from bot.chat.model_names import ChatModel, VersionTable
from bot.personas.web.lookup import persona_choices
from bot.platform.localisation import join_texts
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.paging import integer_query, require_known_parameters
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import Form, read_form
from bot.platform.web_kit.sse import stream_events
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.platform.web_kit.validation import parse_body
from bot.playground.web.actions import (
    FORM_LIMITS,
    MAX_COLUMNS,
    PLAYGROUND_RUNS,
    PlayBody,
    SamplingBody,
    most_new_tokens,
    require_run,
    start_run,
)
from bot.playground.web.runs import PlaygroundRun
from bot.services import Services
from bot.store import BASE_MODEL_NAME
from personas.home.adapters import DIALOGUE_PREFIX

PLAYGROUND_PATH = "/dashboard/play"
MAX_EVENT_ID = 2**31 - 1
DIALOGUE_VERSION_PATTERN = re.compile(rf"({DIALOGUE_PREFIX}[^@]+)@.*")
"""A dialogue adapter with its version, of which there is one."""
SETTINGS = (*SamplingBody.model_fields, "duet", "turns")
routes = Routes()


@routes.add(f"GET {PLAYGROUND_PATH}", section="Playground")
async def get_playground(request: web.Request) -> web.Response:
    """Page with the form, filled from the query; with `run`, what is said there, too."""
    if run_id := request.query.get("run"):
        return _render_run(request, request.app[PLAYGROUND_RUNS].get(run_id))
    names = [DIALOGUE_VERSION_PATTERN.sub(r"\1", name) for name in request.query.getall("with", [])]
    return _render_form(request, {**request.query, "models": list(filter(None, names))})


@routes.add(f"POST {PLAYGROUND_PATH}")
async def post_message(request: web.Request) -> web.Response:
    body = form_to_body(await read_form(request))
    try:
        run = start_run(request, parse_body(PlayBody, body, is_form=True))
    except Problem as problem:
        if earlier := request.app[PLAYGROUND_RUNS].find(body.get("after", "")):
            return _render_run(request, earlier, body, problem)
        return _render_form(request, body, problem)
    return redirect_to(request, _run_path(run))


@routes.add(f"GET {PLAYGROUND_PATH}/runs/{{run_id}}/events")
async def get_run_events(request: web.Request) -> web.StreamResponse:
    """Stream all events of a run after a number, for the page's script, and then new ones."""
    run = require_run(request)
    require_known_parameters(request, "after")
    after = integer_query(request, "after", 0, MAX_EVENT_ID) or 0
    # A browser that connects again asks for the same address, and says what it has in this header.
    last = request.headers.get("Last-Event-ID", "")
    if last.isascii() and last.isdecimal():
        after = int(last)
    return await stream_events(request, run.events(after))


@routes.add(f"POST {PLAYGROUND_PATH}/runs/{{run_id}}/stop")
async def stop_run(request: web.Request) -> web.Response:
    run = require_run(request)
    run.stop()
    return redirect_to(request, _run_path(run))


def _render_form(
    request: web.Request, given: Mapping[str, Any], problem: Problem | None = None
) -> web.Response:
    chosen = given["models"][:MAX_COLUMNS]
    return _render(
        request,
        given,
        problem,
        title="Playground",
        chosen=chosen + [""] * (MAX_COLUMNS - len(chosen)),
        **_model_choices(get_services(request), request.query.get("find", ""), chosen),
    )


def _render_run(
    request: web.Request,
    run: PlaygroundRun,
    body: Mapping[str, Any] | None = None,
    problem: Problem | None = None,
) -> web.Response:
    """Render a run with the form of the next message, whose refused `body` it may have."""
    settings = run.settings | {"seed": run.sampling.seed}
    # The link has no texts, as browsers store links.
    link = [("with", speaker.id) for speaker in run.speakers]
    if run.kind == "duet":
        link.append(("duet", "true"))
    names = join_texts(*(speaker.name for speaker in run.speakers), separator=", ")
    return _render(
        request,
        body or settings,
        problem,
        title=join_texts("Playground:", names),
        run=run,
        again=f"{PLAYGROUND_PATH}?{urlencode([*link, *settings.items()])}",
    )


def _render(
    request: web.Request, given: Mapping[str, Any], problem: Problem | None, **more: Any
) -> web.Response:
    services = get_services(request)
    return render_page(
        request,
        "play/index.html",
        problem=problem,
        ids={"after": ""},
        given={name: given[name] for name in SETTINGS if name in given},
        prompt=given.get("prompt", ""),
        usual=services.request_builder.sampling,
        limits=FORM_LIMITS | {"max_new_tokens": most_new_tokens(services)},
        **{"run": None, **more},
    )


def form_to_body(form: Form) -> dict[str, Any]:
    """Convert a form to a request body without its empty fields."""
    body: dict[str, Any] = {"prompt": form.get("prompt", "").strip()}
    for name in (*SETTINGS, "after"):
        if value := form.get(name, "").strip():
            body[name] = value
    models = [name.strip() for name in form.getall("with", [])]
    body["models"] = list(filter(None, models))
    return body


def _run_path(run: PlaygroundRun) -> str:
    return f"{PLAYGROUND_PATH}?run={run.id}"


def _model_choices(services: Services, find: str, chosen: Sequence[str]) -> dict[str, Any]:
    """Template variables of the menus: model names and labels by persona, each card also with the
    dialogue adapters.
    """
    menu = persona_choices(services, find, *(name.partition("@")[0] for name in chosen))
    adapters = services.served_versions.dialogue_adapters()
    choices: dict[str, list[tuple[str, str]]] = {}
    versions = VersionTable.read(services.served_versions)
    for listed_persona in menu.pop("personas"):
        owned = services.personas.find_owner(listed_persona.id)
        if owned is None:
            continue
        guild_id, persona = owned
        listed = versions.models(guild_id, persona)
        label = f"{persona.name}, live ({listed.live.version or 'base model'})"
        group = choices.setdefault(persona.name, [])
        group.append((persona.id, label))
        for model, _ in listed.models:
            group.append((model.id, model.name))
        for adapter in adapters:
            name = ChatModel.of_dialogue(adapter, persona).name
            group.append((f"{persona.id}@{adapter.id}", name))
    alone = [(adapter.id, ChatModel.of_dialogue(adapter).name) for adapter in adapters]
    choices["No persona"] = [
        *alone,
        (BASE_MODEL_NAME, "Base model alone"),
    ]
    return {"choices": choices, **menu}
