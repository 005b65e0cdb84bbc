"""`/dashboard/training`: the queue and past runs, one run; cancel and resume."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import get_args
from urllib.parse import quote, urlencode

from aiohttp import web
from markupsafe import Markup

from bot.data.built_datasets import require_dataset
from bot.platform.errors import redact_paths
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.paging import DEFAULT_PAGE_SIZE, require_known_parameters
from bot.platform.web_kit.sse import stream_events
from bot.platform.web_kit.templating import (
    DASHBOARD,
    redirect_to,
    render_page,
)
from bot.services import Services
from bot.store import JobState, TrainingJob
from bot.training.repeat import setting_text
from bot.training.status_text import cancelled_writing_lines, card_state_text
from bot.training.web import run_charts, run_view, setting_view
from bot.training.web.requests import (
    JOB_STATE_NAMES,
    job_state_query,
    require_job,
    smoothing_query,
)
from bot.training.web.run_details import RunDetails, read_log_tail, read_run_details, run_seconds
from bot.training.web.run_history import (
    MAX_SMOOTHING,
    STAGE_NAMES,
    smoothing_formula,
)
from bot.training.web.run_http import stream_job_changes
from personas.errors import RequestError, UnderstudyError
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import PhaseName, phase_label

MAX_SHOWN_QUEUE = 50
MAX_SHOWN_EVALUATIONS = 30
MAX_OTHER_RUNS = 50
routes = Routes()


@routes.add(f"POST {run_view.TRAINING_PATH}/{{job_id}}/cancel")
async def cancel_run(request: web.Request) -> web.Response:
    """Cancel an open run. Raises `QueueConflictError` for one that has ended."""
    services = get_services(request)
    job = services.trainings.cancel(request.match_info["job_id"])
    message = f"{run_view.job_label(services, job)} is cancelled."
    if job.card_state:
        message = f"{run_view.job_label(services, job)} is not measured further."
    return redirect_to(request, run_view.run_path(job.job_id), message)


@routes.add(f"POST {run_view.TRAINING_PATH}/{{job_id}}/resume")
async def resume_run(request: web.Request) -> web.Response:
    """Resume a failed run. Raises an `UnderstudyError` for one that cannot be."""
    services = get_services(request)
    job = services.trainings.resume(request.match_info["job_id"])
    label = run_view.job_label(services, job)
    message = f"{label} is in the queue again, and will go on where it was."
    return redirect_to(request, run_view.run_path(job.job_id), message)


@routes.add(f"GET {run_view.TRAINING_PATH}", section="Training")
async def get_run_list(request: web.Request) -> web.Response:
    """Page of running and queued jobs, and all jobs, newest first."""
    services = get_services(request)
    now = time.time()
    persona = request.query.get("persona") or None
    state = None
    if request.query.get("state"):  # forms send empty fields too
        state = job_state_query(request)
    after = None
    if "after" in request.query:
        after = services.trainings.find(request.query["after"])
    jobs = services.store.jobs
    page = jobs.page(DEFAULT_PAGE_SIZE + 1, name=persona, state=state, after=after)
    shown = page[:DEFAULT_PAGE_SIZE]
    has_more = len(page) > DEFAULT_PAGE_SIZE
    running = jobs.in_state("running")
    waiting = services.queue.waiting()
    names = await run_view.requester_names(request, [*running, *waiting[:MAX_SHOWN_QUEUE], *shown])
    seconds = await asyncio.to_thread(_run_durations, services.home, [*running, *shown])

    def describe(job: TrainingJob) -> run_view.JobListItem:
        return run_view.job_list_item(services, job, now, names=names, seconds=seconds[job.job_id])

    return render_page(
        request,
        "training/list.html",
        title="Training",
        running=[describe(job) for job in running],
        open_cards=run_view.list_open_cards(services),
        queue=run_view.list_queued(services, waiting[:MAX_SHOWN_QUEUE], now, names=names),
        waiting=len(waiting),
        entries=[describe(job) for job in shown],
        names=_learner_names(services),
        states=JOB_STATE_NAMES,
        persona=persona,
        state=state,
        is_first=after is None,
        older=_list_path(persona, state, shown[-1]) if has_more else "",
        newest=_list_path(persona, state, None),
    )


def _learner_names(services: Services) -> list[tuple[str, str]]:
    """List the names by which jobs are filtered, each with what people read in its place."""
    listed = []
    for name in services.store.jobs.names():
        owned = services.personas.find_owner(name)
        label = name
        if owned:
            guild_id, persona = owned
            label = persona.name
            if guild_id != OPERATOR_GUILD_ID:
                label += f" ({run_view.job_guild_name(services, guild_id)})"
        listed.append((name, label))
    return sorted(listed, key=lambda entry: entry[1].casefold())


def _run_durations(home: Path, jobs: Sequence[TrainingJob]) -> dict[str, float | None]:
    return {job.job_id: run_seconds(home, job) for job in jobs}


def _list_path(persona: str | None, state: JobState | None, after: TrainingJob | None) -> str:
    fields: dict[str, str] = {}
    if persona:
        fields["persona"] = persona
    if state:
        fields["state"] = state
    if after:
        fields["after"] = after.job_id
    if not fields:
        return run_view.TRAINING_PATH
    return f"{run_view.TRAINING_PATH}?{urlencode(fields)}"


@routes.add(f"GET {run_view.TRAINING_PATH}/events")
async def get_changes(request: web.Request) -> web.StreamResponse:
    """Stream a job whenever it changes, for the page's script. It starts with all running and queued
    jobs, also when reconnected: it has current states, not past changes.
    """
    require_known_parameters(request)
    get_services(request)
    return await stream_events(request, stream_job_changes(request))


@routes.add(f"GET {run_view.TRAINING_PATH}/{{job_id}}")
async def get_run(request: web.Request) -> web.Response:
    services = get_services(request)
    job = require_job(request)
    weight = smoothing_query(request)
    record, charts = await asyncio.to_thread(_draw_charts, services.home, job, weight)
    waiting = ""
    if position := services.queue.position(job.job_id):
        running = services.store.jobs.in_state("running")
        waiting = run_view.waiting_reason(services, position, running)
    names = await run_view.requester_names(request, [job])
    shown = run_view.job_list_item(services, job, time.time(), names=names, doing=waiting)
    title = shown.label
    if shown.own_name:
        title += f", {shown.own_name}"
    requested = requested_settings(services, job)
    about = []
    for name, value in record.settings.about.items():
        about.append((name, setting_text(value)))
    return render_page(
        request,
        "training/run.html",
        title=title,
        run=shown,
        job=job,
        phase_labels={name: phase_label(name) for name in get_args(PhaseName)},
        record=record,
        charts=charts,
        log=await asyncio.to_thread(read_log_tail, services.home, job.job_id),
        card=run_view.read_score_summary(job),
        rest_of_card=redact_paths(card_state_text(job), services.home),
        requested=requested,
        data_set=await asyncio.to_thread(_dataset_path, services, requested),
        groups=setting_view.group_settings(record.settings.values),
        about=about,
        cancelled_writing=cancelled_writing_lines(job),
        notes=[redact_paths(note, services.home) for note in record.settings.notes],
        error=redact_paths(job.error or "", services.home),
        advice=redact_paths(job.advice or "", services.home),
        stages=STAGE_NAMES,
        evaluations=record.course.evaluations[-MAX_SHOWN_EVALUATIONS:],
        weight=weight,
        most_weight=MAX_SMOOTHING,
        formula=smoothing_formula(weight),
        run_label=partial(run_view.job_label, services),
        others=[other for other in other_runs(services, job) if other.job_id != job.job_id],
        holds=job.state == "running" and services.throttle.is_asked,
    )


def _dataset_path(services: Services, requested: Mapping[str, str]) -> str:
    """Path of the page of a run's data set; empty if it used none, or it no longer exists."""
    for name in (requested.get("dataset"), Path(requested.get("dataset_path", "")).name):
        if name:
            with suppress(UnderstudyError):
                return f"{DASHBOARD}/data/sets/{quote(require_dataset(services.home, name).id)}"
    return ""


