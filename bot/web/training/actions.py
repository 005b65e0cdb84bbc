"""What is done to a run from its page: cancel it, let it go on."""

from __future__ import annotations

from aiohttp import web

from bot.web.frame import back_to
from bot.web.here import Route, house_of
from bot.web.jobs import job_named
from bot.web.training.words import TRAINING, run_path


async def cancel(request: web.Request) -> web.Response:
    """End a run that waits or trains. Raises `QueueConflictError` for one that has ended."""
    house = house_of(request)
    job = house.queue.cancel(job_named(house, request.match_info["job_id"]).job_id)
    return back_to(request, run_path(job.job_id), f"{job.name} {job.version} is cancelled.")


async def resume(request: web.Request) -> web.Response:
    """Go on with a run that failed. Raises an `UnderstudyError` for one that cannot."""
    house = house_of(request)
    job = house.queue.resume(job_named(house, request.match_info["job_id"]).job_id)
    return back_to(request, run_path(job.job_id), f"{job.name} {job.version} waits again, and goes on where it was.")


ROUTES: tuple[Route, ...] = (
    ("POST", f"{TRAINING}/{{job_id}}/cancel", cancel),
    ("POST", f"{TRAINING}/{{job_id}}/resume", resume),
)
