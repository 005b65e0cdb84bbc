"""Checks, plans and queues trainings for API and pages; finds jobs and parses their query
parameters.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast, get_args

from aiohttp import web

from bot.platform.errors import redact_paths
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.idempotency import reused_key_problem
from bot.platform.web_kit.paging import enum_query
from bot.platform.web_kit.problems import Problem, field_error
from bot.platform.web_kit.request_body import parse_body
from bot.services import Services
from bot.store import JobState, TrainingJob
from bot.training import request_checks
from bot.training.training_plan import TrainingPlan
from bot.training.web.run_history import DEFAULT_SMOOTHING, MAX_SMOOTHING
from personas.errors import RequestError
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.schemas.training import TrainingRequest

log = logging.getLogger(__name__)
JOB_STATE_NAMES: tuple[JobState, ...] = get_args(JobState)
NO_CHANNEL_ID = NO_USER_ID = 0
CHECK_LOCK = web.AppKey("checks", request_checks.CheckLock)


async def queue_training(
    request: web.Request,
    body: dict[str, Any],
    *,
    guild_id: int = OPERATOR_GUILD_ID,
    job_id: str | None = None,
) -> tuple[TrainingJob, TrainingPlan | None]:
    """Check a body and queue it for a guild. Returns the job and its plan, None for a job that
    existed.

    Raises `Problem` or another `UnderstudyError` if it cannot run here; nothing is queued then.
    """
    services = get_services(request)
    checks = services.request_checks
    wanted = _parse_request(services, body)
    with _checks_as_problems(services):
        async with request.app[CHECK_LOCK]:
            if known := _existing_job(services, job_id, wanted):
                return known, None
            await checks.require_startable(body, guild_id)
            plan = await checks.require_memory(body, guild_id)
            services = get_services(request)  # the bot may have stopped meanwhile
            return _enqueue(services, wanted, guild_id, job_id), plan


async def plan_request(
    request: web.Request, body: dict[str, Any]
) -> tuple[TrainingRequest, TrainingPlan]:
    """Parse a body and plan its run, whatever is in the queue. Raises `UnderstudyError`s."""
    services = get_services(request)
    wanted = _parse_request(services, body)
    with _checks_as_problems(services):
        async with request.app[CHECK_LOCK]:
            await services.request_checks.require_available(body)
            return wanted, await services.queue.plan(wanted)


def require_job(services: Services, job_id: str) -> TrainingJob:
    """Find a job by its id. Raises `Problem`."""
    job = services.store.jobs.get(job_id)
    if job is None:
        advice = "The page Training shows all jobs, GET /finetune/jobs lists them."
        raise Problem("not-found", f"There is no job {job_id!r}.", advice)
    return job


def job_path(job_id: str) -> str:
    return f"/finetune/jobs/{job_id}"


def job_state_query(request: web.Request) -> JobState | None:
    return cast(JobState | None, enum_query(request, "state", JOB_STATE_NAMES))


def smoothing_query(request: web.Request) -> float:
    text = request.query.get("smoothing")
    if text is None:
        return DEFAULT_SMOOTHING
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight <= MAX_SMOOTHING:
        raise Problem(
            "bad-query",
            f"smoothing is {text[:20]!r}.",
            f"It is a number from 0 to {MAX_SMOOTHING}.",
        )
    return weight


def _parse_request(services: Services, body: dict[str, Any]) -> TrainingRequest:
    return parse_body(TrainingRequest, {"base_model": services.base_model, **body})


@contextmanager
def _checks_as_problems(services: Services) -> Iterator[None]:
    """Raise failed checks as problems with the fields and the proposal of the check."""
    try:
        yield
    except request_checks.TooManyChecksError as error:
        raise Problem("busy", error.message, error.advice, headers={"Retry-After": "10"}) from error
    except request_checks.UnavailableRequestError as error:
        raise Problem(
            "cannot-train",
            redact_paths(error.message, services.home),
            error.advice,
            errors=[
                field_error(field, redact_paths(str(wrong), services.home))
                for field, wrong in error.fields.items()
            ],
            more={"would_work": error.proposal} if error.proposal else None,
        ) from error
    except request_checks.InsufficientMemoryError as error:
        figures = {"needed_bytes": error.needed_bytes, "free_bytes": error.free_bytes}
        proposal = {"would_work": error.proposal} if error.proposal else {}
        raise Problem(
            "no-memory", error.message, error.advice, more={**figures, **proposal}
        ) from error


def _enqueue(
    services: Services, wanted: TrainingRequest, guild_id: int, job_id: str | None
) -> TrainingJob:
    job = services.queue.enqueue(
        wanted,
        guild_id=guild_id,
        channel_id=NO_CHANNEL_ID,
        requested_by=NO_USER_ID,
        job_id=job_id or "",
    )
    for note in services.training_notes(wanted):
        log.warning("the job %s: %s", job.job_id, note)
    return job


def _existing_job(
    services: Services, job_id: str | None, wanted: TrainingRequest
) -> TrainingJob | None:
    job = services.store.jobs.get(job_id) if job_id else None
    if job is None:
        return None
    try:
        is_same = job.request == wanted
    except RequestError:  # it was stored by another version of the bot
        is_same = False
    if not is_same:
        raise reused_key_problem(job=job_path(job.job_id))
    return job
