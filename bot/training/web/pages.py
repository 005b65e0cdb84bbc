"""`/dashboard/training`: the queue and past runs, one run, two runs compared; cancel and resume."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web
from markupsafe import Markup

from bot.data.built_datasets import require_dataset
from bot.platform.errors import redact_paths
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.paging import DEFAULT_PAGE_SIZE
from bot.platform.web_kit.templating import (
    DASHBOARD,
    format_bytes,
    format_percent,
    format_seconds,
    redirect_to,
    render_page,
)
from bot.services import Services
from bot.store import JobState, TrainingJob
from bot.training.web import run_view
from bot.training.web.requests import (
    JOB_STATE_NAMES,
    job_state_query,
    require_job,
    smoothing_query,
)
from bot.training.web.run_details import RunDetails, read_log_tail, read_run_details, run_seconds
from bot.training.web.run_history import MAX_SMOOTHING, STAGE_NAMES, smoothing_formula
from personas.errors import RequestError, UnderstudyError
from personas.schemas.training import TrainingRequest

MAX_SHOWN_QUEUE = 50
MAX_SHOWN_EVALUATIONS = 30
MAX_OTHER_RUNS = 50
routes = Routes()


@routes.add(f"POST {run_view.TRAINING_PATH}/{{job_id}}/cancel")
async def cancel_run(request: web.Request) -> web.Response:
    """Cancel an open run. Raises `QueueConflictError` for one that has ended."""
    services = get_services(request)
    job = services.trainings.cancel(request.match_info["job_id"])
    return redirect_to(
        request, run_view.run_path(job.job_id), f"{job.name} {job.version} is cancelled."
    )


@routes.add(f"POST {run_view.TRAINING_PATH}/{{job_id}}/resume")
async def resume_run(request: web.Request) -> web.Response:
    """Resume a failed run. Raises an `UnderstudyError` for one that cannot be."""
    services = get_services(request)
    job = services.trainings.resume(request.match_info["job_id"])
    message = f"{job.name} {job.version} waits again, and goes on where it was."
    return redirect_to(request, run_view.run_path(job.job_id), message)


@routes.add(f"GET {run_view.TRAINING_PATH}")
async def get_run_list(request: web.Request) -> web.Response:
    """Page of running and queued jobs, and all jobs, newest first."""
    services = get_services(request)
    now = time.time()
    persona = request.query.get("persona") or None
    state = (
        job_state_query(request) if request.query.get("state") else None
    )  # forms send empty fields too
    after = services.trainings.find(request.query["after"]) if "after" in request.query else None
    jobs = services.store.jobs
    page = jobs.page(DEFAULT_PAGE_SIZE + 1, name=persona, state=state, after=after)
    shown = page[:DEFAULT_PAGE_SIZE]
    has_more = len(page) > DEFAULT_PAGE_SIZE
    running = jobs.in_state("running")
    waiting = services.queue.waiting()
    queue = [
        run_view.job_list_item(
            services, job, now, run_view.waiting_reason(services, place, running)
        )
        for place, job in enumerate(waiting[:MAX_SHOWN_QUEUE], start=1)
    ]
    seconds = await asyncio.to_thread(_run_durations, services.home, [*running, *shown])
    return render_page(
        request,
        "training/list.html",
        title="Training",
        running=[
            run_view.job_list_item(services, job, now, "", seconds[job.job_id]) for job in running
        ],
        queue=queue,
        waiting=len(waiting),
        entries=[
            run_view.job_list_item(services, job, now, "", seconds[job.job_id]) for job in shown
        ],
        names=jobs.names(),
        states=JOB_STATE_NAMES,
        persona=persona,
        state=state,
        is_first=after is None,
        older=_list_path(persona, state, shown[-1]) if has_more else "",
        newest=_list_path(persona, state, None),
    )


def _run_durations(home: Path, jobs: Sequence[TrainingJob]) -> dict[str, float | None]:
    return {job.job_id: run_seconds(home, job) for job in jobs}


def _list_path(persona: str | None, state: JobState | None, after: TrainingJob | None) -> str:
    fields = {"persona": persona, "state": state, "after": after.job_id if after else None}
    query = urlencode({name: value for name, value in fields.items() if value})
    return f"{run_view.TRAINING_PATH}?{query}" if query else run_view.TRAINING_PATH


@routes.add(f"GET {run_view.TRAINING_PATH}/{{job_id}}")
async def get_run(request: web.Request) -> web.Response:
    services = get_services(request)
    job = require_job(request)
    weight = smoothing_query(request)
    record, charts = await asyncio.to_thread(_draw_charts, services.home, job, weight)
    position = services.queue.position(job.job_id)
    running = services.store.jobs.in_state("running")
    waiting = run_view.waiting_reason(services, position, running) if position else ""
    shown = run_view.job_list_item(services, job, time.time(), waiting)
    requested = requested_settings(services, job)
    return render_page(
        request,
        "training/run.html",
        title=", ".join(filter(None, (f"{job.name} {job.version}", shown.own_name))),
        run=shown,
        job=job,
        record=record,
        charts=charts,
        log=await asyncio.to_thread(read_log_tail, services.home, job.job_id),
        card=run_view.read_score_summary(job),
        requested=requested,
        data_set=await asyncio.to_thread(_dataset_path, services, requested),
        groups=run_view.group_settings(record.settings.values),
        about=[
            (name, run_view.setting_text(value)) for name, value in record.settings.about.items()
        ],
        notes=[redact_paths(note, services.home) for note in record.settings.notes],
        error=redact_paths(job.error or "", services.home),
        advice=redact_paths(job.advice or "", services.home),
        stages=STAGE_NAMES,
        evaluations=record.course.evaluations[-MAX_SHOWN_EVALUATIONS:],
        weight=weight,
        most_weight=MAX_SMOOTHING,
        formula=smoothing_formula(weight),
        others=[other for other in other_runs(services, job) if other.job_id != job.job_id],
        holds=services.throttle.is_asked
        if services.reply_service and job.state == "running"
        else False,
    )


def _dataset_path(services: Services, requested: Mapping[str, str]) -> str:
    """Path of the page of a run's data set; empty if it used none, or it no longer exists."""
    for name in filter(
        None, (requested.get("dataset"), Path(requested.get("dataset_path", "")).name)
    ):
        with suppress(UnderstudyError):
            return f"{DASHBOARD}/data/sets/{quote(require_dataset(services.home, name).id)}"
    return ""


