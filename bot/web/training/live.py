"""What happens to a run, and to all of them, as it happens: for pages, and for programs that follow along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

from aiohttp import web

from bot.house import House
from bot.queue import JobQueue
from bot.store import Job, JobState
from bot.web.events import Item
from bot.web.here import TENANT
from bot.web.job_json import OPEN, job_json
from bot.web.training.journal import EVENTS, Read, read_from
from bot.web.training.record import folder_of

LOOK_EVERY_S = 1.0
"""The bot hears of an event a moment before it is in the file; so the file is looked at without being told, too."""


async def happenings(request: web.Request, job_id: str, start: int) -> AsyncIterator[Item]:
    """All that a run has told after a byte of its events, and goes on to tell, until it has ended.

    Each event's id is the byte at which it ends, and its name the event's kind. `job` is the job itself, at first and
    whenever its state or place changes; `anew` says that what was told before is void and comes again.
    """
    at = start
    shown: tuple[JobState, int | None] | None = None
    with _changes(_queue(request)) as changed:
        while (house := request.app[TENANT].house) and (job := house.store.jobs.get(job_id)):
            changed.clear()
            read = await _read(house, job_id, at)
            at = read.end
            for item in _told(read):
                yield item
            now = (job.state, house.queue.position(job_id))
            if now != shown and not read.more:
                yield str(at), "job", job_json(house, job)
                shown = now
            if read.more:
                continue
            if job.state not in OPEN:  # it was looked at before the file was, to which nothing is added any more
                return
            await _next(changed)


async def all_changes(request: web.Request) -> AsyncIterator[Item]:
    """Every job as it changes, progress included; at first all that wait or train. Ids only count."""
    number = 0
    changed_jobs: dict[str, None] = {}
    with _changes(_queue(request), changed_jobs) as changed:
        if house := request.app[TENANT].house:
            changed_jobs |= {job.job_id: None for state in OPEN for job in house.store.jobs.in_state(state)}
        while house := request.app[TENANT].house:
            changed.clear()
            jobs = [house.store.jobs.get(job_id) for job_id in changed_jobs]
            changed_jobs.clear()
            for job in filter(None, jobs):
                number += 1
                yield str(number), "job", job_json(house, job)
            await _next(changed)


def _told(read: Read) -> Iterator[Item]:
    if read.anew:
        yield "0", "anew", {}
    for told in read.told:
        yield str(told.end), told.event.event, told.event.model_dump(mode="json")


async def _read(house: House, job_id: str, at: int) -> Read:
    try:
        return await asyncio.to_thread(read_from, folder_of(house.home, job_id) / EVENTS, at)
    except OSError:  # nothing can be read of it now
        return Read(end=at)


async def _next(changed: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK_EVERY_S):
            await changed.wait()


def _queue(request: web.Request) -> JobQueue | None:
    house = request.app[TENANT].house
    return house.queue if house else None


@contextmanager
def _changes(queue: JobQueue | None, noted: dict[str, None] | None = None) -> Iterator[asyncio.Event]:
    """Set whenever a job changes; its id is noted."""
    changed = asyncio.Event()

    def note(job: Job) -> None:
        if noted is not None:
            noted[job.job_id] = None
        changed.set()

    if queue is None:
        yield changed
        return
    queue.subscribe(note)
    try:
        yield changed
    finally:
        queue.unsubscribe(note)
