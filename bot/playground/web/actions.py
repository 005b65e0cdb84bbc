"""Starts playground runs from the page's forms."""

import secrets
from dataclasses import replace
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from bot.chat.model_names import ChatModel, UnknownModelError, find_model
from bot.dialogue.dialogue import DEFAULT_TURNS, MAX_TURNS, MIN_TURNS, Dialogue
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.problems import Problem, field_problem
from bot.playground.web.runs import PlaygroundRun, PlaygroundRuns, run_dialogue, run_side_by_side
from bot.services import Services
from bot.setting_values import MAX_NEW_TOKENS_LIMIT
from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.base import FrozenModel
from personas.schemas.chat import SamplingParams, Turn

MAX_COLUMNS = 2
MAX_PROMPT_CHARS = 8000
MAX_SEED = 2**31 - 1
FORM_LIMITS = {
    "prompt": MAX_PROMPT_CHARS, "seed": MAX_SEED,
    "fewest": MIN_TURNS, "most": MAX_TURNS, "turns": DEFAULT_TURNS,
}  # fmt: skip
ModelName = Annotated[
    str,
    Field(min_length=1, max_length=256,
          description="a persona's id, or ID@VERSION, ID@base, dialogue/NAME, ID@dialogue/NAME, base"),
]  # fmt: skip
PromptText = Annotated[
    str,
    Field(min_length=1, max_length=MAX_PROMPT_CHARS, pattern=r"\S",
          description="words, at most 8000 characters"),
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

    def sampling(self, usual: SamplingParams) -> SamplingParams:
        return replace(usual, **{"seed": secrets.randbits(31), **self.settings()})

    def settings(self) -> dict[str, Any]:
        """The given settings by name."""
        return self.model_dump(include=set(SamplingBody.model_fields), exclude_none=True)


class PlayBody(SamplingBody):
    """A prompt to one or two models, which answer it side by side or, as a duet, talk with each other
    after it.

    `after` continues an earlier run with the same speakers; `models` is omitted then.
    """

    models: Annotated[tuple[ModelName, ...], Field(max_length=MAX_COLUMNS)] = ()
    prompt: PromptText
    after: Annotated[str, Field(max_length=64)] | None = None
    duet: bool = False
    turns: Annotated[int, Field(ge=MIN_TURNS, le=MAX_TURNS)] = DEFAULT_TURNS


PLAYGROUND_RUNS = web.AppKey("playground runs", PlaygroundRuns)


def set_up_playground(app: web.Application) -> None:
    """Add the runs to the application, and stop them at its end."""
    runs = app[PLAYGROUND_RUNS] = PlaygroundRuns()

    async def close(_: web.Application) -> None:
        await runs.close()

    app.on_shutdown.append(close)


def start_run(request: web.Request, body: PlayBody) -> PlaygroundRun:
    """Have one or two models answer a prompt, continue a run, or talk with each other. Raises
    `Problem`.
    """
    services = get_services(request)
    runs = request.app[PLAYGROUND_RUNS]
    sampling = _sampling(services, body)
    if body.duet:
        return _start_duet(services, runs, body, sampling)
    prompt = Turn(EXAMPLE_USER, body.prompt)
    talks: list[tuple[Turn, ...]]
    if body.after is None:
        speakers = _find_models(services, body.models)
        talks = [(prompt,)] * len(body.models)
    else:
        lines = _require_ended(runs.get(body.after)).lines
        speakers = tuple(line.speaker for line in lines)
        talks = [(*line.talk(), prompt) for line in lines]
    run = PlaygroundRun(
        "together", speakers, prompt=body.prompt, sampling=sampling, settings=body.settings()
    )
    return runs.start(run, run_side_by_side(services, run, talks))


def _start_duet(
    services: Services, runs: PlaygroundRuns, body: PlayBody, sampling: SamplingParams
) -> PlaygroundRun:
    speakers = _find_models(services, body.models)
    names = [speaker.speaker_name for speaker in speakers if speaker.speaker_name]
    if len(names) < 2:
        raise field_problem(
            "models",
            "A talk with each other needs two personas; the base model alone cannot take part.",
            "Choose two.",
        )
    if services.safety.finds(body.prompt):
        raise field_problem(
            "prompt",
            "The opening speaks of self-harm, which personas do not talk about.",
            "Begin with another one; docs/safety.md says how such messages are answered.",
        )
    dialogue = Dialogue((names[0], names[1]), Turn(EXAMPLE_USER, body.prompt), body.turns)
    run = PlaygroundRun(
        "duet",
        speakers,
        prompt=body.prompt,
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
        raise field_problem(
            "max_new_tokens",
            f"A reply here has at most {most} tokens, half of the engine's context.",
            "Ask for fewer.",
        )
    return sampling


def _find_models(services: Services, names: tuple[str, ...]) -> tuple[ChatModel, ...]:
    if not names:
        raise field_problem(
            "models",
            "No model was chosen.",
            "Choose at least one persona.",
        )
    models = []
    try:
        for name in names:
            models.append(find_model(services.personas, services.served_versions, name))
    except UnknownModelError as error:
        raise field_problem("models", error.message, error.advice) from None
    return tuple(models)


def _require_ended(run: PlaygroundRun) -> PlaygroundRun:
    if run.kind != "together":
        raise field_problem(
            "after",
            f"The run {run.id} is a duet.",
            "Only side-by-side runs can be continued.",
        )
    if not run.ended:
        raise Problem(
            "conflict",
            "The replies are still being written.",
            "Stop them, or wait.",
        )
    return run


def require_run(request: web.Request) -> PlaygroundRun:
    get_services(request)
    return request.app[PLAYGROUND_RUNS].get(request.match_info["run_id"])