def _draw_charts(
    home: Path, job: TrainingJob, weight: float
) -> tuple[RunDetails, dict[str, Markup | None]]:
    record = read_run_details(home, job)
    return record, {
        "loss": run_view.loss_chart([""], [record.course], weight),
        "rate": run_view.rate_chart(["learning rate"], [record.course]),
        "pace": run_view.pace_chart(record.course),
        "memory": run_view.memory_chart(record.course),
        "composition": run_view.composition_chart(record.sheet) if record.sheet else None,
    }


def other_runs(services: Services, job: TrainingJob | None) -> list[TrainingJob]:
    """The latest jobs, those of the same persona first."""
    same = services.store.jobs.page(MAX_OTHER_RUNS, name=job.name) if job else []
    known = {it.job_id for it in same}
    return [
        *same,
        *(it for it in services.store.jobs.page(MAX_OTHER_RUNS) if it.job_id not in known),
    ]


def requested_settings(services: Services, job: TrainingJob) -> dict[str, str]:
    """Fields of a job's request except hyperparameters; empty if it is unreadable."""
    try:
        request: TrainingRequest = job.request
    except RequestError:
        return {}
    texts = {
        name: run_view.setting_text(getattr(request, name))
        for name in ("job_name", *run_view.REQUEST_FIELDS)
    }
    return {name: redact_paths(text, services.home) for name, text in texts.items() if text}


@dataclass(frozen=True)
class RunPair:
    a: RunDetails
    b: RunDetails
    loss: Markup
    rate: Markup


