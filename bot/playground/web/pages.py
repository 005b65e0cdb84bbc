"""`/dashboard/play`: side-by-side replies and dialogues, as forms that work without scripts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from bot.chat.model_names import ChatModel, VersionTable
from bot.dialogue.dialogue import DEFAULT_TURNS
from bot.personas.web.lookup import persona_choices
from bot.platform.localisation import LocalisableText, gettext_lazy, gettext_noop, join_texts
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.paging import integer_query, require_known_parameters
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import Form, read_form
from bot.platform.web_kit.sse import stream_events
from bot.platform.web_kit.templating import FormError, redirect_to, render_page
from bot.platform.web_kit.validation import parse_body
from bot.playground.web.actions import (
    FORM_LIMITS,
    MAX_COLUMNS,
    PLAYGROUND_RUNS,
    DialogueBody,
    PlayBody,
    SamplingBody,
    most_new_tokens,
    require_run,
    start_dialogue,
    start_side_by_side,
)
from bot.playground.web.runs import (
    PlaygroundReply,
    PlaygroundRun,
    reply_json,
    show_blanks,
    surprise_level,
)
from bot.services import Services
from bot.store import BASE_MODEL_NAME
from personas.home.adapters import DIALOGUE_PREFIX

PLAYGROUND_PATH = "/dashboard/play"
MAX_EVENT_ID = 2**31 - 1
FIELD_LABELS: dict[str, str] = {
    "models": gettext_lazy("Who answers"),
    "prompt": gettext_lazy("Your message"),
    "opening": gettext_lazy("Opening message"),
    "turns": gettext_lazy("Turns"),
    "temperature": gettext_lazy("Temperature"),
    "top_p": "Top-p",
    "top_k": "Top-k",
    "min_p": "Min-p",
    "seed": gettext_lazy("Seed"),
    "max_new_tokens": gettext_lazy("Maximum new tokens"),
    "alternatives": gettext_lazy("Alternatives shown"),
}
RUN_TITLES = {
    "duet": gettext_noop("Duet: {names}"),
    "together": gettext_noop("Side by side: {names}"),
}
DIALOGUE_VERSION_PATTERN = re.compile(rf"({DIALOGUE_PREFIX}[^@]+)@.*")
"""A dialogue adapter with its version, of which there is one."""
routes = Routes()


@dataclass(frozen=True)
class PlaygroundForm:
    """Contents of a form, and its problem. `ids` has element ids that differ from names; settings'
    have a prefix.
    """

    body: dict[str, Any] = field(default_factory=dict)
    problem: Problem | None = None
    prefix: str = ""
    ids: dict[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, Any]:
        """Template variables of the form."""
        status = 200
        faults = []
        wrong = {}
        if self.problem:
            status = self.problem.status
            for error in self.problem.errors:
                fault = self._fault(error["field"].partition(".")[0], error)
                faults.append(fault)
                if fault.field:
                    wrong[fault.field] = fault.message
        if self.problem and not faults:
            faults.append(FormError(self.problem.text))
        texts = {name: self.body.get(name, "") for name in ("prompt", "opening")}
        return {"status": status, "faults": faults, "wrong": wrong, "texts": texts}

    def _fault(self, name: str, error: dict[str, str]) -> FormError:
        message = error["detail"]
        if "allowed" in error:
            message = gettext_lazy("must be {allowed}", allowed=error["allowed"])
        id = f"{self.prefix}-{name}" if name in SamplingBody.model_fields else name
        return FormError(message, self.ids.get(name, id), FIELD_LABELS.get(name, name))


@routes.add(f"GET {PLAYGROUND_PATH}")
async def get_playground(request: web.Request) -> web.Response:
    """Page with the forms, filled from the query."""
    given: dict[str, Any] = _sampling_fields(request.query)
    names = filter(None, request.query.getall("with", []))
    given["models"] = [DIALOGUE_VERSION_PATTERN.sub(r"\1", name) for name in names]
    return _render_playground(request, PlaygroundForm(given))


@routes.add(f"POST {PLAYGROUND_PATH}")
async def post_side_by_side(request: web.Request) -> web.Response:
    body = form_to_body(await read_form(request), "prompt")
    if "after" in body:
        body.pop("models")
    try:
        run = start_side_by_side(request, parse_body(PlayBody, body, is_form=True))
        return redirect_to(request, _run_path(run))
    except Problem as problem:
        if earlier := request.app[PLAYGROUND_RUNS].find(body.get("after", "")):
            return _render_run(
                request, earlier, PlaygroundForm(body, problem, "more", {"after": ""})
            )
        return _render_playground(
            request, PlaygroundForm(body, problem, "one", {"models": "with-1", "after": ""})
        )


@routes.add(f"POST {PLAYGROUND_PATH}/duet")
async def post_dialogue_form(request: web.Request) -> web.Response:
    body = form_to_body(await read_form(request), "opening")
    try:
        run = start_dialogue(request, parse_body(DialogueBody, body, is_form=True))
        return redirect_to(request, _run_path(run))
    except Problem as problem:
        return _render_playground(
            request, PlaygroundForm(body, problem, "two", {"models": "first"})
        )


@routes.add(f"GET {PLAYGROUND_PATH}/runs/{{run_id}}")
async def get_run_page(request: web.Request) -> web.Response:
    return _render_run(request, require_run(request), PlaygroundForm())


@routes.add(f"GET {PLAYGROUND_PATH}/runs/{{run_id}}/lines/{{line}}")
async def get_reply_part(request: web.Request) -> web.Response:
    """One reply of a run's page, which the script fetches when it is complete."""
    run = require_run(request)
    try:
        line = run.lines[int(request.match_info["line"])]
    except (ValueError, IndexError):
        raise Problem(
            "not-found", "There is no such line.", f"There are {len(run.lines)}, from 0 on."
        ) from None
    return render_page(request, "play/line.html", title="", line=_reply_context(line), run=run)


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


