"""Checks whether a training request can run on this machine, and proposes the nearest one that can."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import psutil
from pydantic import ValidationError

from bot.errors import redact_paths
from bot.personas.base_model_compat import is_same_model
from bot.services import Services
from bot.training.dataset_catalog import require_copyable, resolve_dataset_path
from bot.training.training_plan import RecipeEstimate, TrainingPlan
from bot.web.problems import Problem
from personas.errors import BaseModelError, TrainingError, UnderstudyError
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.models.base_model import locate
from personas.schemas.training import TrainingRequest

MEMORY_FIELDS = ("per_device_train_batch_size", "gradient_accumulation_steps", "max_length", "lora_r", "target_modules")
"""What decides how much memory a run takes: left to the recipe where another recipe is proposed."""

RequestJson = dict[str, Any]


def build_training_request(body: RequestJson, services: Services) -> TrainingRequest:
    """A body as a request; without a base model it means the one that is served. Raises `ValidationError`."""
    return TrainingRequest.model_validate({"base_model": services.base_model, **body})


async def require_startable(services: Services, body: RequestJson, guild_id: int = OPERATOR_GUILD_ID) -> None:
    """Raise `Problem` when the request names what is not here, may not be used, or is in the way of another job.

    `guild_id` is the server that it is queued for.
    """
    await require_available(services, body, guild_id)
    services.queue.check(build_training_request(body, services), guild_id)


async def require_available(services: Services, body: RequestJson, guild_id: int = OPERATOR_GUILD_ID) -> None:
    """Raise `Problem` when the request names what is not on this machine, with what could be run instead."""
    wrong = await asyncio.to_thread(_find_unavailable, services, build_training_request(body, services))
    if not wrong:
        return
    proposal = await _propose_available(services, body, wrong, guild_id)
    raise Problem(
        "cannot-train",
        " ".join(redact_paths(error.message, services.home) for error in wrong.values()),
        "`errors` says what each field needs" + ("; `would_work` is a body that runs here." if proposal else "."),
        errors=[
            {"field": field, "pointer": f"#/{field}", "detail": redact_paths(str(error), services.home)}
            for field, error in wrong.items()
        ],
        more={"would_work": proposal} if proposal else None,
    )


async def require_memory(services: Services, body: RequestJson, guild_id: int = OPERATOR_GUILD_ID) -> TrainingPlan:
    """Ask the trainer what the run would do. Raises `Problem` where its memory is not there, with what would fit."""
    request = build_training_request(body, services)
    plan = await services.queue.plan(request, guild_id)
    free, needed = available_memory_bytes(), requested_recipe_plan(plan, request.recipe).memory_bytes
    if needed <= free:
        return plan
    proposal = next(_fitting_alternatives(body, plan, free), None)
    if proposal is None and request.base_model != services.base_model:
        served = {field: value for field, value in body.items() if field != "base_model"}
        proposal = await _propose_fitting(services, served, guild_id)
    raise Problem(
        "no-memory",
        f"The training needs about {needed / 2**30:.1f} GiB of memory; {free / 2**30:.1f} GiB are free.",
        "`would_work` is a body that fits." if proposal else "Close other programs, or name a smaller base model.",
        more={"needed_bytes": needed, "free_bytes": free, **({"would_work": proposal} if proposal else {})},
    )


def available_memory_bytes() -> int:
    """Memory that a run would find: what is free now, and what the trainer that is at work gives back when it ends."""
    free = int(psutil.virtual_memory().available)
    for child in psutil.Process().children(recursive=True):
        try:
            free += child.memory_info().rss
        except psutil.Error:  # it has ended meanwhile
            continue
    return free


def requested_recipe_plan(plan: TrainingPlan, recipe: str) -> RecipeEstimate:
    """What the run that was asked for would take. Raises `TrainingError` when the trainer does not say so."""
    for found in plan.recipes:
        if found.recipe == recipe:
            return found
    raise TrainingError(f"The trainer's plan says nothing of {recipe}.", "Its version is not the bot's.")


# ------------------------------------------------------------------------------------------------ what is not here


def _find_unavailable(services: Services, request: TrainingRequest) -> dict[str, UnderstudyError]:
    wrong: dict[str, UnderstudyError] = {}
    if not is_same_model(request.base_model, services.base_model) and (error := _base_model_error(request.base_model)):
        wrong["base_model"] = error
    if request.dataset_path:
        try:
            require_copyable(resolve_dataset_path(services.home, request.dataset_path).path, services.home)
        except UnderstudyError as error:
            wrong["dataset_path"] = error
    if request.persona:
        try:
            services.catalogue.card(request.persona)
        except UnderstudyError as error:
            wrong["persona"] = error
    known = services.catalogue.recipes()
    if request.recipe not in known:
        wrong["recipe"] = UnderstudyError(f"There is no recipe {request.recipe!r}.", f"Known: {', '.join(known)}.")
    return wrong


def _base_model_error(name: str) -> UnderstudyError | None:
    try:
        locate(name, fetch=False)
    except BaseModelError as error:
        return error
    except (OSError, RuntimeError, ValueError):  # no name that a folder could have
        return BaseModelError(f"The base model {name!r} is not on this machine.", "Name `embedded` or a model folder.")
    return None


async def _propose_available(
    services: Services, body: RequestJson, wrong: Mapping[str, object], guild_id: int
) -> RequestJson | None:
    """The nearest body that runs here, with nothing of what is wrong; None where there is none."""
    others = _alternatives(services, body, wrong)
    named = next((other for other in others if _is_acceptable(services, other, guild_id)), None)
    return await _propose_fitting(services, named, guild_id) if named else None


def _alternatives(services: Services, body: RequestJson, wrong: Mapping[str, object]) -> Iterator[RequestJson]:
    """Bodies without the wrong fields; a dialogue job then takes a data set of the catalogue."""
    rest = {field: value for field, value in body.items() if field not in wrong}
    yield rest
    if "dataset_path" in wrong:
        for dataset in services.catalogue.datasets():
            yield {**rest, "dataset": dataset}


def _is_acceptable(services: Services, body: RequestJson, guild_id: int) -> bool:
    try:
        services.queue.check(build_training_request(body, services), guild_id)
    except (UnderstudyError, ValidationError):
        return False
    return True


# ------------------------------------------------------------------------------------------------ what would fit


async def _propose_fitting(services: Services, body: RequestJson, guild_id: int) -> RequestJson | None:
    """The body, or the nearest to it, whose run fits into memory; None where there is none."""
    request = build_training_request(body, services)
    try:
        plan = await services.queue.plan(request, guild_id)
    except UnderstudyError:
        return None
    free = available_memory_bytes()
    fits = requested_recipe_plan(plan, request.recipe).memory_bytes <= free
    return body if fits else next(_fitting_alternatives(body, plan, free), None)


def _fitting_alternatives(body: RequestJson, plan: TrainingPlan, free: int) -> Iterator[RequestJson]:
    """Bodies whose run would fit, from the one that changes least."""
    asked = body.get("hyperparameters", {})
    for way in plan.lighter:
        if way.memory_bytes <= free:
            yield {**body, "hyperparameters": {**asked, **way.set}}
    others = {field: value for field, value in asked.items() if field not in MEMORY_FIELDS}
    for found in sorted(plan.recipes, key=lambda found: found.memory_bytes, reverse=True):
        if found.memory_bytes <= free:
            yield {**body, "recipe": found.recipe, "hyperparameters": others}
