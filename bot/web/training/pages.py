"""The training pages: what trains, waits and has ended; and one run with its curves, figures, settings and log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from aiohttp import web
from markupsafe import Markup

from bot.house import House
from bot.store import Job, JobState
from bot.web.data.sets import set_of
from bot.web.frame import HOME, page
from bot.web.here import Route, house_of
from bot.web.jobs import STATES, asked_state, job_named
from bot.web.paging import PAGE
from bot.web.problems import Problem
from bot.web.training import figures
from bot.web.training.course import DEFAULT_SMOOTHING, MOST_SMOOTHING, STAGES, formula
from bot.web.training.record import Record, log_tail, record_of, seconds_of
from bot.web.training.settings import OF_REQUEST, grouped, written
from bot.web.training.words import TRAINING, entry, scorecard, why_it_waits
from bot.web.words import without_places
from personas.contracts import TrainingRequest
from personas.errors import RequestError, UnderstudyError

SHOWN_QUEUE = 50
SHOWN_EVALUATIONS = 30
OTHER_RUNS = 50


@dataclass(frozen=True)
class Drawn:
    """A run's record with its charts."""

    record: Record
    loss: Markup
    rate: Markup
    pace: Markup
    memory: Markup
    composition: Markup | None
    log: str


async def all_runs(request: web.Request) -> web.Response:
    """What trains, what waits and why, and every job, newest first."""
    house, now = house_of(request), time.time()
    persona = request.query.get("persona") or None
    state = asked_state(request) if request.query.get("state") else None  # a form sends what was left empty, too
    after = job_named(house, request.query["after"]) if "after" in request.query else None
    jobs = house.store.jobs
    found = jobs.page(PAGE + 1, name=persona, state=state, after=after)
    running, waiting = jobs.in_state("running"), house.queue.order()
    queue = [
        entry(house, job, now, why_it_waits(house, place, running))
        for place, job in enumerate(waiting[:SHOWN_QUEUE], start=1)
    ]
    took = await asyncio.to_thread(_took, house.home, [*running, *found[:PAGE]])
    return page(
        request,
        "training/list.html",
        title="Training",
        section="training",
        running=[entry(house, job, now, "", took[job.job_id]) for job in running],
        queue=queue,
        waiting=len(waiting),
        entries=[entry(house, job, now, "", took[job.job_id]) for job in found[:PAGE]],
        names=jobs.names(),
        states=STATES,
        persona=persona,
        state=state,
        is_first=after is None,
        older=_list_path(persona, state, found[PAGE - 1]) if len(found) > PAGE else "",
        newest=_list_path(persona, state, None),
    )


def _took(home: Path, jobs: Sequence[Job]) -> dict[str, float | None]:
    return {job.job_id: seconds_of(home, job) for job in jobs}


def _list_path(persona: str | None, state: JobState | None, after: Job | None) -> str:
    asked = {"persona": persona, "state": state, "after": after.job_id if after else None}
    query = urlencode({name: value for name, value in asked.items() if value})
    return f"{TRAINING}?{query}" if query else TRAINING


async def one_run(request: web.Request) -> web.Response:
    """Everything about one run."""
    house = house_of(request)
    job = job_named(house, request.match_info["job_id"])
    weight = smoothing_of(request)
    drawn = await asyncio.to_thread(_drawn, house.home, job, weight)
    shown = entry(house, job, time.time(), _waits(house, job))
    record, asked = drawn.record, asked_for(house, job)
    return page(
        request,
        "training/run.html",
        title=", ".join(filter(None, (f"{job.name} {job.version}", shown.own_name))),
        section="training",
        run=shown,
        job=job,
        record=record,
        drawn=drawn,
        card=scorecard(job),
        asked=asked,
        data_set=await asyncio.to_thread(_data_set, house, asked),
        groups=grouped(record.settings.values),
        about=[(name, written(value)) for name, value in record.settings.about.items()],
        notes=[without_places(note, house.home) for note in record.settings.notes],
        error=without_places(job.error or "", house.home),
        advice=without_places(job.advice or "", house.home),
        stages=STAGES,
        evaluations=record.course.evaluations[-SHOWN_EVALUATIONS:],
        weight=weight,
        most_weight=MOST_SMOOTHING,
        formula=formula(weight),
        others=[other for other in others_than(house, job) if other.job_id != job.job_id],
        holds=house.answerer.giving_way.is_asked if house.answerer and job.state == "running" else False,
    )


def _data_set(house: House, asked: Mapping[str, str]) -> str:
    """Where the built data set is shown that a run learned from; empty where it was none, or is gone."""
    for name in filter(None, (asked.get("dataset"), Path(asked.get("dataset_path", "")).name)):
        with suppress(UnderstudyError):
            return f"{HOME}/data/sets/{quote(set_of(house, name).id)}"
    return ""


def _drawn(home: Path, job: Job, weight: float) -> Drawn:
    record = record_of(home, job)
    course = record.course
    return Drawn(
        record,
        figures.loss_chart(course, weight),
        figures.rate_chart(course),
        figures.pace_chart(course),
        figures.memory_chart(course),
        figures.composition_chart(record.sheet) if record.sheet else None,
        log_tail(home, job.job_id),
    )


def _waits(house: House, job: Job) -> str:
    place = house.queue.position(job.job_id)
    return why_it_waits(house, place, house.store.jobs.in_state("running")) if place else ""


def others_than(house: House, job: Job | None) -> list[Job]:
    """The latest jobs, those of the same persona first."""
    same = house.store.jobs.page(OTHER_RUNS, name=job.name) if job else []
    known = {it.job_id for it in same}
    return [*same, *(it for it in house.store.jobs.page(OTHER_RUNS) if it.job_id not in known)]


def asked_for(house: House, job: Job) -> dict[str, str]:
    """What a job was asked for, settings left out; empty where the row cannot be read."""
    try:
        request: TrainingRequest = job.request
    except RequestError:
        return {}
    shown = {name: written(getattr(request, name)) for name in OF_REQUEST}
    told = {"job_name": request.job_name, **shown}
    return {name: without_places(value, house.home) for name, value in told.items() if value}


def smoothing_of(request: web.Request) -> float:
    """The weight by which curves are smoothed. Raises `Problem`."""
    text = request.query.get("smoothing")
    if text is None:
        return DEFAULT_SMOOTHING
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight <= MOST_SMOOTHING:
        raise Problem("bad-query", f"smoothing is {text[:20]!r}.", f"It is a number from 0 to {MOST_SMOOTHING}.")
    return weight


ROUTES: tuple[Route, ...] = (
    ("GET", TRAINING, all_runs),
    ("GET", f"{TRAINING}/{{job_id}}", one_run),
)
