"""`/dashboard`: personas and their channels, current training, and alerts."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from bot import permissions
from bot.doctor.discord_checks import channels_in_use
from bot.errors import redact_paths
from bot.personas.base_model_compat import explain_unserved
from bot.services import Services
from bot.store import ALL_GUILDS, TrainingJob
from bot.web.api.personas.persona_lookup import ChannelSummary, channels_by_persona, guild_ids
from bot.web.app_context import Routes, get_services
from bot.web.templating import DASHBOARD, render_page
from personas.schemas.chat import Persona

DAY_S = 86_400
RECENT_FAILURE_S = 7 * DAY_S
MAX_LATEST_JOBS = 50
"""Jobs that are searched for recent failures."""
routes = Routes()


@dataclass(frozen=True)
class PersonaSummary:
    """A persona, its live version (None: the base model), and its channels."""

    persona: Persona
    version: str | None
    is_training: bool
    channels: tuple[ChannelSummary, ...]


@dataclass(frozen=True)
class DashboardAlert:
    """Something that needs attention: `kind` is "warn" or "bad", `path` leads to details."""

    kind: str
    what: str
    advice: str
    path: str


@routes.add(f"GET {DASHBOARD}")
async def get_overview(request: web.Request) -> web.Response:
    services = get_services(request)
    jobs = services.store.jobs
    return render_page(
        request,
        "overview.html",
        title="Overview",
        personas=list_personas(services),
        running=jobs.in_state("running"),
        queued=[(services.queue.position(job.job_id), job) for job in jobs.in_state("queued")],
        alerts=list(list_alerts(services, time.time())),
        servers=[guild.name for guild in services.client.guilds] if services.client else [],
    )


def list_personas(services: Services) -> list[PersonaSummary]:
    """Every persona of every server, shipped ones first."""
    channels = channels_by_persona(services)
    speaking = partial(services.request_builder.speaking, guild_id=ALL_GUILDS)
    personas = dict(services.personas.of(0))
    for guild_id in sorted(guild_ids(services)):
        personas |= services.personas.of(guild_id)
    training = {job.persona for job in services.store.jobs.in_state("running")}
    return [
        PersonaSummary(one, speaking(id), id in training, tuple(channels.get(id, ()))) for id, one in personas.items()
    ]


def list_alerts(services: Services, now: float) -> Iterator[DashboardAlert]:
    """List what needs attention, most urgent first."""
    yield from _failed_jobs(services, now)
    yield from _incompatible_versions(services)
    yield from _missing_permissions(services)
    yield from _undecided_versions(services)


def _failed_jobs(services: Services, now: float) -> Iterator[DashboardAlert]:
    seen: set[str] = set()
    for job in services.store.jobs.page(MAX_LATEST_JOBS):
        is_latest = job.name not in seen  # a later run of the same has taken its place
        seen.add(job.name)
        if is_latest and job.state == "failed" and now - (job.finished_at or now) < RECENT_FAILURE_S:
            yield _failed_job(services, job)


def _failed_job(services: Services, job: TrainingJob) -> DashboardAlert:
    error, advice = (redact_paths(text or "", services.home) for text in (job.error, job.advice))
    goes_on = " It can go on where it was." if job.can_resume else ""
    path = f"{DASHBOARD}/training/{job.job_id}"
    return DashboardAlert("bad", f"The training {job.name} {job.version} failed: {error}", f"{advice}{goes_on}", path)


def _incompatible_versions(services: Services) -> Iterator[DashboardAlert]:
    """Live versions that cannot be served."""
    request_builder = services.request_builder
    for persona_id, live in services.store.versions.all_live():
        if model := request_builder.incompatible_versions.model_of(persona_id, live):
            what, advice = explain_unserved(f"{persona_id} {live}", model)
            path = f"{DASHBOARD}/personas/{persona_id}"
            yield DashboardAlert("bad", f"{what} The base model answers instead.", advice, path)


def _missing_permissions(services: Services) -> Iterator[DashboardAlert]:
    for guild in services.client.guilds if services.client else ():
        for lack in permissions.find_missing_permissions(guild, channels_in_use(guild, services.store)):
            yield DashboardAlert("warn", lack.description, lack.remedy, f"{DASHBOARD}/system")


def _undecided_versions(services: Services) -> Iterator[DashboardAlert]:
    """The newest version of each persona that is neither live nor decided about."""
    newest = {persona_id: version for persona_id, version, _ in services.store.versions.all_installed()}
    for persona_id, version in newest.items():
        decided = {promotion.version for promotion in services.store.versions.history(persona_id)}
        if version in decided:
            continue
        card = services.store.versions.installed(persona_id)[-1].scorecard
        if card.verdict in ("promote", "hold"):
            says = "may be promoted" if card.verdict == "promote" else "is held: a moderator decides"
            yield DashboardAlert("warn", f"{persona_id} {version} {says}.", " ".join(card.reasons),
                          f"{DASHBOARD}/personas/{persona_id}")  # fmt: skip
