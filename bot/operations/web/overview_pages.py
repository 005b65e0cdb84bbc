"""`/dashboard`: personas and their channels, current training, and alerts."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from aiohttp import web

from bot.operations.web.system_state import PERMISSION_REPORT
from bot.personas.base_model_compat import explain_unserved
from bot.personas.web.lookup import (
    ChannelSummary,
    OwnedPersona,
    SpokenVersion,
    channels_by_persona,
    spoken_versions,
)
from bot.platform.errors import redact_paths
from bot.platform.permissions import MissingPermission
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.templating import DASHBOARD, render_page
from bot.services import Services
from bot.store import InstalledVersion
from bot.training.web.run_details import run_seconds
from bot.training.web.run_view import (
    JobListItem,
    job_list_item,
    list_open_cards,
    list_queued,
    requester_names,
    run_path,
    written_path,
)
from personas.schemas.chat import Persona

DAY_S = 86_400
RECENT_FAILURE_S = 7 * DAY_S
MAX_ALERTS = 20
MAX_SHOWN_PERSONAS = 24
MAX_SHOWN_SERVERS = 50
MAX_SHOWN_JOBS = 50
MAX_DECISIONS = 5
MAX_LATEST_JOBS = 50
"""Jobs that are searched for recent failures."""
READ_FIRST_TEXT = "Change them, or strike them out. Then Resume trains on what is left."
routes = Routes()


@dataclass(frozen=True)
class PersonaSummary:
    """A persona, the versions that answer, and its channels."""

    owned: OwnedPersona
    spoken: tuple[SpokenVersion, ...]
    is_training: bool
    channels: tuple[ChannelSummary, ...]


@dataclass(frozen=True)
class PendingDecision:
    """A version that waits for a person: the gate would promote it, or leaves it to them."""

    owned: OwnedPersona
    installed: InstalledVersion

    @property
    def is_recommended(self) -> bool:
        return self.installed.scorecard.verdict == "promote"

    @property
    def path(self) -> str:
        """Address of its promotion."""
        return f"{self.owned.page}/versions/{self.installed.version}/promote"

    @property
    def card_path(self) -> str:
        return f"{DASHBOARD}/cards/{self.owned.id}/{self.installed.version}"


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
    lacks = await request.app[PERMISSION_REPORT].latest(services.client, services.store)
    alerts = list(islice(list_alerts(services, time.time(), lacks), MAX_ALERTS + 1))
    everybody = services.personas.everybody()
    guilds = services.client.guilds if services.client else []
    running, queued = await _open_jobs(request, services)
    undecided = _undecided_personas(services)
    decisions = list(pending_decisions(services, undecided[:MAX_DECISIONS]))
    return render_page(
        request,
        "overview.html",
        title="Overview",
        personas=_summarise_personas(services, everybody[:MAX_SHOWN_PERSONAS]),
        persona_count=len(everybody),
        running=running,
        queued=queued,
        open_cards=list_open_cards(services),
        decisions=decisions,
        more_decisions=len(undecided) - len(decisions),
        alerts=alerts[:MAX_ALERTS],
        has_more_alerts=len(alerts) > MAX_ALERTS,
        servers=[guild.name for guild in guilds[:MAX_SHOWN_SERVERS]],
        server_count=len(guilds),
        offer=services.models.offer,
    )


async def _open_jobs(
    request: web.Request, services: Services
) -> tuple[list[JobListItem], list[JobListItem]]:
    """Describe the jobs that run, and the next ones that wait."""
    now = time.time()
    running = services.store.jobs.in_state("running")
    waiting = services.queue.waiting()[:MAX_SHOWN_JOBS]
    names = await requester_names(request, [*running, *waiting])
    shown = []
    for job in running:
        seconds = await asyncio.to_thread(run_seconds, services.home, job)
        shown.append(job_list_item(services, job, now, names=names, seconds=seconds))
    return shown, list_queued(services, waiting, now, names=names)


def _summarise_personas(
    services: Services, entries: Sequence[tuple[int, Persona]]
) -> list[PersonaSummary]:
    channels = channels_by_persona(services, [persona.id for _, persona in entries])
    training = {job.persona for job in services.store.jobs.in_state("running")}
    summaries = []
    for guild_id, persona in entries:
        summary = PersonaSummary(
            OwnedPersona(services, guild_id, persona),
            tuple(spoken_versions(services, persona.id)),
            persona.id in training,
            tuple(channels.get(persona.id, ())),
        )
        summaries.append(summary)
    return summaries


def _undecided_personas(services: Services) -> list[OwnedPersona]:
    """List the personas whose newest version is neither live nor decided about."""
    personas = []
    for persona_id in services.store.versions.undecided_personas():
        if owned := services.personas.find_owner(persona_id):
            personas.append(OwnedPersona(services, *owned))
    return personas


def pending_decisions(
    services: Services, personas: Sequence[OwnedPersona]
) -> Iterator[PendingDecision]:
    """The versions of these personas that wait to be decided about."""
    for owned in personas:
        if installed := services.store.versions.undecided(owned.persona.id):
            yield PendingDecision(owned, installed)


def list_alerts(
    services: Services, now: float, lacks: Sequence[MissingPermission]
) -> Iterator[DashboardAlert]:
    """List what needs attention, most urgent first; `lacks` are the permissions that are
    missing.
    """
    for problem in services.engine.state().problems:
        yield DashboardAlert(
            "bad",
            "A server computes no replies, or not all.",
            problem,
            f"{DASHBOARD}/system",
        )
    yield from _failed_jobs(services, now)
    yield from _incompatible_versions(services)
    for lack in lacks:
        yield DashboardAlert("warn", lack.description, lack.remedy, f"{DASHBOARD}/system")


def _failed_jobs(services: Services, now: float) -> Iterator[DashboardAlert]:
    seen: set[str] = set()
    for job in services.store.jobs.page(MAX_LATEST_JOBS):
        is_latest = job.name not in seen  # a later run of the same has taken its place
        seen.add(job.name)
        if job.state != "failed" or not is_latest:
            continue
        if now - (job.finished_at or now) >= RECENT_FAILURE_S:
            continue
        name = services.personas.name_of(job.persona, job.guild_id) if job.persona else job.name
        path = run_path(job.job_id)
        if job.waits_for_review:
            what = f"The replies for {name} {job.version} are written, and wait to be read."
            yield DashboardAlert("warn", what, READ_FIRST_TEXT, written_path(job.job_id))
            continue
        error = redact_paths(job.error or "", services.home)
        advice = redact_paths(job.advice or "", services.home)
        if job.can_resume:
            advice = f"{advice} It can go on where it was."
        what = f"The training {name} {job.version} failed: {error}"
        yield DashboardAlert("bad", what, advice, path)


def _incompatible_versions(services: Services) -> Iterator[DashboardAlert]:
    """Live versions that cannot be served."""
    incompatible = services.served_versions.incompatible
    for persona_id, live in services.store.versions.all_live():
        if model := incompatible.model_of(persona_id, live):
            what, advice = explain_unserved(f"{persona_id} {live}", model)
            path = f"{DASHBOARD}/personas/{persona_id}"
            yield DashboardAlert(
                "bad",
                f"{what} The base model answers instead.",
                advice,
                path,
            )
