"""What a run tells, over HTTP: its events as a list or as they come, its curves; and every job as it changes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from bot.web.events import stream
from bot.web.here import Route, house_of
from bot.web.job_json import job_json, job_path, places_in
from bot.web.jobs import JOBS, NO_JOB, TAG, job_named
from bot.web.openapi import Answer, Param, described
from bot.web.paging import PAGED, links, paged, require_known
from bot.web.problems import Problem
from bot.web.training.course import DEFAULT_SMOOTHING, MOST_SMOOTHING, Course, formula, smoothed
from bot.web.training.journal import EVENTS, Read, is_line_end, read_from
from bot.web.training.live import all_changes, happenings
from bot.web.training.pages import smoothing_of
from bot.web.training.record import folder_of, log_tail, record_of

EVENT_STREAM = "text/event-stream"
NUMBER = re.compile(r"[0-9]{1,15}")
BOTH = ("application/json", EVENT_STREAM)
TOLD: dict[str, Any] = {
    "type": "object",
    "required": ["events", "links"],
    "properties": {
        "events": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "event"],
                "properties": {"id": {"type": "string"}, "event": {"type": "string"}},
            },
        },
        "links": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


@described(
    "What a run told",
    {200: Answer("Events, oldest first; or, where the request accepts it, a stream of them.", TOLD, BOTH), 404: NO_JOB},
    tag=TAG,
    query={
        **PAGED,
        "after": Param("The id of the last event that is known.", {"type": "string", "pattern": "^[0-9]+$"}),
    },
)
async def get_events(request: web.Request) -> web.StreamResponse:
    """`phase`, `progress`, `evaluation`, `epoch`, `scorecard`, `done` and `failed`, as `events.jsonl` of the job folder
    has them. With `Accept: text/event-stream` they come as they happen, and `job` with the job when its state changes;
    a connection that broke is taken up by `Last-Event-ID`, and `anew` says that all before is void.
    """
    house, asked = house_of(request), paged(request)
    job = job_named(house, request.match_info["job_id"])
    if EVENT_STREAM in request.headers.get("Accept", ""):
        known = request.headers.get("Last-Event-ID") or asked.after or "0"
        return await stream(request, happenings(request, job.job_id, _place(known)))
    read, is_known = await asyncio.to_thread(
        _page_of, folder_of(house.home, job.job_id) / EVENTS, _place(asked.after or "0"), asked.limit
    )
    if not is_known:
        raise Problem("bad-query", f"There is no event {asked.after!r}.", "`after` is the id of an event.")
    events = [{"id": str(told.end), **told.event.model_dump(mode="json")} for told in read.told]
    return web.json_response({"events": events, "links": links(request, asked, str(read.end) if read.more else None)})


def _page_of(path: Path, start: int, limit: int) -> tuple[Read, bool]:
    """A page of events, and whether its beginning is one. Raises `Problem` where the file cannot be read."""
    try:
        return read_from(path, start, limit), is_line_end(path, start)
    except OSError as error:
        why = error.strerror or str(error)
        raise Problem(
            "failed", f"The events cannot be read: {why}.", "Check the rights of the job's folder."
        ) from error


def _place(text: str) -> int:
    if not NUMBER.fullmatch(text):
        raise Problem("bad-query", f"There is no event {text[:40]!r}.", "It is the id of an event: a whole number.")
    return int(text)


@described(
    "The curves of a run",
    {200: "Losses and learning rate by step, held-out losses, epochs; what all took.", 404: NO_JOB},
    tag=TAG,
    query={
        "smoothing": Param(
            f"What a loss is worth of the next one in the smoothed curve; {DEFAULT_SMOOTHING} if left out.",
            {"type": "number", "minimum": 0, "maximum": MOST_SMOOTHING},
        )
    },
)
async def get_curves(request: web.Request) -> web.Response:
    """Every step that was told, raw and smoothed: where a run went on from a checkpoint, what it told last."""
    require_known(request, "smoothing")
    house = house_of(request)
    job, weight = job_named(house, request.match_info["job_id"]), smoothing_of(request)
    record = await asyncio.to_thread(record_of, house.home, job)
    took, settings = record.took, record.settings
    return web.json_response(
        {
            "job": job_path(job.job_id),
            **_curves(record.course, weight),
            "seconds": took.seconds,
            "peak_bytes": took.peak_bytes,
            "memory_share": took.share,
            "memory_of": took.device or None,
            "settings": dict(settings.values),
            "settings_from": settings.known_from,
        }
    )


def _curves(course: Course, weight: float) -> dict[str, Any]:
    losses, held_out = [it.loss for it in course.steps], course.heldout
    return {
        "steps": [it.step for it in course.steps],
        "train_loss": losses,
        "train_loss_smoothed": smoothed(losses, weight),
        "learning_rate": [it.lr for it in course.steps],
        "tokens_per_s": [it.tokens_per_s for it in course.steps],
        "memory_bytes": [it.memory_bytes for it in course.steps],
        "heldout_steps": [step for step, _ in held_out],
        "heldout_loss": [loss for _, loss in held_out],
        "heldout_loss_smoothed": smoothed([loss for _, loss in held_out], weight),
        "smoothing": weight,
        "formula": formula(weight),
        "epochs": _dumped(course.epochs),
        "evaluations": _dumped(course.evaluations),
    }


def _dumped(events: Sequence[Any]) -> list[dict[str, Any]]:
    return [event.model_dump(mode="json", exclude={"event"}) for event in events]


@described(
    "The trainer's log",
    {200: Answer("Its last lines, without the folders of the machine; empty where there is none.", media="text/plain"),
     404: NO_JOB},
    tag=TAG,
)  # fmt: skip
async def get_log(request: web.Request) -> web.Response:
    """What the run's trainer wrote on standard error, over all its attempts."""
    require_known(request)
    house = house_of(request)
    job = job_named(house, request.match_info["job_id"])
    return web.Response(text=await asyncio.to_thread(log_tail, house.home, job.job_id), content_type="text/plain")


@described(
    "What trains and waits, and every change",
    {200: Answer("All jobs that train or wait; or, where the request accepts it, a stream of `job`.", JOBS, BOTH)},
    tag=TAG,
)
async def get_changes(request: web.Request) -> web.StreamResponse:
    """The stream tells a job whenever it changes. It begins with all that train or wait, also after a connection that
    broke: states are told, not what led to them.
    """
    require_known(request)
    house = house_of(request)
    if EVENT_STREAM in request.headers.get("Accept", ""):
        return await stream(request, all_changes(request))
    found = [*house.store.jobs.in_state("running"), *house.queue.order()]
    places = places_in(house)
    return web.json_response({"jobs": [job_json(house, job, places) for job in found], "links": {"self": request.path}})


ROUTES: tuple[Route, ...] = (
    ("GET", "/finetune/events", get_changes),
    ("GET", "/finetune/jobs/{job_id}/events", get_events),
    ("GET", "/finetune/jobs/{job_id}/curves", get_curves),
    ("GET", "/finetune/jobs/{job_id}/log", get_log),
)
