"""View model of training runs: list items, and their status as text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from bot.personas.web.lookup import guild_name
from bot.platform.errors import redact_paths
from bot.platform.web_kit.templating import DASHBOARD
from bot.services import Services
from bot.store import TrainingJob
from bot.versions.web.scorecard_view import VERDICT_CLASSES
from personas.errors import RequestError
from personas.schemas.training_events import Epoch, Evaluation, Phase, Progress, ScoreSummary

TRAINING_PATH = f"{DASHBOARD}/training"
STATE_CLASSES = {"running": "", "queued": "", "done": "good", "failed": "bad", "cancelled": "warn"}
TIMESTAMP_SUFFIX_PATTERN = re.compile(r"-\d{4}-\d{6}")
"""Suffix that `/finetune start` adds to a persona's id for an unnamed job."""


@dataclass(frozen=True, kw_only=True)
class JobListItem:
    """A job as a list shows it.

    `own_name` is empty unless a member named the job. `seconds` is its duration over all attempts,
    up to its last step while it runs; `attempt_s` is the duration of the running attempt. Either is
    None if unknown. `share` is the share of steps done while it runs, else None. `doing` describes
    its progress, or why it waits or failed.
    """

    job: TrainingJob
    path: str
    kind: str
    server: str
    person: str
    own_name: str
    seconds: float | None
    attempt_s: float | None
    share: float | None
    doing: str
    verdict: str
    verdict_kind: str
    loss: str


def run_path(job_id: str) -> str:
    return f"{TRAINING_PATH}/{job_id}"


def job_list_item(
    services: Services, job: TrainingJob, now: float, doing: str = "", seconds: float | None = None
) -> JobListItem:
    """Describe a job; `doing` replaces its progress text, `seconds` is as `run_seconds` returns
    it.
    """
    card = read_score_summary(job)
    verdict = card.verdict if card else ""
    attempt_s = None
    share = None
    if job.state == "running":
        if job.started_at:
            attempt_s = max(0.0, now - job.started_at)
        if isinstance(job.progress, Progress) and job.progress.of:
            share = job.progress.step / job.progress.of
    return JobListItem(
        job=job,
        path=run_path(job.job_id),
        kind=STATE_CLASSES[job.state],
        server=job_guild_name(services, job.guild_id),
        person=requester_name(services, job.guild_id, job.requested_by),
        own_name=given_job_name(job),
        seconds=seconds,
        attempt_s=attempt_s,
        share=share,
        doing=doing or redact_paths(progress_text(job), services.home),
        verdict=verdict,
        verdict_kind=VERDICT_CLASSES.get(verdict, ""),
        loss=f"{card.loss_base:.3f} → {card.loss_tuned:.3f}" if card else "",
    )


def given_job_name(job: TrainingJob) -> str:
    """The name a member gave a job; empty for a default name."""
    try:
        name = job.request.job_name
    except RequestError:  # stored by another version of the bot
        return ""
    default = job.name.removeprefix("dialogue/")
    if name == default or TIMESTAMP_SUFFIX_PATTERN.fullmatch(name.removeprefix(default)):
        return ""
    return name


def read_score_summary(job: TrainingJob) -> ScoreSummary | None:
    """Score summary of a job's adapter; None if there is no readable one."""
    try:
        result = job.result
    except ValidationError:
        return None
    if result and result.scorecard.is_measured:
        return result.scorecard
    return None


def progress_text(job: TrainingJob) -> str:
    """The trainer's last event as text, or why the job failed; empty if there is neither."""
    if job.state == "failed":
        return job.error or ""
    if job.state != "running":
        return ""
    match job.progress:
        case Progress() as at:
            return f"step {at.step:,} of {at.of:,}, loss {at.loss:.3f}"
        case Epoch() as at:
            return f"epoch {at.passes} done"
        case Evaluation() as at:
            return f"held-out replies measured after step {at.step:,}"
        case Phase() as at:
            return f"{at.name}: {at.detail}" if at.detail else at.name
    return "starting"


def job_guild_name(services: Services, guild_id: int) -> str:
    """Name of a job's server, if the bot sees it; the operator's jobs belong to none."""
    if guild_id:
        return guild_name(services, guild_id)
    return "the operator's"


def requester_name(services: Services, guild_id: int, user_id: int) -> str:
    if not user_id:
        return "the operator"
    client = services.client
    if client is None:
        return f"member {user_id}"
    guild = client.get_guild(guild_id)
    member = guild.get_member(user_id) if guild else None
    person = member or client.get_user(user_id)
    return person.display_name if person else f"member {user_id}"


def waiting_reason(services: Services, place: int, running: Sequence[TrainingJob]) -> str:
    """Explain why a queued job has not started; `place` 1 is the next."""
    if services.queue.is_held:
        return "Nothing begins while a member's data are being forgotten."
    before = ""
    if running:
        before = f"{running[0].name} {running[0].version} trains now; one runs at a time."
    if place == 1:
        return before or "It begins now."
    others = "one other is" if place == 2 else f"{place - 1} others are"
    return f"{before} {others.capitalize()} before it; servers take turns.".strip()