def _render_playground(request: web.Request, draft: PlaygroundForm) -> web.Response:
    chosen = draft.body.get("models", [])[:MAX_COLUMNS]
    return render_page(
        request,
        "play/index.html",
        title=gettext_lazy("Playground"),
        chosen=chosen + [""] * (MAX_COLUMNS - len(chosen)),
        runs=request.app[PLAYGROUND_RUNS].latest(),
        turns=draft.body.get("turns", DEFAULT_TURNS),
        **_model_choices(get_services(request), request.query.get("find", ""), chosen),
        **_form_values(get_services(request), draft.body),
        **draft.variables(),
    )


def _render_run(request: web.Request, run: PlaygroundRun, draft: PlaygroundForm) -> web.Response:
    settings = _sampling_fields(run.settings) | {"seed": run.sampling.seed}
    # The link has no texts, as browsers store links.
    link = [("with", speaker.id) for speaker in run.speakers]
    link += settings.items()
    names = join_texts(*(speaker.name for speaker in run.speakers), separator=", ")
    values = draft.body if draft.problem else settings
    return render_page(
        request,
        f"play/{run.kind}.html",
        title=LocalisableText(RUN_TITLES[run.kind], values={"names": names}),
        run=run,
        lines=[_reply_context(line) for line in run.lines],
        link=f"{PLAYGROUND_PATH}?{urlencode(link)}",
        **_form_values(get_services(request), values),
        **draft.variables(),
    )


def form_to_body(form: Form, text: str) -> dict[str, Any]:
    """Convert a form to a request body without its empty fields; `text` names the message's
    field.
    """
    body: dict[str, Any] = {}
    for name in (*SamplingBody.model_fields, "after", "turns"):
        if value := form.get(name, "").strip():
            body[name] = value
    models = [name.strip() for name in form.getall("with", [])]
    body["models"] = list(filter(None, models))
    body[text] = form.get(text, "").strip()
    return body


def _run_path(run: PlaygroundRun) -> str:
    return f"{PLAYGROUND_PATH}/runs/{run.id}"


def _sampling_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in SamplingBody.model_fields if name in values}


def _form_values(services: Services, values: dict[str, Any]) -> dict[str, Any]:
    usual = services.request_builder.sampling
    limits = FORM_LIMITS | {"max_new_tokens": most_new_tokens(services)}
    return {"given": _sampling_fields(values), "usual": usual, "limits": limits}


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
        label = gettext_lazy(
            "{name}, live ({version})",
            name=persona.name,
            version=listed.live.version or gettext_lazy("base model"),
        )
        group = choices.setdefault(persona.name, [])
        group.append((persona.id, label))
        for model, _ in listed.models:
            group.append((model.id, model.name))
        for adapter in adapters:
            name = ChatModel.of_dialogue(adapter, persona).name
            group.append((f"{persona.id}@{adapter.id}", name))
    alone = [(adapter.id, ChatModel.of_dialogue(adapter).name) for adapter in adapters]
    choices[gettext_lazy("No persona")] = [
        *alone,
        (BASE_MODEL_NAME, gettext_lazy("Base model alone")),
    ]
    return {"choices": choices, **menu}


def _reply_context(line: PlaygroundReply) -> dict[str, Any]:
    """Template variables of a line: tokens with their surprise and visible blanks."""
    reply = reply_json(line)
    tokens = []
    for token in reply.get("tokens", []):
        others = []
        for other in token["alternatives"]:
            others.append((show_blanks(other["text"]), other["probability"]))
        tokens.append(
            {
                "text": show_blanks(token["text"]),
                "probability": token["probability"],
                "level": surprise_level(token["probability"]),
                "others": others,
            }
        )
    return {
        **reply,
        "turns": line.turns,
        "is_open": line.is_open,
        "tokens": tokens,
        "hits": line.lore,
    }
