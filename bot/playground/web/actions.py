"""Starts playground runs from the page's forms."""

import secrets
from dataclasses import replace
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from bot.chat.model_names import ChatModel, UnknownModelError, find_model
from bot.dialogue.dialogue import DEFAULT_TURNS, MAX_TURNS, MIN_TURNS, Dialogue
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.problems import Problem, field_error
from bot.playground.web.runs import PlaygroundRun, PlaygroundRuns, run_dialogue, run_side_by_side
from bot.services import Services
from bot.setting_values import MAX_NEW_TOKENS_LIMIT
from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.base import FrozenModel
from personas.schemas.chat import SamplingParams, Turn

MAX_COLUMNS = 4
MAX_ALTERNATIVES = 10
MAX_PROMPT_CHARS = 8000
MAX_SEED = 2**31 - 1
FORM_LIMITS = {
    "alternatives": MAX_ALTERNATIVES, "prompt": MAX_PROMPT_CHARS, "seed": MAX_SEED,
    "fewest": MIN_TURNS, "most": MAX_TURNS,
}  # fmt: skip
ModelName = Annotated[
    str,
    Field(min_length=1, max_length=256,
          description="a persona's id, or ID@VERSION, ID@base, dialogue/NAME, ID@dialogue/NAME, base"),
]  # fmt: skip
PromptText = Annotated[
    str,
    Field(min_length=1, max_length=MAX_PROMPT_CHARS, pattern=r"\S",
          description=gettext_noop("words, at most 8000 characters")),
]  # fmt: skip


class SamplingBody(FrozenModel):
    """Sampling settings. Defaults are those of the bot's replies to members; a missing seed is
    drawn.
    """

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=10_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS_LIMIT)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    alternatives: Annotated[
        int, Field(ge=0, le=MAX_ALTERNATIVES, description="tokens told at each place")
    ] = 0

    def sampling(self, usual: SamplingParams) -> SamplingParams:
        given = {name: value for name, value in self.settings().items() if name != "alternatives"}
        return replace(
            usual, **{"seed": secrets.randbits(31), **given}, alternatives=self.alternatives or None
        )

    def settings(self) -> dict[str, Any]:
        """The given settings by name."""
        known = self.model_dump(include=set(SamplingBody.model_fields), exclude_none=True)
        return {name: value for name, value in known.items() if name != "alternatives" or value}


class PlayBody(SamplingBody):
    """Several answer one prompt, side by side.

    `after` continues an earlier run with the same speakers; `models` is omitted then.
    """

    models: Annotated[tuple[ModelName, ...], Field(max_length=MAX_COLUMNS)] = ()
    prompt: PromptText
    after: Annotated[str, Field(max_length=64)] | None = None


class DialogueBody(SamplingBody):
    """A dialogue of two after an opening message to both."""

    models: Annotated[tuple[ModelName, ...], Field(min_length=2, max_length=2)]
    opening: PromptText
    turns: Annotated[int, Field(ge=MIN_TURNS, le=MAX_TURNS)] = DEFAULT_TURNS


PLAYGROUND_RUNS = web.AppKey("playground runs", PlaygroundRuns)


def set_up_playground(app: web.Application) -> None:
    """Add the runs to the application, and stop them at its end."""
    runs = app[PLAYGROUND_RUNS] = PlaygroundRuns()

    async def close(_: web.Application) -> None:
        await runs.close()

    app.on_shutdown.append(close)


def start_side_by_side(request: web.Request, body: PlayBody) -> PlaygroundRun:
    """Have several models answer a prompt or continue a run. Raises `Problem`."""
    services = get_services(request)
    runs = request.app[PLAYGROUND_RUNS]
    prompt = Turn(EXAMPLE_USER, body.prompt)
    talks: list[tuple[Turn, ...]]
    if body.after is None:
        speakers = _find_models(services, body.models)
        talks = [(prompt,)] * len(body.models)
    elif body.models:
        raise _field_problem(
            "models",
            gettext_lazy("A conversation keeps its speakers."),
            gettext_lazy("Leave models out, or after."),
        )
    else:
        lines = _require_ended(runs.get(body.after)).lines
        speakers = tuple(line.speaker for line in lines)
        talks = [(*line.talk(), prompt) for line in lines]
    sampling = _sampling(services, body)
    run = PlaygroundRun(
        "together", speakers, prompt=body.prompt, sampling=sampling, settings=body.settings()
    )
    return runs.start(run, run_side_by_side(services, run, talks))


def start_dialogue(request: web.Request, body: DialogueBody) -> PlaygroundRun:
    """Have two personas or dialogue adapters talk with each other. Raises `Problem`."""
    services = get_services(request)
    runs = request.app[PLAYGROUND_RUNS]
    first, second = speakers = _find_models(services, body.models)
    if not (first.speaker_name and second.speaker_name):
        raise _field_problem(
            "models",
            gettext_lazy("The base model alone cannot take part in a dialogue."),
            gettext_lazy("Name two personas."),
        )
    if services.safety.finds(body.opening):
        raise _field_problem(
            "opening",
            gettext_lazy("The opening speaks of self-harm, which personas do not talk about."),
            gettext_lazy(
                "Begin with another one; docs/safety.md says how such messages are answered."
            ),
        )
    dialogue = Dialogue(
        (first.speaker_name, second.speaker_name), Turn(EXAMPLE_USER, body.opening), body.turns
    )
    sampling = _sampling(services, body)
    run = PlaygroundRun(
        "duet",
        speakers,
        prompt=body.opening,
        sampling=sampling,
        settings=body.settings() | {"turns": body.turns},
    )
    return runs.start(run, run_dialogue(services, run, dialogue))


def most_new_tokens(services: Services) -> int:
    """Return the tokens of the longest reply: half of the engine's context."""
    return min(MAX_NEW_TOKENS_LIMIT, services.engine.context_tokens // 2)


def _sampling(services: Services, body: SamplingBody) -> SamplingParams:
    sampling = body.sampling(services.request_builder.sampling)
    most = most_new_tokens(services)
    if body.max_new_tokens and body.max_new_tokens > most:
        raise _field_problem(
            "max_new_tokens",
            gettext_lazy(
                "A reply here has at most {most} tokens, half of the engine's context.", most=most
            ),
            gettext_lazy("Ask for fewer."),
        )
    return sampling


def _find_models(services: Services, names: tuple[str, ...]) -> tuple[ChatModel, ...]:
    if not names:
        raise _field_problem(
            "models",
            gettext_lazy("No model was chosen."),
            gettext_lazy("Choose at least one persona."),
        )
    models = []
    try:
        for name in names:
            models.append(find_model(services.personas, services.served_versions, name))
    except UnknownModelError as error:
        raise _field_problem("models", error.message, error.advice) from None
    return tuple(models)


def _require_ended(run: PlaygroundRun) -> PlaygroundRun:
    if run.kind != "together":
        raise _field_problem(
            "after",
            gettext_lazy("The run {run} is a duet.", run=run.id),
            gettext_lazy("Only side-by-side runs can be continued."),
        )
    if not run.ended:
        raise Problem(
            "conflict",
            gettext_lazy("The replies are still being written."),
            gettext_lazy("Stop them, or wait."),
        )
    return run


def _field_problem(field: str, detail: str, advice: str) -> Problem:
    return Problem(
        "invalid-request", detail, advice, errors=[field_error(field, join_texts(detail, advice))]
    )


def require_run(request: web.Request) -> PlaygroundRun:
    get_services(request)
    return request.app[PLAYGROUND_RUNS].get(request.match_info["run_id"])
