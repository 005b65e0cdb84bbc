"""Reads data jobs from web requests, and streams their progress."""

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from bot.data.jobs import DataJob
from bot.platform.web_kit.app_context import APP_CONTEXT, get_services
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.sse import stream_events


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
        f"There is no job {job_id!r}.",
        "It may have ended before the bot was started.",
    )


async def stream_job_progress(request: web.Request, job: DataJob) -> web.StreamResponse:
    """Stream a job's state until it has ended."""

    async def changes() -> AsyncIterator[tuple[str, str, Any]]:
        while True:
            changed = job.changed
            yield str(job.seq), "work", {"state": job.state, "said": job.said}
            if not job.is_open:
                return
            await changed.wait()

    return await stream_events(request, changes())
