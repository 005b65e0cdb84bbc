"""`GET /finetune/jobs`, `GET /finetune/jobs/ID`, `POST …/cancel` and `…/resume`, and a job as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from aiohttp import web
from pydantic import ValidationError

from bot.errors import redact_paths
from bot.personas.base_model_compat import compatibility_notes
from bot.services import Services
from bot.store import JobResult, JobState, TrainingJob
from bot.web.api.openapi import ResponseSpec, describe_operation, enum_parameter, integer_parameter
from bot.web.api.paging import PAGE_PARAMETERS, enum_query, integer_query, page_links, parse_page_query
from bot.web.app_context import Route, get_services
from bot.web.problems import Problem
from bot.web.template_filters import iso_timestamp
from personas.errors import RequestError
from personas.schemas.training import TrainingRequest

OPEN_STATES: tuple[JobState, ...] = ("queued", "running")
NULLABLE_STRING: dict[str, Any] = {"type": ["string", "null"]}
NULLABLE_OBJECT: dict[str, Any] = {"type": ["object", "null"], "additionalProperties": True}
JOB_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Job",
    "required": ["job_id", "state", "name", "version", "links"],
    "properties": {
        "job_id": {"type": "string"},
        "state": {"enum": list(get_args(JobState))},
        "place": {"type": ["integer", "null"], "description": "In the queue; 1 is the next."},
        "guild": {"type": "string", "description": "The server; 0 for the operator's own jobs."},
        "name": {"type": "string", "description": "The persona's id, or `dialogue/` and the job's name."},
        "persona": NULLABLE_STRING,
        "version": {"type": "string"},
        "versions": {**NULLABLE_OBJECT, "description": "Which versions the persona has, and which speaks."},
        "request": {**NULLABLE_OBJECT, "description": "What was asked for; null where it cannot be read."},
        "notes": {"type": "array", "items": {"type": "string"}},
        "attempt": {"type": "integer"},
        **{
            name: {**NULLABLE_STRING, "description": "ISO 8601, in UTC."}
            for name in ("queued_at", "started_at", "finished_at")
        },
        "progress": {**NULLABLE_OBJECT, "description": "The trainer's last word."},
        "result": {**NULLABLE_OBJECT, "description": "Adapter, seconds and score card of a job that is done."},
        "error": NULLABLE_STRING,
        "advice": NULLABLE_STRING,
        "links": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
"""The object as OpenAPI describes it."""


def job_path(job_id: str) -> str:
    """Where a job is asked for."""
    return f"/finetune/jobs/{job_id}"


def job_json(services: Services, job: TrainingJob, places: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The published object. Ids of Discord are text: they are longer than JSON's numbers may be.

    `places` are those in the queue, of a list of jobs: see `queue_positions`.
    """
    request = _stored_request(job)
    place = services.queue.position(job.job_id) if places is None else places.get(job.job_id)
    return {
        "job_id": job.job_id,
        "state": job.state,
        "place": place,
        "guild": str(job.guild_id),
        "name": job.name,
        "persona": job.persona,
        "version": job.version,
        "versions": _versions_json(services, job),
        "request": _request_json(services, request) if request else None,
        "notes": [redact_paths(note, services.home) for note in compatibility_notes(request, services.base_model)]
        if request
        else [],
        "attempt": job.attempt,
        "queued_at": iso_timestamp(job.queued_at),
        "started_at": iso_timestamp(job.started_at),
        "finished_at": iso_timestamp(job.finished_at),
        "progress": job.progress.model_dump(mode="json") if job.progress else None,
        "result": _result_json(services.home, job),
        "error": redact_paths(job.error, services.home) if job.error else None,
        "advice": redact_paths(job.advice, services.home) if job.advice else None,
        "links": _job_links(job),
    }


def queue_positions(services: Services) -> dict[str, int]:
    """The place of each job that waits; 1 is the next."""
    return {job.job_id: place for place, job in enumerate(services.queue.order(), start=1)}


def _job_links(job: TrainingJob) -> dict[str, str]:
    """Where it and what it tells are, and what can be done to it now."""
    path = job_path(job.job_id)
    can = {"events": True, "curves": True, "log": True, "cancel": job.state in OPEN_STATES, "resume": job.can_resume}
    return {"self": path} | {what: f"{path}/{what}" for what, possible in can.items() if possible}


def _stored_request(job: TrainingJob) -> TrainingRequest | None:
    try:
        return job.request
    except RequestError:  # stored by another version of the bot; `error` says so once it was its turn
        return None


def _request_json(services: Services, request: TrainingRequest) -> dict[str, Any]:
    shown = request.model_dump(mode="json", exclude_none=True)
    return {
        key: redact_paths(value, services.home) if isinstance(value, str) else value for key, value in shown.items()
    }


