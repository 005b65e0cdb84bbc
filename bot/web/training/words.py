"""What pages say of a job: whose it is, how it stands, why it waits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from bot.house import House
from bot.store import Job
from bot.web.frame import HOME
from bot.web.words import without_places
from personas.contracts import Epoch, Evaluation, Phase, Progress, ScoreCard
from personas.errors import RequestError

TRAINING = f"{HOME}/training"
KINDS = {"running": "", "queued": "", "done": "good", "failed": "bad", "cancelled": "warn"}
NAMED_BY_TIME = re.compile(r"-\d{4}-\d{6}")
"""What `/finetune start` puts behind a persona's id where no name is given."""
VERDICT_KINDS = {"promote": "good", "hold": "warn", "reject": "bad"}


@dataclass(frozen=True)
class Entry:
    """A job as a list shows it. `own_name` is the job's, where it was given one. `seconds` is what it took over all
    its attempts, or has taken up to its last step, `attempt_s` how long the attempt trains that is at it; None where
    that is not known.

    `share` of its steps is done where it trains, else None; `doing` says what it does, or why it waits or failed.
    """

    job: Job
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
    """Where a run's page is."""
    return f"{TRAINING}/{job_id}"


def entry(house: House, job: Job, now: float, doing: str = "", seconds: float | None = None) -> Entry:
    """A job as a list shows it; `doing` instead of what its last word says, `seconds` as `seconds_of` has them."""
    card = scorecard(job)
    verdict = card.verdict if card else ""
    at = job.progress if job.state == "running" else None
    return Entry(
        job,
        run_path(job.job_id),
        KINDS[job.state],
        server_name(house, job.guild_id),
        person_name(house, job.guild_id, job.requested_by),
        own_name(job),
        seconds,
        max(0.0, now - job.started_at) if job.state == "running" and job.started_at else None,
        at.step / at.of if isinstance(at, Progress) and at.of else None,
        doing or without_places(doing_now(job), house.home),
        verdict,
        VERDICT_KINDS.get(verdict, ""),
        f"{card.loss_base:.3f} → {card.loss_tuned:.3f}" if card else "",
    )


def own_name(job: Job) -> str:
    """The name that somebody gave a job; empty where it was named after what it trains."""
    try:
        name = job.request.job_name
    except RequestError:  # stored by another version of the bot
        return ""
    of = job.name.removeprefix("dialogue/")
    return "" if name == of or NAMED_BY_TIME.fullmatch(name.removeprefix(of)) else name


def scorecard(job: Job) -> ScoreCard | None:
    """What was measured of a job's adapter; None where there is none that can be read."""
    try:
        return job.result.scorecard if job.result else None
    except ValidationError:
        return None


def doing_now(job: Job) -> str:
    """The trainer's last word in words, or why the job failed; empty where there is nothing to say."""
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


def server_name(house: House, guild_id: int) -> str:
    """The server of a job by its name, where the bot sees it; jobs of the operator belong to none."""
    if not guild_id:
        return "the operator's"
    guild = house.client.get_guild(guild_id) if house.client else None
    return guild.name if guild else f"server {guild_id}"


def person_name(house: House, guild_id: int, user_id: int) -> str:
    """Who asked for a job, by the name that the bot knows; else by id."""
    if not user_id:
        return "the operator"
    guild = house.client.get_guild(guild_id) if house.client else None
    found = guild.get_member(user_id) if guild else None
    known = found or (house.client.get_user(user_id) if house.client else None)
    return known.display_name if known else f"member {user_id}"


def why_it_waits(house: House, place: int, running: Sequence[Job]) -> str:
    """Why a job that waits does not train; `place` 1 is the next."""
    if house.queue.is_held:
        return "Nothing begins while a member's data are being forgotten."
    before = f"{running[0].name} {running[0].version} trains now; one runs at a time." if running else ""
    if place == 1:
        return before or "It begins now."
    others = "one other is" if place == 2 else f"{place - 1} others are"
    return f"{before} {others.capitalize()} before it; servers take turns.".strip()
