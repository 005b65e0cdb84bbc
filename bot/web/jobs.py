"""`GET /finetune/jobs`, `GET /finetune/jobs/ID`, `POST /finetune/jobs/ID/cancel` and `…/resume`."""

from __future__ import annotations

from typing import Any, cast, get_args

from aiohttp import web

from bot.house import House
from bot.store import Job, JobState
from bot.web.here import Route, house_of
from bot.web.job_json import JOB, job_json, places_in
from bot.web.openapi import Answer, described, one_of, whole
from bot.web.paging import PAGED, choice, links, number, paged
from bot.web.problems import Problem

LARGEST_ID = 2**63 - 1
STATES: tuple[JobState, ...] = get_args(JobState)
TAG = "training"
JOBS: dict[str, Any] = {
    "type": "object",
    "required": ["jobs", "links"],
    "properties": {
        "jobs": {"type": "array", "items": JOB},
        "links": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
NO_JOB = "There is no such job."


@described(
    "Jobs, newest first",
    {200: Answer("A page of jobs; `links.next` leads to the older ones.", JOBS), 404: "There is no job `after`."},
    tag=TAG,
    query={
        **PAGED,
        "guild": whole(0, LARGEST_ID, "Of this server; 0 are the operator's own."),
        "persona": "Of this persona, by its id; a dialogue adapter is `dialogue/<job name>`.",
        "state": one_of(STATES, "In this state."),
    },
)
async def get_jobs(request: web.Request) -> web.Response:
    """All jobs, or those of a server, of a persona, or in a state."""
    house, asked = house_of(request), paged(request, "guild", "persona", "state")
    found = house.store.jobs.page(
        asked.limit + 1,
        guild_id=number(request, "guild", 0, LARGEST_ID),
        name=request.query.get("persona"),
        state=asked_state(request),
        after=job_named(house, asked.after) if asked.after is not None else None,
    )
    last = found[asked.limit - 1].job_id if len(found) > asked.limit else None
    places = places_in(house)
    shown = [job_json(house, job, places) for job in found[: asked.limit]]
    return web.json_response({"jobs": shown, "links": links(request, asked, last)})


@described("One job", {200: Answer("The job.", JOB), 404: NO_JOB}, tag=TAG)
async def get_job(request: web.Request) -> web.Response:
    """Its state, the trainer's last word, what came of it."""
    house = house_of(request)
    return web.json_response(job_json(house, job_named(house, request.match_info["job_id"])))


@described(
    "Cancel a job",
    {200: Answer("The job, cancelled.", JOB), 404: NO_JOB, 409: "It has ended, or the key belongs to another request."},
    tag=TAG,
)
async def cancel_job(request: web.Request) -> web.Response:
    """Ends for good a job that waits or trains; nothing that is live changes."""
    house = house_of(request)
    job = job_named(house, request.match_info["job_id"])
    return web.json_response(job_json(house, house.queue.cancel(job.job_id)))


@described(
    "Resume a job",
    {
        200: Answer("The job, queued again.", JOB),
        404: NO_JOB,
        409: "It cannot go on, or the key belongs to another request.",
        422: "What it needs is not here.",
    },
    tag=TAG,
)
async def resume_job(request: web.Request) -> web.Response:
    """Goes on, from its last checkpoint, with a job that failed for a reason that somebody has mended."""
    house = house_of(request)
    job = job_named(house, request.match_info["job_id"])
    return web.json_response(job_json(house, house.queue.resume(job.job_id)))


def job_named(house: House, job_id: str) -> Job:
    """The job with this id. Raises `Problem`."""
    job = house.store.jobs.get(job_id)
    if job is None:
        advice = "The page Training shows those that there are, GET /finetune/jobs lists them."
        raise Problem("not-found", f"There is no job {job_id!r}.", advice)
    return job


def asked_state(request: web.Request) -> JobState | None:
    """The state by which jobs are asked for; None for all. Raises `Problem`."""
    return cast(JobState | None, choice(request, "state", STATES))


ROUTES: tuple[Route, ...] = (
    ("GET", "/finetune/jobs", get_jobs),
    ("GET", "/finetune/jobs/{job_id}", get_job),
    ("POST", "/finetune/jobs/{job_id}/cancel", cancel_job),
    ("POST", "/finetune/jobs/{job_id}/resume", resume_job),
)
