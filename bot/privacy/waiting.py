"""Jobs that wait, or that somebody may resume, have a folder already: where its material is no longer right, it is
made anew.
"""

from __future__ import annotations

from pathlib import Path

from bot.history import HISTORY
from bot.privacy.files import delete
from bot.store import Job, Store


def make_anew(home: Path, store: Store) -> None:
    """Delete the folders of all these jobs; each is written again, from what may be taken then. Raises `OSError`."""
    for job in _waiting(store):
        delete(home / "jobs" / job.job_id)


def make_history_anew(home: Path, store: Store) -> None:
    """The same for those jobs only that hold what was said: a message was edited or deleted. Raises `OSError`."""
    for job in _waiting(store):
        if _takes_history(job):
            delete(home / "jobs" / job.job_id)


def _waiting(store: Store) -> list[Job]:
    return [*store.jobs.in_state("queued"), *store.jobs.resumable()]


def _takes_history(job: Job) -> bool:
    return f'"dataset":"{HISTORY}"' in job.request_json.replace(" ", "")
