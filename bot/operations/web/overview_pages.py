"""`/dashboard`: personas and their channels, current training, and alerts."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from aiohttp import web

from bot.operations.web.system_state import PERMISSION_REPORT
from bot.personas.base_model_compat import explain_unserved
from bot.personas.web.lookup import ChannelSummary, channels_by_persona
from bot.platform.errors import redact_paths
from bot.platform.permissions import MissingPermission
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.templating import DASHBOARD, render_page
from bot.services import Services
from bot.store import ALL_GUILDS
from personas.schemas.chat import Persona

DAY_S = 86_400
RECENT_FAILURE_S = 7 * DAY_S
MAX_ALERTS = 20
MAX_SHOWN_PERSONAS = 24
MAX_SHOWN_SERVERS = 50
MAX_SHOWN_JOBS = 50
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
    lacks = await request.app[PERMISSION_REPORT].latest(services.client, services.store)
    alerts = list(islice(list_alerts(services, time.time(), lacks), MAX_ALERTS + 1))
    everybody = services.personas.everybody()
    shown = [persona for _, persona in everybody[:MAX_SHOWN_PERSONAS]]
    guilds = services.client.guilds if services.client else []
    waiting = services.queue.waiting()
    return render_page(
        request,
        "overview.html",
        title="Overview",
        personas=summarise_personas(services, shown),
        persona_count=len(everybody),
        running=jobs.in_state("running"),
        queued=list(enumerate(waiting[:MAX_SHOWN_JOBS], start=1)),
        alerts=alerts[:MAX_ALERTS],
        has_more_alerts=len(alerts) > MAX_ALERTS,
        servers=[guild.name for guild in guilds[:MAX_SHOWN_SERVERS]],
        server_count=len(guilds),
        offer=services.models.offer,
    )


def summarise_personas(services: Services, personas: Sequence[Persona]) -> list[PersonaSummary]:
    channels = channels_by_persona(services, [persona.id for persona in personas])
    training = {job.persona for job in services.store.jobs.in_state("running")}
    summaries = []
    for persona in personas:
        summary = PersonaSummary(
            persona,
            services.served_versions.speaking(persona.id, ALL_GUILDS),
            persona.id in training,
            tuple(channels.get(persona.id, ())),
        )
        summaries.append(summary)
    return summaries


def list_alerts(
    services: Services, now: float, lacks: Sequence[MissingPermission]
) -> Iterator[DashboardAlert]:
    """List what needs attention, most urgent first; `lacks` are the permissions that are
    missing.
    """
    for problem in services.engine.state().problems:
        yield DashboardAlert(
            "bad", "A server computes no replies, or not all.", problem, f"{DASHBOARD}/system"
        )
    yield from _failed_jobs(services, now)
    yield from _incompatible_versions(services)
    for lack in lacks:
        yield DashboardAlert("warn", lack.description, lack.remedy, f"{DASHBOARD}/system")
    yield from _undecided_versions(services)


def _failed_jobs(services: Services, now: float) -> Iterator[DashboardAlert]:
    seen: set[str] = set()
    for job in services.store.jobs.page(MAX_LATEST_JOBS):
        is_latest = job.name not in seen  # a later run of the same has taken its place
        seen.add(job.name)
        if job.state != "failed" or not is_latest:
            continue
        if now - (job.finished_at or now) >= RECENT_FAILURE_S:
            continue
        error = redact_paths(job.error or "", services.home)
        advice = redact_paths(job.advice or "", services.home)
        if job.can_resume:
            advice += " It can go on where it was."
        what = f"The training {job.name} {job.version} failed: {error}"
        yield DashboardAlert("bad", what, advice, f"{DASHBOARD}/training/{job.job_id}")


def _incompatible_versions(services: Services) -> Iterator[DashboardAlert]:
    """Live versions that cannot be served."""
    incompatible = services.served_versions.incompatible
    for persona_id, live in services.store.versions.all_live():
        if model := incompatible.model_of(persona_id, live):
            what, advice = explain_unserved(f"{persona_id} {live}", model)
            path = f"{DASHBOARD}/personas/{persona_id}"
            yield DashboardAlert("bad", f"{what} The base model answers instead.", advice, path)


def _undecided_versions(services: Services) -> Iterator[DashboardAlert]:
    """The newest version of each persona that is neither live nor decided about."""
    for version in services.store.versions.undecided(MAX_ALERTS + 1):
        card = version.scorecard
        says = "may be promoted" if card.verdict == "promote" else "is held: a moderator decides"
        what = f"{version.persona_id} {version.version} {says}."
        path = f"{DASHBOARD}/personas/{version.persona_id}"
        yield DashboardAlert("warn", what, " ".join(card.reasons), path)
