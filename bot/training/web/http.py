"""`/finetune/start-training`, `/finetune/plan` and `/finetune/jobs`: starts, plans, lists, cancels
and resumes jobs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from bot.platform.errors import redact_paths
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.idempotency import idempotency_key
from bot.platform.web_kit.openapi import (
    ApiModel,
    ApiRoutes,
    BodySpec,
    Json,
    Links,
    ResponseSpec,
    Timestamp,
    enum_parameter,
    integer_parameter,
)
from bot.platform.web_kit.paging import PAGE_PARAMETERS, integer_query, page_links, parse_page_query
from bot.platform.web_kit.request_body import read_json_object
from bot.services import Services
from bot.store import CardState, JobResult, JobState, TrainingJob
from bot.training.request_checks import available_memory_bytes, requested_recipe_plan
from bot.training.web.requests import (
    JOB_STATE_NAMES,
    job_path,
    job_state_query,
    require_job,
    start_training,
)
from bot.training.web.requests import plan_training as plan_body
from personas.errors import RequestError
from personas.schemas.training import TrainingRequest

OPEN_STATES: tuple[JobState, ...] = ("queued", "running")
MAX_DISCORD_ID = 2**63 - 1
routes = ApiRoutes("training")
NO_JOB_TEXT = "There is no such job."


class JobVersions(ApiModel):
    """Versions of a job's persona: the one that is live in the job's server, and all that are
    installed.
    """

    live: str | None
    installed: list[str]


class JobResultSummary(ApiModel):
    """Result of a finished job: its adapter's folder, its duration and its score card."""

    adapter: str
    seconds: float
    scorecard: Json | None


class CardCompletion(ApiModel):
    """The rest of a finished job's score card, which is measured after the version is ready."""

    state: CardState
    progress: Json | None
    """The trainer's last event."""
    error: str | None


class JobResponse(ApiModel):
    """A training job. Discord's ids are text, as they exceed JSON's numbers."""

    job_id: str
    state: JobState
    place: int | None
    """Position in the queue; 1 is the next."""
    guild: str
    """The server; 0 for the operator's own jobs."""
    name: str
    """The persona's id, or `dialogue/` and the job's name."""
    persona: str | None
    version: str
    versions: JobVersions | None
    request: Json | None
    """The training request; null if it cannot be read."""
    notes: list[str]
    attempt: int
    queued_at: Timestamp
    started_at: Timestamp
    finished_at: Timestamp
    progress: Json | None
    """The trainer's last event."""
    result: JobResultSummary | None
    error: str | None
    advice: str | None
    card: CardCompletion | None
    """Null where the run measures the whole score card."""
    links: Links

    @classmethod
    def of(
        cls, services: Services, job: TrainingJob, positions: Mapping[str, int] | None = None
    ) -> JobResponse:
        """Describe a job; `positions` are those of all queued jobs, for a list (see
        `queue_positions`).
        """
        home = services.home
        if positions is None:
            place = services.queue.position(job.job_id)
        else:
            place = positions.get(job.job_id)
        versions = None
        if job.persona is not None:
            stored = services.store.versions
            versions = JobVersions(
                live=stored.live(job.persona, job.guild_id),
                installed=[installed.version for installed in stored.installed(job.persona)],
            )
        request = None
        # Another version of the bot stored it; `error` says so once it was its turn.
        with suppress(RequestError):
            request = job.request
        shown_request = None
        notes: list[str] = []
        if request:
            shown_request = _redact_request(request, home)
            notes = [redact_paths(note, home) for note in services.training_notes(request)]
        return cls.describe(
            job,
            place=place,
            guild=str(job.guild_id),
            versions=versions,
            request=shown_request,
            notes=notes,
            progress=job.progress.model_dump(mode="json") if job.progress else None,
            result=_result_summary(home, job),
            error=redact_paths(job.error, home) if job.error else None,
            advice=redact_paths(job.advice, home) if job.advice else None,
            card=_card_completion(home, job),
            links=_job_links(job),
        )


class JobListResponse(ApiModel):
    """A page of jobs."""

    jobs: list[JobResponse]
    links: Links


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


def queue_positions(services: Services) -> dict[str, int]:
    """Map each queued job to its position; 1 is the next."""
    return {job.job_id: place for place, job in enumerate(services.queue.waiting(), start=1)}


def _job_links(job: TrainingJob) -> dict[str, str]:
    """The addresses of a job, its events and the actions it allows now."""
    path = job_path(job.job_id)
    links = {"self": path, "events": f"{path}/events"}
    if job.state in OPEN_STATES or job.has_open_card:
        links["cancel"] = f"{path}/cancel"
    if job.can_resume:
        links["resume"] = f"{path}/resume"
    return links


def _redact_request(request: TrainingRequest, home: Path) -> Json:
    shown: Json = request.model_dump(mode="json", exclude_none=True)
    for name, value in shown.items():
        if isinstance(value, str):
            shown[name] = redact_paths(value, home)
    return shown


def _result_summary(home: Path, job: TrainingJob) -> JobResultSummary | None:
    try:
        result: JobResult | None = job.result
    except ValidationError:
        return None
    if result is None:
        return None
    adapter = Path(result.adapter)
    # Never an absolute path: that would tell about the machine.
    place = adapter.relative_to(home) if adapter.is_relative_to(home) else Path(adapter.name)
    scorecard = None
    if result.scorecard.is_measured:
        scorecard = result.scorecard.model_dump(mode="json")
    return JobResultSummary(adapter=place.as_posix(), seconds=result.seconds, scorecard=scorecard)


