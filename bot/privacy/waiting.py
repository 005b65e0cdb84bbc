"""Jobs that wait to be taken up again have a folder already: where its material is no longer right, it is made anew."""

from __future__ import annotations

from pathlib import Path

from bot.history import HISTORY
from bot.privacy.files import delete
from bot.store import Job, Store


def make_anew(home: Path, store: Store) -> None:
    """Delete the folders of all waiting jobs; each is written again, from what may be taken then. Raises `OSError`."""
    for job in store.jobs.in_state("queued"):
        delete(home / "jobs" / job.job_id)


def make_history_anew(home: Path, store: Store) -> None:
    """The same for those jobs only that hold what was said: a message was edited or deleted. Raises `OSError`."""
    for job in store.jobs.in_state("queued"):
        if _takes_history(job):
            delete(home / "jobs" / job.job_id)


def _takes_history(job: Job) -> bool:
    return f'"dataset":"{HISTORY}"' in job.request_json.replace(" ", "")
