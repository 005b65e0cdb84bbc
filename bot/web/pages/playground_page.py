"""`/dashboard/play`: side-by-side replies and dialogues, as forms that work without scripts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from bot.chat.dialogue import DEFAULT_TURNS, MAX_TURNS, MIN_TURNS
from bot.chat.model_names import LIVE_VERSION, list_models
from bot.services import Services
from bot.store import BASE_MODEL_NAME
from bot.web.api.playground_runs import PlaygroundReply, PlaygroundRun, reply_json, show_blanks, surprise_level
from bot.web.api.playground_service import (
    MAX_ALTERNATIVES,
    MAX_COLUMNS,
    MAX_NEW_TOKENS,
    MAX_PROMPT_CHARS,
    MAX_SEED,
    PLAYGROUND_RUNS,
    DialogueBody,
    PlayBody,
    SamplingBody,
    form_to_body,
    permalink,
    require_run,
    start_dialogue,
    start_side_by_side,
)
from bot.web.app_context import Route, get_services
from bot.web.problems import Problem
from bot.web.request_body import parse_body, read_form
from bot.web.templating import FormError, redirect_to, render_page

PLAYGROUND_PATH = "/dashboard/play"
FORM_LIMITS = {
    "columns": MAX_COLUMNS, "alternatives": MAX_ALTERNATIVES, "max_new_tokens": MAX_NEW_TOKENS,
    "prompt": MAX_PROMPT_CHARS, "seed": MAX_SEED, "fewest": MIN_TURNS, "most": MAX_TURNS,
}  # fmt: skip
FIELD_LABELS = {
    "models": "Who answers", "prompt": "Your message", "opening": "Opening message", "turns": "Turns",
    "temperature": "Temperature", "top_p": "Top-p", "top_k": "Top-k", "min_p": "Min-p", "seed": "Seed",
    "max_new_tokens": "Maximum new tokens", "alternatives": "Alternatives shown",
}  # fmt: skip


@dataclass(frozen=True)
class PersonaOptions:
    """A persona and what of it can be chosen: names to ask by, and what they are called."""

    label: str
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PlaygroundForm:
    """Contents of a form, and the problem with which it is shown again. `ids` maps fields to element ids
    where these differ from their names; `prefix` is that of the settings' ids.
    """

    body: dict[str, Any] = field(default_factory=dict)
    problem: Problem | None = None
    prefix: str = ""
    ids: dict[str, str] = field(default_factory=dict)

    def faults(self) -> list[FormError]:
        """Errors with their fields."""
        if self.problem is None or not self.problem.errors:
            return [FormError(str(self.problem))] if self.problem else []
        return [self._fault(one["field"].partition(".")[0], one) for one in self.problem.errors]

    def shown(self) -> dict[str, Any]:
        """The same for a page and its template."""
        faults = self.faults()
        return {
            "status": self.problem.status if self.problem else 200,
            "faults": faults,
            "wrong": {fault.field: fault.said for fault in faults if fault.field},
            "texts": {name: self.body.get(name, "") for name in ("prompt", "opening")},
        }

    def _fault(self, name: str, told: dict[str, str]) -> FormError:
        said = f"must be {told['allowed']}" if "allowed" in told else told["detail"]
        own = f"{self.prefix}-{name}" if name in SamplingBody.model_fields else name
        return FormError(said, self.ids.get(name, own), FIELD_LABELS.get(name, name))


async def get_playground(request: web.Request) -> web.Response:
    """The forms, filled in as the address says."""
    given = {name: request.query[name] for name in SamplingBody.model_fields if name in request.query}
    return _render_playground(
        request, PlaygroundForm({**given, "models": [name for name in request.query.getall("with", []) if name]})
    )


async def post_side_by_side(request: web.Request) -> web.Response:
    """Ask for replies side by side."""
    body = form_to_body(await read_form(request), "prompt")
    if "after" in body:
        body.pop("models")
    try:
        asked = parse_body(PlayBody, body, is_form=True)
        return redirect_to(
            request, _run_path(start_side_by_side(get_services(request), request.app[PLAYGROUND_RUNS], asked))
        )
    except Problem as problem:
        if run := request.app[PLAYGROUND_RUNS].find(body.get("after", "")):
            return _render_run(request, run, PlaygroundForm(body, problem, "more", {"after": ""}))
        return _render_playground(request, PlaygroundForm(body, problem, "one", {"models": "with-1", "after": ""}))


async def post_dialogue_form(request: web.Request) -> web.Response:
    """Ask for a duet."""
    body = form_to_body(await read_form(request), "opening")
    try:
        asked = parse_body(DialogueBody, body, is_form=True)
        return redirect_to(
            request, _run_path(start_dialogue(get_services(request), request.app[PLAYGROUND_RUNS], asked))
        )
    except Problem as problem:
        return _render_playground(request, PlaygroundForm(body, problem, "two", {"models": "first"}))


async def get_run_page(request: web.Request) -> web.Response:
    """A run: what each was shown and has answered."""
    return _render_run(request, require_run(request), PlaygroundForm())


async def get_reply_part(request: web.Request) -> web.Response:
    """One reply of a run's page, which the script fetches when it is complete."""
    run = require_run(request)
    try:
        line = run.lines[int(request.match_info["line"])]
    except (ValueError, IndexError):
        raise Problem("not-found", "There is no such line.", f"There are {len(run.lines)}, from 0 on.") from None
    return render_page(request, "play/line.html", title="", section="play", line=_reply_context(line), run=run)


