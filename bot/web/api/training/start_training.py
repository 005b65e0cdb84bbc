"""`POST /finetune/start-training` and `POST /finetune/plan`: checks, plans and queues a training."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Any

from aiohttp import web

from bot.personas.base_model_compat import compatibility_notes
from bot.services import Services
from bot.store import TrainingJob
from bot.training.training_plan import TrainingPlan
from bot.web.api.openapi import ApiModel, BodySpec, ResponseSpec, describe_operation
from bot.web.api.training.job_routes import JobResponse, job_path
from bot.web.api.training.training_checks import (
    available_memory_bytes,
    build_training_request,
    requested_recipe_plan,
    require_available,
    require_memory,
    require_startable,
)
from bot.web.app_context import Route, get_services
from bot.web.idempotency import idempotency_key
from bot.web.problems import Problem
from bot.web.request_body import parse_body, read_json_object
from personas.errors import RequestError
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.schemas.training import TrainingRequest

log = logging.getLogger(__name__)
MAX_WAITING_CHECKS = 8
NO_CHANNEL_ID = NO_USER_ID = 0


class PlanSummary(ApiModel):
    """The expected size, duration and memory of a run."""

    samples: dict[str, int]
    tokens: int
    rows: int
    rows_used: int
    dropped: dict[str, int]
    steps: int
    seconds: float
    memory_bytes: int
    basis: str
    warnings: list[str]


class AcceptedJob(JobResponse):
    """A queued job; `plan` is absent where the same Idempotency-Key queued it before."""

    plan: PlanSummary | None = None


class PlanningLock:
    """One check at a time: each is a process that reads all of the material."""

    def __init__(self) -> None:
        self._one = asyncio.Semaphore()
        self._waiting = 0

    async def __aenter__(self) -> None:
        if self._waiting >= MAX_WAITING_CHECKS:
            raise Problem("busy", "Other requests are being checked.", "Try again.", headers={"Retry-After": "10"})
        self._waiting += 1
        try:
            await self._one.acquire()
        except BaseException:
            self._waiting -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        self._waiting -= 1
        self._one.release()


PLANNING_LOCK = web.AppKey("checks", PlanningLock)


@describe_operation(
    "Start a training",
    {
        202: ResponseSpec("The job, stored and queued, with the plan of what it will do.", AcceptedJob),
        409: "A job for the same is queued already, the queue is full, or the key belongs to another request.",
        422: "Fields are wrong, or it cannot be run here; `would_work` is a body that can.",
    },
    tag="training",
    body=BodySpec(TrainingRequest, {"job_name": "oda-1", "persona": "oda"}),
)
async def post_training(request: web.Request) -> web.Response:
    """202 with the job that was queued, or that the same Idempotency-Key queued before."""
    job_id = _idempotent_job_id(request)
    get_services(request)
    body = await read_json_object(request)
    job, plan = await queue_training(request, body, job_id=job_id)
    answer = dict(JobResponse.of(get_services(request), job))
    if plan:
        own = requested_recipe_plan(plan, job.request.recipe)
        answer["plan"] = PlanSummary.model_validate(plan.model_dump() | own.model_dump())
    return AcceptedJob(**answer).response(202, {"Location": job_path(job.job_id)})


async def queue_training(
    request: web.Request, body: dict[str, Any], *, guild_id: int = OPERATOR_GUILD_ID, job_id: str | None = None
) -> tuple[TrainingJob, TrainingPlan | None]:
    """Check a body, and queue it for a server: the job and what its run would do, which is None for one that is known.

    Raises `Problem` or another `UnderstudyError` where it could not be run here, with nothing queued.
    """
    services = get_services(request)
    parse_body(TrainingRequest, {"base_model": services.base_model, **body})
    wanted = build_training_request(body, services)
    async with request.app[PLANNING_LOCK]:
        if known := _existing_job(services, job_id, wanted):
            return known, None
        await require_startable(services, body, guild_id)
        plan = await require_memory(services, body, guild_id)
        services = get_services(request)  # the bot may have ended meanwhile
        return _enqueue(services, wanted, guild_id, job_id), plan


def _enqueue(services: Services, wanted: TrainingRequest, guild_id: int, job_id: str | None) -> TrainingJob:
    job = services.queue.enqueue(
        wanted, guild_id=guild_id, channel_id=NO_CHANNEL_ID, requested_by=NO_USER_ID, job_id=job_id or ""
    )
    for note in compatibility_notes(wanted, services.base_model):
        log.warning("the job %s: %s", job.job_id, note)
    return job


def _idempotent_job_id(request: web.Request) -> str | None:
    """The id of the job that a key stands for. It outlives the bot, as the job does."""
    key = idempotency_key(request)
    return hashlib.sha256(f"idempotency:{key}".encode()).hexdigest()[:16] if key is not None else None


def _existing_job(services: Services, job_id: str | None, wanted: TrainingRequest) -> TrainingJob | None:
    job = services.store.jobs.get(job_id) if job_id else None
    if job is None:
        return None
    try:
        is_same = job.request == wanted
    except RequestError:  # it was stored by another version of the bot
        is_same = False
    if not is_same:
        raise Problem(
            "key-used",
            "This Idempotency-Key came with another request before.",
            "Send a new key with a new request.",
            more={"job": job_path(job.job_id)},
        )
    return job


ROUTES: tuple[Route, ...] = (("POST", "/finetune/start-training", post_training),)


async def plan_request(request: web.Request, body: dict[str, Any]) -> tuple[TrainingRequest, TrainingPlan]:
    """The request of a body, and what its run would do, whatever is in the queue. Raises `UnderstudyError`s."""
    services = get_services(request)
    parse_body(TrainingRequest, {"base_model": services.base_model, **body})
    wanted = build_training_request(body, services)
    async with request.app[PLANNING_LOCK]:
        await require_available(services, body)
        return wanted, await services.queue.plan(wanted)


@describe_operation(
    "What a training would do",
    {
        200: "Samples, tokens, what is dropped and why, steps, time and memory by recipe; nothing is queued. "
        "`conflict` says what a start would have to wait for.",
        422: "The trainer's words why it could not be run.",
    },
    tag="training",
    body=BodySpec(TrainingRequest, example={"job_name": "oda-1", "persona": "oda"}),
)
async def plan_training(request: web.Request) -> web.Response:
    """The trainer reads the material, which takes seconds, and longer for much of it."""
    wanted, plan = await plan_request(request, await read_json_object(request))
    conflict = get_services(request).queue.conflict(wanted)
    more = {"free_bytes": available_memory_bytes(), "conflict": str(conflict) if conflict else None}
    return web.json_response({**plan.model_dump(mode="json"), **more})


PLAN_ROUTES: tuple[Route, ...] = (("POST", "/finetune/plan", plan_training),)