def _versions_json(services: Services, job: TrainingJob) -> dict[str, Any] | None:
    """Which versions of the persona there are, and which speaks."""
    if job.persona is None:
        return None
    versions = services.store.versions
    return {
        "live": versions.live(job.persona),
        "installed": [version.version for version in versions.installed(job.persona)],
    }


def _result_json(home: Path, job: TrainingJob) -> dict[str, Any] | None:
    try:
        result: JobResult | None = job.result
    except ValidationError:
        return None
    if result is None:
        return None
    adapter = Path(result.adapter)
    place = adapter.relative_to(home) if adapter.is_relative_to(home) else Path(adapter.name)
    scorecard = result.scorecard.model_dump(mode="json")
    return {"adapter": place.as_posix(), "seconds": result.seconds, "scorecard": scorecard}


MAX_DISCORD_ID = 2**63 - 1
JOB_STATE_NAMES: tuple[JobState, ...] = get_args(JobState)
TRAINING_TAG = "training"
JOB_LIST_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["jobs", "links"],
    "properties": {
        "jobs": {"type": "array", "items": JOB_SCHEMA},
        "links": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
NO_JOB_TEXT = "There is no such job."


@describe_operation(
    "Jobs, newest first",
    {
        200: ResponseSpec("A page of jobs; `links.next` leads to the older ones.", JOB_LIST_SCHEMA),
        404: "There is no job `after`.",
    },
    tag=TRAINING_TAG,
    query={
        **PAGE_PARAMETERS,
        "guild": integer_parameter(0, MAX_DISCORD_ID, "Of this server; 0 are the operator's own."),
        "persona": "Of this persona, by its id; a dialogue adapter is `dialogue/<job name>`.",
        "state": enum_parameter(JOB_STATE_NAMES, "In this state."),
    },
)
async def get_jobs(request: web.Request) -> web.Response:
    """All jobs, or those of a server, of a persona, or in a state."""
    services, asked = get_services(request), parse_page_query(request, "guild", "persona", "state")
    found = services.store.jobs.page(
        asked.limit + 1,
        guild_id=integer_query(request, "guild", 0, MAX_DISCORD_ID),
        name=request.query.get("persona"),
        state=job_state_query(request),
        after=require_job(services, asked.after) if asked.after is not None else None,
    )
    last = found[asked.limit - 1].job_id if len(found) > asked.limit else None
    places = queue_positions(services)
    shown = [job_json(services, job, places) for job in found[: asked.limit]]
    return web.json_response({"jobs": shown, "links": page_links(request, asked, last)})


@describe_operation("One job", {200: ResponseSpec("The job.", JOB_SCHEMA), 404: NO_JOB_TEXT}, tag=TRAINING_TAG)
async def get_job(request: web.Request) -> web.Response:
    """Its state, the trainer's last word, what came of it."""
    services = get_services(request)
    return web.json_response(job_json(services, require_job(services, request.match_info["job_id"])))


@describe_operation(
    "Cancel a job",
    {
        200: ResponseSpec("The job, cancelled.", JOB_SCHEMA),
        404: NO_JOB_TEXT,
        409: "It has ended, or the key belongs to another request.",
    },
    tag=TRAINING_TAG,
)
async def cancel_job(request: web.Request) -> web.Response:
    """Ends for good a job that waits or trains; nothing that is live changes."""
    services = get_services(request)
    job = require_job(services, request.match_info["job_id"])
    return web.json_response(job_json(services, services.queue.cancel(job.job_id)))


@describe_operation(
    "Resume a job",
    {
        200: ResponseSpec("The job, queued again.", JOB_SCHEMA),
        404: NO_JOB_TEXT,
        409: "It cannot go on, or the key belongs to another request.",
        422: "What it needs is not here.",
    },
    tag=TRAINING_TAG,
)
async def resume_job(request: web.Request) -> web.Response:
    """Goes on, from its last checkpoint, with a job that failed for a reason that somebody has mended."""
    services = get_services(request)
    job = require_job(services, request.match_info["job_id"])
    return web.json_response(job_json(services, services.queue.resume(job.job_id)))


def require_job(services: Services, job_id: str) -> TrainingJob:
    """The job with this id. Raises `Problem`."""
    job = services.store.jobs.get(job_id)
    if job is None:
        advice = "The page Training shows those that there are, GET /finetune/jobs lists them."
        raise Problem("not-found", f"There is no job {job_id!r}.", advice)
    return job


def job_state_query(request: web.Request) -> JobState | None:
    """The state by which jobs are asked for; None for all. Raises `Problem`."""
    return cast(JobState | None, enum_query(request, "state", JOB_STATE_NAMES))


ROUTES: tuple[Route, ...] = (
    ("GET", "/finetune/jobs", get_jobs),
    ("GET", "/finetune/jobs/{job_id}", get_job),
    ("POST", "/finetune/jobs/{job_id}/cancel", cancel_job),
    ("POST", "/finetune/jobs/{job_id}/resume", resume_job),
)