def _card_completion(home: Path, job: TrainingJob) -> CardCompletion | None:
    if job.card_state is None:
        return None
    progress = job.card_progress
    return CardCompletion(
        state=job.card_state,
        progress=progress.model_dump(mode="json") if progress else None,
        error=redact_paths(job.card_error, home) if job.card_error else None,
    )


@routes.operation(
    "POST /finetune/start-training",
    "Start a training run",
    {
        202: ResponseSpec("The queued job, with its plan.", AcceptedJob),
        409: "A job for the same is queued already, the queue is full, or the key belongs to another request.",
        422: "Fields are wrong, or it cannot be run here; `would_work` is a body that can.",
    },
    body=BodySpec(TrainingRequest, {"job_name": "oda-1", "persona": "oda"}),
)
async def post_training(request: web.Request) -> web.Response:
    """Returns 202 with the queued job; the same Idempotency-Key returns the same job."""
    job_id = _idempotent_job_id(request)
    get_services(request)
    body = await read_json_object(request)
    started = await start_training(request, body, job_id=job_id)
    job = started.job
    answer = dict(JobResponse.of(get_services(request), job))
    if started.plan:
        own = requested_recipe_plan(started.plan, job.request.recipe)
        answer["plan"] = PlanSummary.model_validate(started.plan.model_dump() | own.model_dump())
    return AcceptedJob(**answer).response(202, {"Location": job_path(job.job_id)})


def _idempotent_job_id(request: web.Request) -> str:
    """The job id of an Idempotency-Key, the same across restarts; empty without a key."""
    key = idempotency_key(request)
    if key is None:
        return ""
    # The job itself remembers the request for as long as it exists, so that nothing else has
    # to be stored, deleted or backed up.
    return hashlib.sha256(f"idempotency:{key}".encode()).hexdigest()[:16]


@routes.operation(
    "POST /finetune/plan",
    "Plan a training run",
    {
        200: "Samples, tokens, what is dropped and why, steps, time and memory by recipe; nothing is queued. "
        "`conflict` says what a start would have to wait for.",
        422: "The trainer's words why it could not be run.",
    },
    body=BodySpec(TrainingRequest, example={"job_name": "oda-1", "persona": "oda"}),
)
async def plan_training(request: web.Request) -> web.Response:
    """The trainer reads the material, which takes seconds or more."""
    planned = await plan_body(request, await read_json_object(request))
    answer = planned.plan.model_dump(mode="json")
    answer["free_bytes"] = available_memory_bytes()
    answer["conflict"] = str(planned.conflict) if planned.conflict else None
    return web.json_response(answer)


@routes.operation(
    "GET /finetune/jobs",
    "List jobs, newest first",
    {
        200: ResponseSpec("A page of jobs; `links.next` leads to the older ones.", JobListResponse),
        404: "There is no job `after`.",
    },
    query={
        **PAGE_PARAMETERS,
        "guild": integer_parameter(0, MAX_DISCORD_ID, "Of this server; 0 are the operator's own."),
        "persona": "Only of this persona, by its id; a dialogue adapter is `dialogue/<job name>`.",
        "state": enum_parameter(JOB_STATE_NAMES, "In this state."),
    },
)
async def get_jobs(request: web.Request) -> web.Response:
    """Lists all jobs, or those of a server, of a persona, or in a state."""
    services = get_services(request)
    page = parse_page_query(request, "guild", "persona", "state")
    guild_id = integer_query(request, "guild", 0, MAX_DISCORD_ID)
    state = job_state_query(request)
    after = None
    if page.after is not None:
        after = services.trainings.find(page.after)
    # One more than a page has shows whether there is a next one.
    jobs = services.store.jobs.page(
        page.limit + 1,
        guild_id=guild_id,
        name=request.query.get("persona"),
        state=state,
        after=after,
    )
    last = None
    if len(jobs) > page.limit:
        last = jobs[page.limit - 1].job_id
    positions = queue_positions(services)
    responses = [JobResponse.of(services, job, positions) for job in jobs[: page.limit]]
    return JobListResponse(jobs=responses, links=page_links(request, page, last)).response()


@routes.operation(
    "GET /finetune/jobs/{job_id}",
    "Get a job",
    {200: ResponseSpec("The job.", JobResponse), 404: NO_JOB_TEXT},
)
async def get_job(request: web.Request) -> web.Response:
    """Returns its state, the trainer's latest message, and its result."""
    services = get_services(request)
    return JobResponse.of(services, require_job(request)).response()


@routes.operation(
    "POST /finetune/jobs/{job_id}/cancel",
    "Cancel a job",
    {
        200: ResponseSpec("The job, cancelled, or without the rest of its card.", JobResponse),
        404: NO_JOB_TEXT,
        409: "It has ended, or the key belongs to another request.",
    },
)
async def cancel_job(request: web.Request) -> web.Response:
    """Cancels a queued or running job for good, or the rest of a finished one's score card; live
    versions do not change.
    """
    services = get_services(request)
    job = services.trainings.cancel(request.match_info["job_id"])
    return JobResponse.of(services, job).response()


@routes.operation(
    "POST /finetune/jobs/{job_id}/resume",
    "Resume a job",
    {
        200: ResponseSpec("The job, queued again.", JobResponse),
        404: NO_JOB_TEXT,
        409: "It cannot go on, or the key belongs to another request.",
        422: "What it needs is not here.",
    },
)
async def resume_job(request: web.Request) -> web.Response:
    """Continues a failed job from its last checkpoint, once the cause is fixed."""
    services = get_services(request)
    job = services.trainings.resume(request.match_info["job_id"])
    return JobResponse.of(services, job).response()
