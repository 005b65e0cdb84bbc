"""A training job as the API shows it: without who asked for it, and without the folders of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from bot.house import House
from bot.served import notes_on
from bot.store import Job, JobResult, JobState
from bot.web.words import moment, without_places
from personas.contracts import TrainingRequest
from personas.errors import RequestError

OPEN: tuple[JobState, ...] = ("queued", "running")

TEXT: dict[str, Any] = {"type": ["string", "null"]}
OBJECT: dict[str, Any] = {"type": ["object", "null"], "additionalProperties": True}
JOB: dict[str, Any] = {
    "type": "object",
    "title": "Job",
    "required": ["job_id", "state", "name", "version", "links"],
    "properties": {
        "job_id": {"type": "string"},
        "state": {"enum": list(get_args(JobState))},
        "place": {"type": ["integer", "null"], "description": "In the queue; 1 is the next."},
        "guild": {"type": "string", "description": "The server; 0 for the operator's own jobs."},
        "name": {"type": "string", "description": "The persona's id, or `dialogue/` and the job's name."},
        "persona": TEXT,
        "version": {"type": "string"},
        "versions": {**OBJECT, "description": "Which versions the persona has, and which speaks."},
        "request": {**OBJECT, "description": "What was asked for; null where it cannot be read."},
        "notes": {"type": "array", "items": {"type": "string"}},
        "attempt": {"type": "integer"},
        **{name: {**TEXT, "description": "ISO 8601, in UTC."} for name in ("queued_at", "started_at", "finished_at")},
        "progress": {**OBJECT, "description": "The trainer's last word."},
        "result": {**OBJECT, "description": "Adapter, seconds and score card of a job that is done."},
        "error": TEXT,
        "advice": TEXT,
        "links": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
"""The object as OpenAPI describes it."""


def job_path(job_id: str) -> str:
    """Where a job is asked for."""
    return f"/finetune/jobs/{job_id}"


def job_json(house: House, job: Job, places: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The published object. Ids of Discord are text: they are longer than JSON's numbers may be.

    `places` are those in the queue, of a list of jobs: see `places_in`.
    """
    request = _request(job)
    place = house.queue.position(job.job_id) if places is None else places.get(job.job_id)
    return {
        "job_id": job.job_id,
        "state": job.state,
        "place": place,
        "guild": str(job.guild_id),
        "name": job.name,
        "persona": job.persona,
        "version": job.version,
        "versions": _versions(house, job),
        "request": _shown(house, request) if request else None,
        "notes": [without_places(note, house.home) for note in notes_on(request, house.base_model)] if request else [],
        "attempt": job.attempt,
        "queued_at": moment(job.queued_at),
        "started_at": moment(job.started_at),
        "finished_at": moment(job.finished_at),
        "progress": job.progress.model_dump(mode="json") if job.progress else None,
        "result": _result(house.home, job),
        "error": without_places(job.error, house.home) if job.error else None,
        "advice": without_places(job.advice, house.home) if job.advice else None,
        "links": _links(job),
    }


def places_in(house: House) -> dict[str, int]:
    """The place of each job that waits; 1 is the next."""
    return {job.job_id: place for place, job in enumerate(house.queue.order(), start=1)}


def _links(job: Job) -> dict[str, str]:
    """Where it and what it tells are, and what can be done to it now."""
    path = job_path(job.job_id)
    can = {"events": True, "curves": True, "log": True, "cancel": job.state in OPEN, "resume": job.can_resume}
    return {"self": path} | {what: f"{path}/{what}" for what, possible in can.items() if possible}


def _request(job: Job) -> TrainingRequest | None:
    try:
        return job.request
    except RequestError:  # stored by another version of the bot; `error` says so once it was its turn
        return None


def _shown(house: House, request: TrainingRequest) -> dict[str, Any]:
    shown = request.model_dump(mode="json", exclude_none=True)
    return {key: without_places(value, house.home) if isinstance(value, str) else value for key, value in shown.items()}


def _versions(house: House, job: Job) -> dict[str, Any] | None:
    """Which versions of the persona there are, and which speaks."""
    if job.persona is None:
        return None
    versions = house.store.versions
    return {
        "live": versions.live(job.persona),
        "installed": [version.version for version in versions.installed(job.persona)],
    }


def _result(home: Path, job: Job) -> dict[str, Any] | None:
    try:
        result: JobResult | None = job.result
    except ValidationError:
        return None
    if result is None:
        return None
    adapter = Path(result.adapter)
    place = adapter.relative_to(home) if adapter.is_relative_to(home) else Path(adapter.name)
    scorecard = result.scorecard.model_dump(mode="json")
    return {"adapter": place.as_posix(), "seconds": result.seconds, "scorecard": scorecard}
