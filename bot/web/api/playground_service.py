"""Starts playground runs from API bodies and dashboard forms."""

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
from bot.web.api.playground_runs import PlaygroundRun, PlaygroundRuns, run_dialogue, run_side_by_side
from bot.web.app_context import get_services
from bot.web.problems import Problem
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
    """Sampling settings. Defaults are those of the bot's replies to members; a missing seed is drawn."""

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
        """The given settings by name."""
        known = self.model_dump(include=set(SamplingBody.model_fields), exclude_none=True)
        return {name: value for name, value in known.items() if name != "alternatives" or value}


class PlayBody(SamplingBody):
    """The body of `POST /play/runs`: several answer one prompt, side by side.

    `after` continues an earlier run with the same speakers; `models` is omitted then.
    """

    models: Annotated[tuple[ModelName, ...], Field(max_length=MAX_COLUMNS)] = ()
    prompt: PromptText
    after: Annotated[str, Field(max_length=64)] | None = None


class DialogueBody(SamplingBody):
    """The body of `POST /play/duets`: a dialogue of two after an opening message to both."""

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


def require_run(request: web.Request) -> PlaygroundRun:
    """The run that the address names. Raises `Problem`."""
    get_services(request)
    return request.app[PLAYGROUND_RUNS].get(request.match_info["run_id"])
