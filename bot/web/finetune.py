"""`POST /finetune/start-training`: queue a training, once it is sure that it could be run here."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Any

from aiohttp import web

from bot.house import House
from bot.preview import Plan
from bot.served import notes_on
from bot.store import Job
from bot.web.bodies import json_object, parsed
from bot.web.here import Route, house_of
from bot.web.idempotency import key_of
from bot.web.job_json import JOB, job_json, job_path
from bot.web.openapi import Answer, Body, described
from bot.web.preflight import own_plan, request_of, require_memory, require_possible
from bot.web.problems import Problem
from personas.contracts import TrainingRequest
from personas.errors import RequestError
from personas.for_everybody import OPERATOR

log = logging.getLogger(__name__)

MOST_WAITING = 8
NO_CHANNEL = NOBODY = 0


ACCEPTED: dict[str, Any] = {
    **JOB,
    "title": "AcceptedJob",
    "properties": {**JOB["properties"], "plan": {"type": "object", "additionalProperties": True}},
}


class Checks:
    """One check at a time: each is a process that reads all of the material."""

    def __init__(self) -> None:
        self._one = asyncio.Semaphore()
        self._waiting = 0

    async def __aenter__(self) -> None:
        if self._waiting >= MOST_WAITING:
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


CHECKS = web.AppKey("checks", Checks)


@described(
    "Start a training",
    {
        202: Answer("The job, stored and queued, with the plan of what it will do.", ACCEPTED),
        409: "A job for the same is queued already, the queue is full, or the key belongs to another request.",
        422: "Fields are wrong, or it cannot be run here; `would_work` is a body that can.",
    },
    tag="training",
    body=Body(TrainingRequest, {"job_name": "oda-1", "persona": "oda"}),
)
async def start_training(request: web.Request) -> web.Response:
    """202 with the job that was queued, or that the same Idempotency-Key queued before."""
    job_id = _job_id(request)
    house_of(request)
    body = await json_object(request)
    job, plan = await queue_training(request, body, job_id=job_id)
    more = {"plan": _plan_json(plan, job.request)} if plan else None
    return _accepted(house_of(request), job, more)


async def queue_training(
    request: web.Request, body: dict[str, Any], *, guild_id: int = OPERATOR, job_id: str | None = None
) -> tuple[Job, Plan | None]:
    """Check a body, and queue it for a server: the job and what its run would do, which is None for one that is known.

    Raises `Problem` or another `UnderstudyError` where it could not be run here, with nothing queued.
    """
    house = house_of(request)
    parsed(TrainingRequest, {"base_model": house.base_model, **body})
    wanted = request_of(body, house)
    async with request.app[CHECKS]:
        if known := _known(house, job_id, wanted):
            return known, None
        await require_possible(house, body, guild_id)
        plan = await require_memory(house, body, guild_id)
        house = house_of(request)  # the bot may have ended meanwhile
        return _queued(house, wanted, guild_id, job_id), plan


def _queued(house: House, wanted: TrainingRequest, guild_id: int, job_id: str | None) -> Job:
    job = house.queue.enqueue(
        wanted, guild_id=guild_id, channel_id=NO_CHANNEL, requested_by=NOBODY, job_id=job_id or ""
    )
    for note in notes_on(wanted, house.base_model):
        log.warning("the job %s: %s", job.job_id, note)
    return job


def _job_id(request: web.Request) -> str | None:
    """The id of the job that a key stands for. It outlives the bot, as the job does."""
    key = key_of(request)
    return hashlib.sha256(f"idempotency:{key}".encode()).hexdigest()[:16] if key is not None else None


def _known(house: House, job_id: str | None, wanted: TrainingRequest) -> Job | None:
    job = house.store.jobs.get(job_id) if job_id else None
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


def _accepted(house: House, job: Job, more: dict[str, Any] | None = None) -> web.Response:
    headers = {"Location": job_path(job.job_id)}
    return web.json_response({**job_json(house, job), **(more or {})}, status=202, headers=headers)


def _plan_json(plan: Plan, request: TrainingRequest) -> dict[str, Any]:
    own = own_plan(plan, request.recipe)
    return {
        "samples": plan.samples,
        "tokens": plan.tokens,
        "rows": plan.rows,
        "rows_used": plan.rows_used,
        "dropped": plan.dropped,
        "steps": own.steps,
        "seconds": own.seconds,
        "memory_bytes": own.memory_bytes,
        "basis": own.basis,
        "warnings": list(own.warnings),
    }


ROUTES: tuple[Route, ...] = (("POST", "/finetune/start-training", start_training),)