@routes.add(f"GET {run_view.TRAINING_PATH}/compare")
async def get_comparison(request: web.Request) -> web.Response:
    services = get_services(request)
    weight = smoothing_query(request)
    jobs = [
        services.trainings.find(request.query[name]) if request.query.get(name) else None
        for name in "ab"
    ]
    pair = (
        await asyncio.to_thread(_run_pair, services.home, jobs[0], jobs[1], weight)
        if all(jobs)
        else None
    )
    names = [_run_title(job) if job else "" for job in jobs]
    return render_page(
        request,
        "training/compare.html",
        title=" and ".join(filter(None, names)) or "Two runs side by side",
        jobs=jobs,
        names=names,
        paths=[run_view.run_path(job.job_id) if job else "" for job in jobs],
        choices=_comparable_runs(services, jobs),
        pair=pair,
        results=compare_results(pair) if pair else [],
        settings=compare_run_settings(services, pair) if pair else [],
        weight=weight,
        most_weight=MAX_SMOOTHING,
        formula=smoothing_formula(weight),
    )


def _comparable_runs(services: Services, jobs: list[TrainingJob | None]) -> list[TrainingJob]:
    """The runs to choose from: the latest, those of the first one's persona before others, and the
    chosen ones.
    """
    found = other_runs(services, jobs[0])
    known = {job.job_id for job in found}
    return [*(job for job in jobs if job and job.job_id not in known), *found]


def _run_title(job: TrainingJob) -> str:
    return f"{job.name} {job.version}"


def _run_pair(
    home: Path, a: TrainingJob | None, b: TrainingJob | None, weight: float
) -> RunPair | None:
    if a is None or b is None:
        return None
    records = read_run_details(home, a), read_run_details(home, b)
    courses = [record.course for record in records]
    names = [f"A, {_run_title(a)}", f"B, {_run_title(b)}"]
    loss = run_view.loss_chart([f"{name}: " for name in names], courses, weight)
    return RunPair(*records, loss, run_view.rate_chart(names, courses))


def compare_results(pair: RunPair) -> list[run_view.SettingComparison]:
    return [
        run_view.SettingComparison(name, text(pair.a) or "–", text(pair.b) or "–")
        for name, text in RESULT_ROWS
    ]


def compare_run_settings(services: Services, pair: RunPair) -> list[run_view.SettingComparison]:
    """Compare requests and settings of two runs. A field that only one request names counts as
    empty in the other.
    """
    both = [(it.settings, requested_settings(services, it.job)) for it in (pair.a, pair.b)]
    empty = dict.fromkeys(name for _, requested in both for name in requested)
    return run_view.compare_settings(
        *(
            {**(empty if requested else {}), **requested, **it.values, **it.about}
            for it, requested in both
        )
    )


def _score_reader(name: str, digits: int = 4) -> Callable[[RunDetails], str]:
    def read(record: RunDetails) -> str:
        card = run_view.read_score_summary(record.job)
        value: Any = getattr(card, name) if card else None
        return f"{value:.{digits}f}" if isinstance(value, float) else str(value or "")

    return read


def _best_loss(record: RunDetails) -> str:
    best = min(record.course.heldout, key=lambda measured: measured[1], default=None)
    return f"{best[1]:.4f} after step {best[0]:,}" if best else ""


def _step_count(record: RunDetails) -> str:
    return f"{record.course.steps[-1].step:,}" if record.course.steps else ""


def _sample_count(record: RunDetails) -> str:
    samples = (record.sheet or {}).get("samples")
    return f"{samples.get('train', 0):,}" if isinstance(samples, dict) else ""


def _peak_memory(record: RunDetails) -> str:
    took = record.took
    share = f" ({format_percent(took.share, 1)} of {took.device})" if took.share is not None else ""
    return f"{format_bytes(took.peak_bytes)}{share}" if took.peak_bytes else ""


RESULT_ROWS: tuple[tuple[str, Callable[[RunDetails], str]], ...] = (
    ("State", lambda record: record.job.state),
    ("Samples trained on", _sample_count),
    ("Steps", _step_count),
    (
        "Total time",
        lambda record: format_seconds(record.took.seconds) if record.took.seconds else "",
    ),
    ("Peak memory", _peak_memory),
    (
        "Final training loss",
        lambda record: "" if (loss := record.course.train_loss) is None else f"{loss:.4f}",
    ),
    ("Best held-out loss on the way", _best_loss),
    ("Held-out loss, base model", _score_reader("loss_base")),
    ("Held-out loss, as served", _score_reader("loss_tuned")),
    ("General dialogue, base model", _score_reader("general_loss_base")),
    ("General dialogue, as served", _score_reader("general_loss_tuned")),
    ("Gate", _score_reader("verdict")),
)
