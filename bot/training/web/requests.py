"""Reads jobs, bodies and parameters from web requests, and answers failed checks with problems."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast, get_args

from aiohttp import web

from bot.platform.errors import redact_paths
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.connections import while_connected
from bot.platform.web_kit.idempotency import reused_key_problem
from bot.platform.web_kit.paging import enum_query
from bot.platform.web_kit.problems import Problem, field_error
from bot.platform.web_kit.validation import parse_body
from bot.services import Services
from bot.store import JobState, TrainingJob
from bot.training.actions import (
    PlannedTraining,
    ReusedJobIdError,
    StartedTraining,
    TooManyChecksError,
)
from bot.training.request_checks import (
    InsufficientMemoryError,
    SentRequest,
    UnavailableRequestError,
)
from bot.training.web.run_history import DEFAULT_SMOOTHING, MAX_SMOOTHING
from personas.home.persona_ids import match_personas
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.schemas.training import TrainingRequest

JOB_STATE_NAMES: tuple[JobState, ...] = get_args(JobState)


async def start_training(
    request: web.Request,
    body: dict[str, Any],
    *,
    guild_id: int = OPERATOR_GUILD_ID,
    job_id: str = "",
) -> StartedTraining:
    """Check a body and queue it for a guild. Raises `UnderstudyError`s, most of them problems."""
    services = get_services(request)
    sent = _parse_request(services, body)
    with _as_problems(services):
        return await services.trainings.start_checked(
            sent,
            guild_id=guild_id,
            job_id=job_id,
            require_open=lambda: get_services(request),
        )


async def plan_training(
    request: web.Request, body: dict[str, Any], *, proposes: bool = True
) -> PlannedTraining:
    """Plan a body's run, whatever is in the queue, while the client waits for it. A refusal
    `proposes` what would work. Raises `UnderstudyError`s.
    """
    services = get_services(request)
    sent = _parse_request(services, body)
    with _as_problems(services):
        return await while_connected(
            request, services.trainings.plan_checked(sent, proposes=proposes)
        )


def require_job(request: web.Request) -> TrainingJob:
    """Return the job of the address. Raises `UnknownJobError`."""
    return get_services(request).trainings.find(request.match_info["job_id"])


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


def _parse_request(services: Services, body: dict[str, Any]) -> SentRequest:
    """Parse a body; a persona may be named as elsewhere. Raises a problem that names its wrong fields."""
    request = parse_body(TrainingRequest, services.trainings.with_defaults(body))
    matching = match_personas(services.personas.everybody(), request.persona or "")
    if len(matching) == 1:
        request = request.model_copy(update={"persona": matching[0][1].id})
    return SentRequest(body, request)


@contextmanager
def _as_problems(services: Services) -> Iterator[None]:
    """Raise failed checks as problems, with their fields and proposals."""
    try:
        yield
    except ReusedJobIdError as error:
        raise reused_key_problem(job=job_path(error.job.job_id)) from error
    except TooManyChecksError as error:
        raise Problem("busy", error.message, error.advice, headers={"Retry-After": "10"}) from error
    except UnavailableRequestError as error:
        errors = [
            field_error(field, redact_paths(str(wrong), services.home))
            for field, wrong in error.fields.items()
        ]
        message = redact_paths(error.message, services.home)
        more = None
        if error.proposal:
            more = {"would_work": error.proposal}
        raise Problem("cannot-train", message, error.advice, errors=errors, more=more) from error
    except InsufficientMemoryError as error:
        figures: dict[str, Any] = {
            "needed_bytes": error.needed_bytes,
            "free_bytes": error.free_bytes,
        }
        if error.proposal:
            figures["would_work"] = error.proposal
        raise Problem("no-memory", error.message, error.advice, more=figures) from error
