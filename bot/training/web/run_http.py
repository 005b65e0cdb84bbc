"""`/finetune/jobs/ID/events`: a run's events as a list or a stream."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aiohttp import web

from bot.platform.web_kit.app_context import APP_CONTEXT, get_services
from bot.platform.web_kit.openapi import ApiModel, ApiRoutes, Links, ParameterSpec, ResponseSpec
from bot.platform.web_kit.paging import (
    PAGE_PARAMETERS,
    page_links,
    parse_page_query,
)
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.sse import SseItem, stream_events
from bot.services import Services
from bot.store import CardState, JobState, TrainingJob
from bot.training.web import run_history
from bot.training.web.http import (
    NO_JOB_TEXT,
    OPEN_STATES,
    JobResponse,
)
from bot.training.web.requests import require_job
from bot.training.web.run_details import events_file

POLL_INTERVAL_S = 1.0
"""The file is polled too, as the bot hears of an event shortly before it is written."""
EVENT_STREAM_TYPE = "text/event-stream"
EVENT_ID_PATTERN = re.compile(r"[0-9]{1,15}")
LIST_OR_STREAM_TYPES = ("application/json", EVENT_STREAM_TYPE)
routes = ApiRoutes("training")


async def stream_run_events(
    request: web.Request, job_id: str, start: int
) -> AsyncIterator[SseItem]:
    """Yield a run's events after a byte of its file, and new ones until it ends.

    An event's id is the byte at which it ends, its name the event's kind. `job` is sent at first
    and whenever the job's state or position changes; `anew` voids all earlier events, which are
    sent again.
    """
    at = start
    shown: tuple[JobState, int | None, CardState | None] | None = None
    with _subscribe_changes(request) as changed:
        while (services := request.app[APP_CONTEXT].services) and (
            job := services.store.jobs.get(job_id)
        ):
            changed.clear()
            read = await _read_batch(services, job_id, at)
            at = read.end
            if read.anew:
                yield "0", "anew", {}
            for logged in read.events:
                yield str(logged.end), logged.event.event, logged.event.model_dump(mode="json")
            now = (job.state, services.queue.position(job_id), job.card_state)
            if now != shown and not read.more:
                yield str(at), "job", JobResponse.of(services, job).as_json()
                shown = now
            if read.more:
                continue
            # The state is as of before the file was read, so nothing is added to it any more.
            if job.state not in OPEN_STATES and not job.has_open_card:
                return
            await _wait_for_change(changed)


async def stream_job_changes(request: web.Request) -> AsyncIterator[SseItem]:
    """Yield every job as it changes, progress included; at first all open ones. Ids only count."""
    number = 0
    changed_jobs: dict[str, None] = {}
    with _subscribe_changes(request, changed_jobs) as changed:
        if services := request.app[APP_CONTEXT].services:
            for state in OPEN_STATES:
                for job in services.store.jobs.in_state(state):
                    changed_jobs[job.job_id] = None
        while services := request.app[APP_CONTEXT].services:
            changed.clear()
            jobs = [services.store.jobs.get(job_id) for job_id in changed_jobs]
            # Cleared before the first `yield`: jobs that change meanwhile are sent again.
            changed_jobs.clear()
            for changed_job in filter(None, jobs):
                number += 1
                yield str(number), "job", JobResponse.of(services, changed_job).as_json()
            await _wait_for_change(changed)


async def _read_batch(services: Services, job_id: str, at: int) -> run_history.EventBatch:
    try:
        return await asyncio.to_thread(
            run_history.read_events, events_file(services.home, job_id), at
        )
    except OSError:  # unreadable for now
        return run_history.EventBatch(end=at)


async def _wait_for_change(changed: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(POLL_INTERVAL_S):
            await changed.wait()


@contextmanager
def _subscribe_changes(
    request: web.Request, changed_jobs: dict[str, None] | None = None
) -> Iterator[asyncio.Event]:
    """Yield an event that is set whenever a job changes; its id is added to `changed_jobs`."""
    services = request.app[APP_CONTEXT].services
    changed = asyncio.Event()

    def note(job: TrainingJob) -> None:
        if changed_jobs is not None:
            changed_jobs[job.job_id] = None
        changed.set()

    if services is None:
        yield changed
        return
    services.queue.subscribe(note)
    try:
        yield changed
    finally:
        services.queue.unsubscribe(note)


class RunEvent(ApiModel, extra="allow"):
    """An event of a run, with the fields of its kind; `id` is where its line ends."""

    id: str
    event: str


class RunEventList(ApiModel):
    """A page of a run's events."""

    events: list[RunEvent]
    links: Links


@routes.operation(
    "GET /finetune/jobs/{job_id}/events",
    "Get the events of a run",
    {
        200: ResponseSpec(
            "Events, oldest first, or, if the request accepts it, a stream of them.",
            RunEventList,
            LIST_OR_STREAM_TYPES,
        ),
        404: NO_JOB_TEXT,
    },
    query={
        **PAGE_PARAMETERS,
        "after": ParameterSpec(
            "The id of the last event that is known.", {"type": "string", "pattern": "^[0-9]+$"}
        ),
    },
)
async def get_run_events(request: web.Request) -> web.StreamResponse:
    """`phase`, `progress`, `evaluation`, `epoch`, `scorecard`, `done` and `failed`, as
    `events.jsonl` of the job folder has them. With `Accept: text/event-stream` they are streamed as
    they happen, and `job` with the job when its state changes; `Last-Event-ID` resumes a broken
    connection, and `anew` says that all events before are void.
    """
    services = get_services(request)
    page = parse_page_query(request)
    job = require_job(request)
    if EVENT_STREAM_TYPE in request.headers.get("Accept", ""):
        last_id = request.headers.get("Last-Event-ID") or page.after or "0"
        events = stream_run_events(request, job.job_id, _event_position(last_id))
        return await stream_events(request, events)
    start = _event_position(page.after or "0")
    read, is_known = await asyncio.to_thread(
        _event_page, events_file(services.home, job.job_id), start, page.limit
    )
    if not is_known:
        raise Problem(
            "bad-query", f"There is no event {page.after!r}.", "`after` is the id of an event."
        )
    listed = []
    for logged in read.events:
        event = RunEvent(id=str(logged.end), **logged.event.model_dump(mode="json"))
        listed.append(event)
    links = page_links(request, page, str(read.end) if read.more else None)
    return RunEventList(events=listed, links=links).response()


def _event_page(path: Path, start: int, limit: int) -> tuple[run_history.EventBatch, bool]:
    """A page of events, and whether it starts at the end of a line. Raises `Problem` if the file
    cannot be read.
    """
    try:
        return run_history.read_events(path, start, limit), run_history.is_line_end(path, start)
    except OSError as error:
        message = f"The events cannot be read: {error.strerror or error}."
        raise Problem("failed", message, "Check the rights of the job's folder.") from error


def _event_position(text: str) -> int:
    if not EVENT_ID_PATTERN.fullmatch(text):
        raise Problem(
            "bad-query",
            f"There is no event {text[:40]!r}.",
            "It is the id of an event: a whole number.",
        )
    return int(text)
