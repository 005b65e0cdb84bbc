"""`GET /finetune/jobs`, `GET /finetune/jobs/ID`, `POST /finetune/jobs/ID/cancel` and `…/resume`."""

from __future__ import annotations

from urllib.parse import urlencode

from aiohttp import web

from bot.house import House
from bot.store import Job
from bot.web.here import house_of
from bot.web.job_json import job_json
from bot.web.problems import Problem

PAGE, LONGEST_PAGE = 25, 100
LARGEST_ID = 2**63 - 1
KNOWN = ("guild", "limit", "after")


async def get_jobs(request: web.Request) -> web.Response:
    """A page of jobs, newest first; `links.next` leads to the older ones."""
    house = house_of(request)
    if unknown := sorted(set(request.query) - set(KNOWN)):
        raise Problem("bad-query", f"There is no {unknown[0]!r} to ask by.", f"Known: {', '.join(KNOWN)}.")
    guild, limit = _number(request, "guild", 0, LARGEST_ID), _number(request, "limit", 1, LONGEST_PAGE) or PAGE
    after = _job(house, request.query["after"]) if "after" in request.query else None
    found = house.store.jobs.page(limit + 1, guild_id=guild, after=after)
    links = {"self": request.path_qs}
    if len(found) > limit:
        asked = {"limit": limit, "after": found[limit - 1].job_id} | ({} if guild is None else {"guild": guild})
        links["next"] = f"{request.path}?{urlencode(asked)}"
    return web.json_response({"jobs": [job_json(house, job) for job in found[:limit]], "links": links})


async def get_job(request: web.Request) -> web.Response:
    """One job: its state, the trainer's last word, what came of it."""
    house = house_of(request)
    return web.json_response(job_json(house, _job(house, request.match_info["job_id"])))


async def cancel_job(request: web.Request) -> web.Response:
    """End a job that waits or trains. Raises `Problem` for one that has ended."""
    house = house_of(request)
    job = _job(house, request.match_info["job_id"])
    return web.json_response(job_json(house, house.queue.cancel(job.job_id)))


async def resume_job(request: web.Request) -> web.Response:
    """Go on with a job that failed for a reason that has been mended. Raises `Problem` for any other."""
    house = house_of(request)
    job = _job(house, request.match_info["job_id"])
    return web.json_response(job_json(house, house.queue.resume(job.job_id)))


def _job(house: House, job_id: str) -> Job:
    job = house.store.jobs.get(job_id)
    if job is None:
        raise Problem("not-found", f"There is no job {job_id!r}.", "GET /finetune/jobs lists those that there are.")
    return job


def _number(request: web.Request, name: str, low: int, high: int) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(high)) and low <= int(text) <= high):
        raise Problem("bad-query", f"{name} is {text!r}.", f"It is a whole number from {low} to {high}.")
    return int(text)


ROUTES = (
    ("GET", "/finetune/jobs", get_jobs),
    ("GET", "/finetune/jobs/{job_id}", get_job),
    ("POST", "/finetune/jobs/{job_id}/cancel", cancel_job),
    ("POST", "/finetune/jobs/{job_id}/resume", resume_job),
)
