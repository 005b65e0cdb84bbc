"""From what was asked to a run: for the page's forms and for REST alike."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from bot.duet import Duet
from bot.house import House
from bot.speakers import NoSuchSpeakerError, Speaker, speaker_named
from bot.web.play.asked import DuetBody, How, PlayBody
from bot.web.play.runs import Run, Runs, answer_together, talk_together
from bot.web.problems import Problem
from personas.contracts import Turn
from personas.prompt import EXAMPLE_USER

RUNS = web.AppKey("playground runs", Runs)


def keep_runs(app: web.Application) -> None:
    """Have the application keep runs, and stop them at its end."""
    runs = app[RUNS] = Runs()

    async def close(_: web.Application) -> None:
        await runs.close()

    app.on_shutdown.append(close)


def begin_together(house: House, runs: Runs, asked: PlayBody) -> Run:
    """Have several answer a prompt, or the next one of a talk. Raises `Problem`."""
    prompt = Turn(EXAMPLE_USER, asked.prompt)
    talks: list[tuple[Turn, ...]]
    if asked.after is None:
        who, talks = _speakers(house, asked.models), [(prompt,)] * len(asked.models)
    elif asked.models:
        raise _wrong("models", "A talk goes on with the speakers it had.", "Leave models out, or after.")
    else:
        lines = _ended(runs.get(asked.after)).lines
        who, talks = tuple(line.speaker for line in lines), [(*line.talk(), prompt) for line in lines]
    run = _run(house, "together", who, asked.prompt, asked)
    return runs.start(run, answer_together(house, run, talks))


def begin_duet(house: House, runs: Runs, asked: DuetBody) -> Run:
    """Have two talk with each other. Raises `Problem`."""
    one, other = who = _speakers(house, asked.models)
    if one.persona is None or other.persona is None:
        raise _wrong("models", "The base model alone has no part to play.", "Name two personas.")
    names = one.persona.name, other.persona.name
    run = _run(house, "duet", who, asked.opening, asked)
    run.settings["turns"] = asked.turns
    return runs.start(run, talk_together(house, run, Duet(names, Turn(EXAMPLE_USER, asked.opening), asked.turns)))


def _run(house: House, kind: Any, who: tuple[Speaker, ...], prompt: str, how: How) -> Run:
    return Run(kind, who, prompt, how.sampling(house.conversations.sampling), how.settings())


def _speakers(house: House, names: tuple[str, ...]) -> tuple[Speaker, ...]:
    if not names:
        raise _wrong("models", "Nobody is asked.", "Choose at least one persona.")
    try:
        return tuple(speaker_named(house, name) for name in names)
    except NoSuchSpeakerError as error:
        raise _wrong("models", error.message, error.advice) from None


def _ended(run: Run) -> Run:
    if run.kind != "together":
        raise _wrong("after", f"The run {run.id} is a duet.", "Only replies side by side go on.")
    if not run.ended:
        raise Problem("conflict", "The replies are still being written.", "Stop them, or wait.")
    return run


def _wrong(field: str, detail: str, advice: str) -> Problem:
    errors = [{"field": field, "pointer": f"#/{field}", "detail": f"{detail} {advice}"}]
    return Problem("invalid-request", detail, advice, errors=errors)