async def stop_run(request: web.Request) -> web.Response:
    """The Stop button."""
    run = require_run(request)
    run.stop()
    return redirect_to(request, _run_path(run))


def _render_playground(request: web.Request, draft: PlaygroundForm) -> web.Response:
    chosen = draft.body.get("models", [])[:MAX_COLUMNS]
    return render_page(
        request,
        "play/index.html",
        title="Playground",
        section="play",
        chosen=chosen + [""] * (MAX_COLUMNS - len(chosen)),
        runs=request.app[PLAYGROUND_RUNS].latest(),
        turns=draft.body.get("turns", DEFAULT_TURNS),
        **_form_values(get_services(request), draft.body),
        **draft.shown(),
    )


def _render_run(request: web.Request, run: PlaygroundRun, draft: PlaygroundForm) -> web.Response:
    settings = {name: value for name, value in run.settings.items() if name in SamplingBody.model_fields}
    settings["seed"] = run.sampling.seed
    names = ", ".join(speaker.name for speaker in run.speakers)
    return render_page(
        request,
        f"play/{run.kind}.html",
        title=f"{'Duet' if run.kind == 'duet' else 'Side by side'}: {names}",
        section="play",
        run=run,
        lines=[_reply_context(line) for line in run.lines],
        link=permalink(PLAYGROUND_PATH, (speaker.id for speaker in run.speakers), settings),
        **_form_values(get_services(request), draft.body if draft.problem else settings),
        **draft.shown(),
    )


def _run_path(run: PlaygroundRun) -> str:
    return f"{PLAYGROUND_PATH}/runs/{run.id}"


def _form_values(services: Services, given: dict[str, Any]) -> dict[str, Any]:
    usual = services.request_builder.sampling
    given = {name: value for name, value in given.items() if name in SamplingBody.model_fields}
    return {"given": given, "usual": usual, "limits": FORM_LIMITS, "choices": _persona_options(services)}


def _persona_options(services: Services) -> list[PersonaOptions]:
    found: dict[str, list[tuple[str, str]]] = {}
    for one in list_models(services.request_builder):
        if one.persona is None:
            found["No persona"] = [(BASE_MODEL_NAME, "Base model alone")]
            continue
        if one.persona.name not in found:
            live = services.request_builder.speaking(one.persona.id)
            found[one.persona.name] = [(one.persona.id, f"{one.persona.name}, {LIVE_VERSION} ({live or 'base model'})")]
        found[one.persona.name].append((one.id, one.name))
    return [PersonaOptions(label, tuple(options)) for label, options in found.items()]


def _reply_context(line: PlaygroundReply) -> dict[str, Any]:
    """A line for its template: tokens with the level of surprise and with their blanks made visible."""
    told = reply_json(line)
    tokens = [
        {
            "text": show_blanks(token["text"]),
            "probability": token["probability"],
            "level": surprise_level(token["probability"]),
            "others": [(show_blanks(other["text"]), other["probability"]) for other in token["alternatives"]],
        }
        for token in told.get("tokens", [])
    ]
    return {**told, "turns": line.turns, "is_open": line.is_open, "tokens": tokens, "hits": line.lore}


ROUTES: tuple[Route, ...] = (
    ("GET", PLAYGROUND_PATH, get_playground),
    ("POST", PLAYGROUND_PATH, post_side_by_side),
    ("POST", f"{PLAYGROUND_PATH}/duet", post_dialogue_form),
    ("GET", f"{PLAYGROUND_PATH}/runs/{{run_id}}", get_run_page),
    ("GET", f"{PLAYGROUND_PATH}/runs/{{run_id}}/lines/{{line}}", get_reply_part),
    ("POST", f"{PLAYGROUND_PATH}/runs/{{run_id}}/stop", stop_run),
)
