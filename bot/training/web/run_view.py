"""View model of training runs: list items, and their status as text."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web
from pydantic import ValidationError

from bot.personas.web.lookup import guild_name
from bot.platform.discord_kit.member_names import MemberKey, MemberNames
from bot.platform.errors import redact_paths
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.templating import DASHBOARD
from bot.services import Services
from bot.store import TrainingJob
from bot.training.queue import job_state_text
from bot.training.status_text import card_state_text
from bot.versions.web.scorecard_view import VERDICT_CLASSES
from personas.errors import RequestError
from personas.schemas.training_events import Phase, Progress, RunPosition, ScoreSummary

TRAINING_PATH = f"{DASHBOARD}/training"
STATE_CLASSES = {"running": "", "queued": "", "done": "good", "failed": "bad", "cancelled": "warn"}
TIMESTAMP_SUFFIX_PATTERN = re.compile(r"-\d{4}-\d{6}")
"""Suffix that `/finetune start` adds to a persona's id for an unnamed job."""
MAX_OPEN_CARDS = 5
RequesterNames = Mapping[MemberKey, str]
MEMBER_NAMES = web.AppKey("member names", MemberNames)


@dataclass(frozen=True, kw_only=True)
class JobListItem:
    """A job as a list shows it.

    `label` names persona and version, `own_name` is empty unless a member named the job, and
    `review_path`, the page of its written replies, unless it waits for them to be read. `seconds`
    is its duration over all attempts, up to its last step while it runs; `attempt_s` is the
    duration of the running attempt. Either is None if unknown. `at` tells how far it is while it
    runs, `is_late` that it takes longer than it said last. `doing` describes its progress, or why
    it waits or failed. `place` is that in the queue, from 1; 0 for a job that is not in it.
    """

    job: TrainingJob
    label: str
    path: str
    state: str
    kind: str
    review_path: str
    server: str
    person: str
    own_name: str
    seconds: float | None
    attempt_s: float | None
    at: RunPosition | None
    is_late: bool
    doing: str
    verdict: str
    verdict_kind: str
    loss: str
    place: int = 0


@dataclass(frozen=True)
class OpenCard:
    """A finished job whose score card is completed: its label and page, the share that is done (0
    to 1; None while it waits), and this in words.
    """

    label: str
    path: str
    share: float | None
    text: str


def run_path(job_id: str) -> str:
    return f"{TRAINING_PATH}/{job_id}"


def written_path(job_id: str) -> str:
    """Return the page of a run's written replies, below the page of the run."""
    return f"{run_path(job_id)}/written"


async def requester_names(request: web.Request, jobs: Sequence[TrainingJob]) -> RequesterNames:
    """Return the names of the members who requested these jobs."""
    members = [(job.guild_id, job.requested_by) for job in jobs if job.requested_by]
    return await request.app[MEMBER_NAMES].names_of(get_services(request).client, members)


def job_list_item(
    services: Services,
    job: TrainingJob,
    now: float,
    *,
    names: RequesterNames,
    doing: str = "",
    seconds: float | None = None,
    place: int = 0,
) -> JobListItem:
    """Describe a job; `doing` replaces its progress text, `seconds` is as `run_seconds` returns
    it.
    """
    card = read_score_summary(job)
    verdict = card.verdict if card else ""
    attempt_s = None
    if job.state == "running" and job.started_at:
        attempt_s = max(0.0, now - job.started_at)
    return JobListItem(
        job=job,
        label=job_label(services, job),
        path=run_path(job.job_id),
        state=job_state_text(job),
        kind="" if job.waits_for_review else STATE_CLASSES[job.state],
        review_path=written_path(job.job_id) if job.waits_for_review else "",
        server=job_guild_name(services, job.guild_id),
        person=names.get((job.guild_id, job.requested_by), "the operator"),
        own_name=given_job_name(job),
        seconds=seconds,
        attempt_s=attempt_s,
        at=job.progress if job.state == "running" else None,
        is_late=services.queue.is_late(job.job_id),
        doing=doing or redact_paths(progress_text(job), services.home),
        verdict=verdict,
        verdict_kind=VERDICT_CLASSES.get(verdict, ""),
        loss=f"{card.loss_base:.3f} → {card.loss_tuned:.3f}" if card else "",
        place=place,
    )


def list_queued(
    services: Services, jobs: Sequence[TrainingJob], now: float, *, names: RequesterNames
) -> list[JobListItem]:
    """Describe the next jobs of the queue, each with the reason that it waits."""
    running = services.store.jobs.in_state("running")
    queued = []
    for place, job in enumerate(jobs, start=1):
        reason = waiting_reason(services, place, running)
        queued.append(job_list_item(services, job, now, names=names, doing=reason, place=place))
    return queued


def list_open_cards(services: Services) -> list[OpenCard]:
    """List the score cards that are completed in the background, oldest first."""
    cards = []
    for job in services.store.jobs.open_cards()[:MAX_OPEN_CARDS]:
        at = job.card_progress
        share = at.share if isinstance(at, Phase) and job.card_state == "running" else None
        text = redact_paths(card_state_text(job), services.home)
        cards.append(OpenCard(job_label(services, job), run_path(job.job_id), share, text))
    return cards


def job_label(services: Services, job: TrainingJob) -> str:
    """Persona and version, such as "Ballast v3"."""
    owned = services.personas.find_owner(job.persona or "")
    return f"{owned[1].name if owned else job.name} {job.version}"


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
    """What a run does in its phase, or why the job failed; empty if there is neither."""
    if job.state == "failed":
        return job.error or ""
    if job.state != "running":
        return ""
    match job.progress:
        case Progress() as at:
            return f"step {at.step:,} of {at.of:,}, loss {at.loss:.3f}"
        case Phase() as at:
            return at.detail
    return "starting"


def job_guild_name(services: Services, guild_id: int) -> str:
    """Name of a job's server, if the bot sees it; the operator's jobs belong to none."""
    if guild_id:
        return guild_name(services, guild_id)
    return "the operator's"


def waiting_reason(services: Services, place: int, running: Sequence[TrainingJob]) -> str:
    """Explain why a queued job has not started; `place` 1 is the next."""
    if services.queue.is_held:
        return "Nothing begins while a member's data are being forgotten."
    before = ""
    if running:
        before = f"{job_label(services, running[0])} is in training; one runs at a time."
    if place == 1:
        return before or "It is the next to begin; servers take turns."
    others = (
        "One other is before it; servers take turns."
        if place - 1 == 1
        else f"{place - 1} others are before it; servers take turns."
    )
    return f"{before} {others}" if before else others
