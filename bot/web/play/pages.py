"""`/dashboard/play`: the playground. Forms do everything; a script shows the replies while they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from bot.duet import FEWEST, MOST, USUAL
from bot.house import House
from bot.speakers import NOW, speakers
from bot.store import BASE
from bot.web.bodies import form_of, parsed
from bot.web.frame import Fault, back_to, page
from bot.web.here import Route, house_of
from bot.web.play.asked import (
    LARGEST_SEED,
    LONGEST_PROMPT,
    MOST_ALTERNATIVES,
    MOST_COLUMNS,
    MOST_NEW_TOKENS,
    DuetBody,
    How,
    PlayBody,
    form_body,
    permalink,
)
from bot.web.play.begin import RUNS, begin_duet, begin_together
from bot.web.play.rest import run_here
from bot.web.play.runs import Line, Run
from bot.web.play.shapes import level, line_json, visible
from bot.web.problems import Problem

HOME = "/dashboard/play"
LIMITS = {
    "columns": MOST_COLUMNS, "alternatives": MOST_ALTERNATIVES, "max_new_tokens": MOST_NEW_TOKENS,
    "prompt": LONGEST_PROMPT, "seed": LARGEST_SEED, "fewest": FEWEST, "most": MOST,
}  # fmt: skip
LABELS = {
    "models": "Who answers", "prompt": "What you say", "opening": "What is said to both", "turns": "Turns",
    "temperature": "Temperature", "top_p": "Top-p", "top_k": "Top-k", "min_p": "Min-p", "seed": "Seed",
    "max_new_tokens": "Most new tokens", "alternatives": "Likely tokens shown",
}  # fmt: skip


@dataclass(frozen=True)
class Choices:
    """A persona and what of it can be chosen: names to ask by, and what they are called."""

    label: str
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Draft:
    """What stands in a form when it is shown, and the problem for which it comes again. `ids` are those of the fields
    that have others than their names; `prefix` begins those of the settings.
    """

    body: dict[str, Any] = field(default_factory=dict)
    problem: Problem | None = None
    prefix: str = ""
    ids: dict[str, str] = field(default_factory=dict)

    def faults(self) -> list[Fault]:
        """What is wrong, each with its field."""
        if self.problem is None or not self.problem.errors:
            return [Fault(str(self.problem))] if self.problem else []
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

    def _fault(self, name: str, told: dict[str, str]) -> Fault:
        said = f"must be {told['allowed']}" if "allowed" in told else told["detail"]
        own = f"{self.prefix}-{name}" if name in How.model_fields else name
        return Fault(said, self.ids.get(name, own), LABELS.get(name, name))


async def playground(request: web.Request) -> web.Response:
    """The forms, filled in as the address says."""
    given = {name: request.query[name] for name in How.model_fields if name in request.query}
    return _playground(request, Draft({**given, "models": [name for name in request.query.getall("with", []) if name]}))


async def play(request: web.Request) -> web.Response:
    """Ask for replies side by side."""
    body = form_body(await form_of(request), "prompt")
    if "after" in body:
        body.pop("models")
    try:
        asked = parsed(PlayBody, body, is_form=True)
        return back_to(request, _path(begin_together(house_of(request), request.app[RUNS], asked)))
    except Problem as problem:
        if run := request.app[RUNS].find(body.get("after", "")):
            return _run_page(request, run, Draft(body, problem, "more", {"after": ""}))
        return _playground(request, Draft(body, problem, "one", {"models": "with-1", "after": ""}))


async def duet(request: web.Request) -> web.Response:
    """Ask for a duet."""
    body = form_body(await form_of(request), "opening")
    try:
        asked = parsed(DuetBody, body, is_form=True)
        return back_to(request, _path(begin_duet(house_of(request), request.app[RUNS], asked)))
    except Problem as problem:
        return _playground(request, Draft(body, problem, "two", {"models": "first"}))


async def run_page(request: web.Request) -> web.Response:
    """A run: what each was shown and has answered."""
    return _run_page(request, run_here(request), Draft())


async def line_part(request: web.Request) -> web.Response:
    """One reply as it stands in the page of its run: the script fetches it when it is complete."""
    run = run_here(request)
    try:
        line = run.lines[int(request.match_info["line"])]
    except (ValueError, IndexError):
        raise Problem("not-found", "There is no such line.", f"There are {len(run.lines)}, from 0 on.") from None
    return page(request, "play/line.html", title="", section="play", line=_shown(line), run=run)


async def stop(request: web.Request) -> web.Response:
    """The Stop button."""
    run = run_here(request)
    run.stop()
    return back_to(request, _path(run))


def _playground(request: web.Request, draft: Draft) -> web.Response:
    chosen = draft.body.get("models", [])[:MOST_COLUMNS]
    return page(
        request,
        "play/index.html",
        title="Playground",
        section="play",
        chosen=chosen + [""] * (MOST_COLUMNS - len(chosen)),
        runs=request.app[RUNS].latest(),
        turns=draft.body.get("turns", USUAL),
        **_form(house_of(request), draft.body),
        **draft.shown(),
    )


def _run_page(request: web.Request, run: Run, draft: Draft) -> web.Response:
    settings = {name: value for name, value in run.settings.items() if name in How.model_fields}
    settings["seed"] = run.sampling.seed
    names = ", ".join(speaker.name for speaker in run.speakers)
    return page(
        request,
        f"play/{run.kind}.html",
        title=f"{'Duet' if run.kind == 'duet' else 'Side by side'}: {names}",
        section="play",
        run=run,
        lines=[_shown(line) for line in run.lines],
        link=permalink(HOME, (speaker.id for speaker in run.speakers), settings),
        **_form(house_of(request), draft.body if draft.problem else settings),
        **draft.shown(),
    )


def _path(run: Run) -> str:
    return f"{HOME}/runs/{run.id}"


def _form(house: House, given: dict[str, Any]) -> dict[str, Any]:
    usual = house.conversations.sampling
    given = {name: value for name, value in given.items() if name in How.model_fields}
    return {"given": given, "usual": usual, "limits": LIMITS, "choices": _choices(house)}


def _choices(house: House) -> list[Choices]:
    found: dict[str, list[tuple[str, str]]] = {}
    for one in speakers(house):
        if one.persona is None:
            found["No persona"] = [(BASE, "Base model alone")]
            continue
        if one.persona.name not in found:
            live = house.conversations.speaking(one.persona.id)
            found[one.persona.name] = [(one.persona.id, f"{one.persona.name}, {NOW} ({live or 'base model'})")]
        found[one.persona.name].append((one.id, one.name))
    return [Choices(label, tuple(options)) for label, options in found.items()]


def _shown(line: Line) -> dict[str, Any]:
    """A line for its template: tokens with the level of surprise and with their blanks made visible."""
    told = line_json(line)
    tokens = [
        {
            "text": visible(token["text"]),
            "probability": token["probability"],
            "level": level(token["probability"]),
            "others": [(visible(other["text"]), other["probability"]) for other in token["alternatives"]],
        }
        for token in told.get("tokens", [])
    ]
    return {**told, "turns": line.turns, "is_open": line.is_open, "tokens": tokens, "hits": line.lore}


ROUTES: tuple[Route, ...] = (
    ("GET", HOME, playground),
    ("POST", HOME, play),
    ("POST", f"{HOME}/duet", duet),
    ("GET", f"{HOME}/runs/{{run_id}}", run_page),
    ("GET", f"{HOME}/runs/{{run_id}}/lines/{{line}}", line_part),
    ("POST", f"{HOME}/runs/{{run_id}}/stop", stop),
)