def _draw_charts(
    home: Path, job: TrainingJob, weight: float
) -> tuple[RunDetails, dict[str, Markup | None]]:
    record = read_run_details(home, job)
    return record, {
        "loss": run_charts.loss_chart([""], [record.course], weight),
        "rate": run_charts.rate_chart(["learning rate"], [record.course]),
        "pace": run_charts.pace_chart(record.course),
        "memory": run_charts.memory_chart(record.course),
        "composition": run_charts.composition_chart(record.sheet) if record.sheet else None,
    }


def other_runs(services: Services, job: TrainingJob | None) -> list[TrainingJob]:
    """The latest jobs, those of the same persona first."""
    jobs = services.store.jobs
    same = jobs.page(MAX_OTHER_RUNS, name=job.name) if job else []
    same_ids = {run.job_id for run in same}
    others = [run for run in jobs.page(MAX_OTHER_RUNS) if run.job_id not in same_ids]
    return [*same, *others]


def requested_settings(services: Services, job: TrainingJob) -> dict[str, str]:
    """Fields of a job's request except hyperparameters; empty if it is unreadable."""
    try:
        request: TrainingRequest = job.request
    except RequestError:
        return {}
    texts = {}
    for name in ("job_name", *setting_view.REQUEST_FIELDS):
        text = setting_text(getattr(request, name))
        if text:
            texts[name] = redact_paths(text, services.home)
    return texts
