"""Options that choose a job, for the commands of `/finetune`."""

from bot.platform.discord_kit.transformers import Interaction
from bot.platform.localisation import gettext_lazy, localise
from bot.store import TrainingJob
from bot.training.queue import job_state_text
from personas.errors import RequestError


def job_labels(interaction: Interaction, jobs: list[TrainingJob]) -> dict[str, str]:
    """Map the label of each job, as a member reads it, to its id."""
    personas = interaction.client.services.personas
    labels = {}
    for job in jobs:
        state = localise(job_state_text(job))
        name = personas.name_of(job.name, job.guild_id)
        labels[f"{name} {job.version} · {state} · {job.job_id}"] = job.job_id
    return labels


def select_job(
    jobs: list[TrainingJob], wanted: str | None, *, none: str, none_such: str
) -> TrainingJob:
    """The first of these jobs, or the one with this id or name. Raises `RequestError` with `none`
    where there are no jobs, with `none_such` where none is wanted.
    """
    for job in jobs:
        if wanted in (None, job.job_id, job.name):
            return job
    if not jobs:
        raise RequestError(none, gettext_lazy("`/finetune status` lists all jobs."))
    known = ", ".join(f"{job.name} (`{job.job_id}`)" for job in jobs)
    raise RequestError(none_such, gettext_lazy("There are: {jobs}.", jobs=known))
