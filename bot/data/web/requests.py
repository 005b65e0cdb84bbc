"""Reads data jobs and searches from web requests, and streams the progress of jobs."""

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from bot.data.jobs import DataJob
from bot.data.sample_index import SPLITS, SampleQuery
from bot.data.web.schemas import DataJobResponse
from bot.platform.localisation import gettext_lazy
from bot.platform.web_kit.app_context import APP_CONTEXT, get_services
from bot.platform.web_kit.paging import enum_query, integer_query
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.sse import stream_events

MAX_QUERY_CHARS = 200
MAX_SAMPLE_NUMBER = 2**53
SAMPLES_PER_PAGE = 20


def close_jobs_with(app: web.Application) -> None:
    """End data jobs when the application ends."""

    async def close(app: web.Application) -> None:
        if services := app[APP_CONTEXT].services:
            await services.data_jobs.close()

    app.on_shutdown.append(close)


def require_job(request: web.Request) -> DataJob:
    """Return the data job of the address. Raises `Problem`."""
    job_id = request.match_info["work_id"]
    if job := get_services(request).data_jobs.find(job_id):
        return job
    raise Problem(
        "not-found",
        gettext_lazy("There is no job {job_id!r}.", job_id=job_id),
        gettext_lazy("It may have ended before the bot was started."),
    )


async def stream_job_progress(request: web.Request, job: DataJob) -> web.StreamResponse:
    """Stream a job's state until it has ended."""

    async def changes() -> AsyncIterator[tuple[str, str, Any]]:
        while True:
            changed = job.changed
            yield str(job.seq), "work", DataJobResponse.of(job).as_json()
            if not job.is_open:
                return
            await changed.wait()

    return await stream_events(request, changes())


SAMPLE_FILTERS = ("query", "split", "source", "talk", "reason")
"""Query parameters that select samples."""


def parse_sample_query(request: web.Request, limit: int = SAMPLES_PER_PAGE) -> SampleQuery:
    texts = {}
    for name in ("query", "source", "talk", "reason"):
        texts[name] = request.query.get(name, "")[:MAX_QUERY_CHARS]
    side = enum_query(request, "split", ("", *SPLITS)) or ""
    after = integer_query(request, "after", 0, MAX_SAMPLE_NUMBER)
    if after is None:
        after = -1  # samples are numbered from 0
    return SampleQuery(**texts, side=side, after=after, limit=limit)
