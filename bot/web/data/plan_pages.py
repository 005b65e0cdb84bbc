"""The plan before a start: what a run would learn from and take, and Start, which queues it as REST does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from bot.house import House
from bot.preview import Plan
from bot.served import notes_on
from bot.web.bodies import json_object, parsed
from bot.web.charts import bars
from bot.web.data.forms import fields_of
from bot.web.data.plan_form import FIELDS, body_of, command_of, curl_of
from bot.web.data.plans import KeptPlan
from bot.web.data.sets import sets_of
from bot.web.data.sources import sources_of
from bot.web.data.state import state_of
from bot.web.finetune import CHECKS, queue_training
from bot.web.frame import HOME, back_to, faults_in, page
from bot.web.here import Route, house_of
from bot.web.openapi import Body, described
from bot.web.preflight import free_bytes, own_plan, request_of, require_found
from bot.web.problems import Problem
from bot.web.words import in_terminal, without_places
from personas.contracts import TrainingRequest
from personas.errors import UnderstudyError
from personas.for_everybody import OPERATOR

DATA = f"{HOME}/data"
TASKS = (("persona", "A persona's voice"), ("dialogue", "Dialogue in general"), ("preference", "A persona, by votes"))


async def plan_form(request: web.Request) -> web.Response:
    """The form; the query fills it, and where that is empty the first persona stands in it."""
    given = {name: request.query.get(name, "") for name in FIELDS}
    return await _form(request, given if any(given.values()) else _first_given(request))


def _first_given(request: web.Request) -> dict[str, str]:
    return {"persona": next(iter(house_of(request).conversations.personas.of(OPERATOR)), "")}


async def plan_run(request: web.Request) -> web.Response:
    """Plan the run of the form, and show the plan at its own address; with `start`, queue the run."""
    house, (given, _) = house_of(request), await fields_of(request)
    forgettings = house.store.forgettings.count()
    try:
        body = body_of(given)
        if given.get("start"):
            job, _ = await queue_training(request, body)
            return back_to(request, f"{HOME}/training/{job.job_id}", f"{job.name} is queued.")
        wanted, plan = await planned(request, body)
    except UnderstudyError as error:
        return await _form(request, given, problem=_as_problem(error, house))
    id = state_of(request).plans.keep(KeptPlan(given, body, wanted, plan, forgettings))
    return back_to(request, f"{DATA}/plans/{id}")


async def plan_page(request: web.Request) -> web.Response:
    """A plan that was made before, below the form as it was then."""
    forgettings = house_of(request).store.forgettings.count()
    try:
        kept = state_of(request).plans.get(request.match_info["id"], forgettings)
    except Problem as gone:
        return await _form(request, _first_given(request), problem=gone)
    return await _form(request, kept.given, kept)


async def planned(request: web.Request, body: dict[str, Any]) -> tuple[TrainingRequest, Plan]:
    """The request of a body, and what its run would do, whatever is in the queue. Raises `UnderstudyError`s."""
    house = house_of(request)
    parsed(TrainingRequest, {"base_model": house.base_model, **body})
    wanted = request_of(body, house)
    async with request.app[CHECKS]:
        await require_found(house, body)
        return wanted, await house.queue.plan(wanted)


def _as_problem(error: UnderstudyError, house: House) -> Problem:
    if isinstance(error, Problem):
        return error
    return Problem("cannot-train", without_places(error.message, house.home), without_places(error.advice, house.home))


async def _form(
    request: web.Request,
    given: Mapping[str, str],
    kept: KeptPlan | None = None,
    problem: Problem | None = None,
) -> web.Response:
    house = house_of(request)
    sources = [one for one in await asyncio.to_thread(sources_of, house) if not one.refused and not one.is_set]
    sets, _ = await asyncio.to_thread(sets_of, house)
    told = await asyncio.to_thread(_told, request, kept, house) if kept else None
    errors = {one["field"].partition(".")[0]: one["detail"] for one in problem.errors} if problem else {}
    return page(
        request,
        "data/plan.html",
        title="Plan a training",
        section="data",
        status=problem.status if problem else 200,
        faults=faults_in(problem, {"dataset_path": "dataset", "hyperparameters": "settings"}),
        given={name: given.get(name, "") for name in FIELDS} | {"recipe": given.get("recipe") or "demo-cpu"},
        tasks=TASKS,
        personas=list(house.conversations.personas.of(0).values()),
        recipes=house.catalogue.recipes(),
        sources=sources,
        sets=[(next(iter(one.asked_by.values())), one) for one in sets],
        adapters=house.catalogue.dialogue_adapters(),
        dialogues=house.catalogue.dialogues(),
        served=house.base_model,
        problem=problem,
        wrong=errors,
        found=told,
        conflict=house.queue.conflict(kept.wanted) if kept else None,
    )


def _told(request: web.Request, kept: KeptPlan, house: House) -> dict[str, Any]:
    """What the page says of a plan."""
    plan, wanted = kept.plan, kept.wanted
    own, free = own_plan(plan, wanted.recipe), free_bytes()
    return {
        "plan": plan,
        "made_at": kept.made_at,
        "own": own,
        "others": [one for one in plan.recipes if one.recipe != wanted.recipe],
        "free": free,
        "fits": own.memory_bytes <= free,
        "lighter": [way for way in plan.lighter if way.memory_bytes <= free],
        "notes": [without_places(note, house.home) for note in notes_on(wanted, house.base_model)],
        "lengths": bars("Tokens per sample, prompt and reply", plan.tokens_per_sample.rows, "samples"),
        "composition": bars("Samples by source", [(name, float(n)) for name, n in plan.sources.items()], "samples"),
        "command": in_terminal(command_of(wanted), house.home),
        "curl": curl_of(kept.body, f"http://{request.host}"),
    }


@described(
    "What a training would do",
    {
        200: "Samples, tokens, what is dropped and why, steps, time and memory by recipe; nothing is queued. "
        "`conflict` says what a start would have to wait for.",
        422: "The trainer's words why it could not be run.",
    },
    tag="training",
    body=Body(TrainingRequest, example={"job_name": "oda-1", "persona": "oda"}),
)
async def plan_training(request: web.Request) -> web.Response:
    """The trainer reads the material, which takes seconds, and longer for much of it."""
    wanted, plan = await planned(request, await json_object(request))
    conflict = house_of(request).queue.conflict(wanted)
    more = {"free_bytes": free_bytes(), "conflict": str(conflict) if conflict else None}
    return web.json_response({**plan.model_dump(mode="json"), **more})


ROUTES: tuple[Route, ...] = (
    ("GET", f"{DATA}/plan", plan_form),
    ("POST", f"{DATA}/plan", plan_run),
    ("GET", f"{DATA}/plans/{{id}}", plan_page),
    ("POST", "/finetune/plan", plan_training),
)
