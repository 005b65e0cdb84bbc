"""Options that choose a job, for the commands of `/finetune`."""

from bot.store import TrainingJob
from personas.errors import RequestError


def job_labels(jobs: list[TrainingJob]) -> dict[str, str]:
    """Map the label of each job, as a member reads it, to its id."""
    return {f"{job.name} {job.version} · {job.state} · {job.job_id}": job.job_id for job in jobs}


def select_job(jobs: list[TrainingJob], wanted: str | None, what: str) -> TrainingJob:
    """The first of these jobs, or the one with this id or name. Raises `RequestError`."""
    for job in jobs:
        if wanted in (None, job.job_id, job.name):
            return job
    if not jobs:
        raise RequestError(f"There is no {what}.", "`/finetune status` lists all jobs.")
    known = ", ".join(f"{job.name} (`{job.job_id}`)" for job in jobs)
    raise RequestError(f"There is no such {what}.", f"There are: {known}.")
