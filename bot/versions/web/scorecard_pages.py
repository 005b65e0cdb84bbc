"""`/dashboard/cards`: the list of score cards, a card with another one beside it or not, and the
files beside a card.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.paging import (
    navigation_links,
    paginate,
    parse_page_query,
    require_known_parameters,
)
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.templating import DASHBOARD, render_page
from bot.services import Services
from bot.store import InstalledVersion, TrainingJob
from bot.training.status_text import outcomes_text
from bot.versions.export import exported_bytes
from bot.versions.web import scorecard_view
from personas.home.adapters import adapter_ref, dialogue_adapter_folder, score_card_file
from personas.schemas.base import explain_validation_error
from personas.schemas.chat import CardChoice
from personas.schemas.scorecard import SIDE_LABELS, GateVerdict, ScoreCard
from personas.schemas.training_events import ScoreSummary

SCORECARDS_PATH = f"{DASHBOARD}/cards"
DIALOGUE_PREFIX = "dialogue"
SCORECARD_FILES = {
    "scorecard.json": "the score card for programs",
    "scorecard.md": "the score card as text",
    "scorecard.png": "the score card as a picture",
    "rubric.md": "a sheet for people to rate replies on",
    "rubric.csv": "the same sheet as a table",
    "rubric-key.json": "which version wrote each reply of the sheet",
}
"""Files for download, in the adapter's folder or in its `report/`."""
MAX_DIALOGUE_JOBS = 100
SHOWN_PROMPTS = 4
"""Prompts whose replies are unfolded when the page is opened."""
SHOWN_VERSIONS = 3
"""Versions of a persona that are unfolded when the list is opened."""
FILE_MEDIA_TYPES = {
    "json": "application/json",
    "md": "text/markdown",
    "csv": "text/csv",
    "png": "image/png",
}
routes = Routes()


@dataclass(frozen=True)
class ScoreCardLocation:
    """Location of a version. `persona` is None for a dialogue adapter, whose name is `version`."""

    persona: str | None
    version: str
    folder: Path

    @property
    def name(self) -> str:
        """Name for people and addresses: `oda/v2`, `dialogue/harbour`."""
        return f"{self.persona or DIALOGUE_PREFIX}/{self.version}"

    @property
    def path(self) -> str:
        return f"{SCORECARDS_PATH}/{self.name}"

    def file(self, name: str) -> Path | None:
        """One of `SCORECARD_FILES`; None if there is none."""
        if name not in SCORECARD_FILES:
            return None
        for place in (name, f"report/{name}"):
            file = score_card_file(self.folder, place)
            if file.is_file():
                return file
        return None


def require_location(services: Services, name: str) -> ScoreCardLocation:
    """The location of `oda/v2` or `dialogue/harbour`. Raises `Problem` if there is none."""
    owner, _, version = name.partition("/")
    for installed in services.store.versions.ever_installed(owner):
        if installed.version == version:
            folder = adapter_ref(services.home, owner, version).folder
            return ScoreCardLocation(owner, version, folder)
    if owner == DIALOGUE_PREFIX:
        for job in list_dialogue_jobs(services):
            if job.request.job_name == version:
                folder = dialogue_adapter_folder(services.home, version)
                return ScoreCardLocation(None, version, folder)
    raise Problem(
        "not-found",
        f"There is no version {name}.",
        "The list of score cards has all of them.",
    )


def list_dialogue_jobs(services: Services) -> list[TrainingJob]:
    """The last finished job of each dialogue adapter, newest first."""
    jobs = services.store.jobs
    latest = []
    for name in jobs.names():
        if name.startswith(f"{DIALOGUE_PREFIX}/"):
            latest += jobs.page(1, name=name, state="done")
    return sorted(latest, key=lambda job: -job.seq)[:MAX_DIALOGUE_JOBS]


def read_card_summary(services: Services, place: ScoreCardLocation) -> ScoreSummary | None:
    """Read the summary of a version's score card from the database."""
    if place.persona:
        for installed in services.store.versions.ever_installed(place.persona):
            if installed.version == place.version and installed.scorecard.is_measured:
                return installed.scorecard
        return None
    for job in list_dialogue_jobs(services):
        if job.request.job_name == place.version and job.result:
            return job.result.scorecard
    return None


async def read_full_card(place: ScoreCardLocation) -> ScoreCard | None:
    """Read the whole card; None if there is none. Raises `Problem` for a damaged one."""
    if (file := place.file("scorecard.json")) is None:
        return None
    try:
        return ScoreCard.model_validate_json(await asyncio.to_thread(file.read_bytes))
    except OSError as error:
        raise Problem(
            "failed",
            f"The card of {place.name} cannot be read: {error.strerror}.",
        ) from error
    except ValidationError as error:
        message = f"The card of {place.name} is damaged: {explain_validation_error(error).message}"
        raise Problem(
            "failed",
            message,
            "Create it again: `python -m trainer evaluate --adapter …`.",
        ) from error


@dataclass(frozen=True)
class ShownCard:
    """A version's score card on the page; `card` is None where only its summary is known."""

    place: ScoreCardLocation
    card: ScoreCard | None
    summary: ScoreSummary | None
    is_live: bool
    is_shipped: bool
    served_card: CardChoice

    @property
    def was_made_elsewhere(self) -> bool:
        """True if the verdict came with the version and is not of this bot's gate."""
        has_verdict = bool(self.card and self.card.verdict)
        return has_verdict and bool(self.summary and not self.summary.verdict)

    @property
    def verdict(self) -> GateVerdict | None:
        """The gate's verdict; None for a version that ships, which is not judged."""
        return self.card.verdict if self.card and not self.is_shipped else None

    @property
    def badge(self) -> str:
        """The verdict's name; empty for what was not judged here."""
        if self.was_made_elsewhere or self.is_shipped:
            return ""
        if self.verdict:
            return self.verdict.verdict
        return self.summary.verdict if self.summary else ""

    @property
    def outcomes(self) -> str:
        """Count the criteria by outcome, in a sentence."""
        return outcomes_text(self.verdict) if self.verdict else ""


@dataclass(frozen=True)
class ScoredVersion:
    """A version in the list, live in any server or not. A withdrawn one is never served again."""

    name: str
    version: InstalledVersion
    is_live: bool
    is_withdrawn: bool


@routes.add(f"GET {SCORECARDS_PATH}", section="Score cards")
async def get_card_list(request: web.Request) -> web.Response:
    services = get_services(request)
    page = parse_page_query(request, "find")
    find = request.query.get("find", "").strip()
    matching = _scored_personas(services, find)
    shown, links = paginate(
        request,
        page,
        items=matching,
        key=lambda persona_id: persona_id,
        noun="persona with a score card",
    )
    versions = {persona_id: _list_versions(services, persona_id) for persona_id in shown}
    persona_names = {}
    for persona_id in shown:
        if owned := services.personas.find_owner(persona_id):
            persona_names[persona_id] = owned[1].name
    return render_page(
        request,
        "cards/list.html",
        title="Score cards",
        persona_names=persona_names,
        links=navigation_links(page, links, SCORECARDS_PATH),
        is_long=bool(find) or len(matching) > page.limit,
        find=find,
        versions=versions,
        shown_versions=SHOWN_VERSIONS,
        dialogues=[(job, job.result) for job in list_dialogue_jobs(services) if job.result],
        colours=scorecard_view.VERDICT_CLASSES,
    )


@routes.add(f"GET {SCORECARDS_PATH}/{{persona}}/{{version}}")
async def get_card(request: web.Request) -> web.Response:
    """Page of a card, and of another one beside it if `with` names one."""
    services = get_services(request)
    require_known_parameters(request, "with")
    place = require_location(services, _card_name_in_path(request))
    other = request.query.get("with", "")
    places = [place]
    if other:
        places.append(require_location(services, other))
    shown = [await _read_shown_card(services, each) for each in places]
    titles = [_card_title(services, each) for each in places]
    measured = [each for each in shown if each.card]
    cards = [each.card for each in measured if each.card]
    labels = _column_labels([each.place for each in measured])
    columns = scorecard_view.card_columns(cards, labels) if cards else []
    return render_page(
        request,
        "cards/one.html",
        title=f"{'Score cards' if other else 'Score card'}: {' and '.join(titles)}",
        place=place,
        other=other,
        others=_other_cards(services, place),
        shown=shown,
        versions=labels,
        card=cards[0] if cards else None,
        criteria=scorecard_view.criterion_rows(cards),
        columns=columns,
        figures=scorecard_view.figure_rows(columns),
        charts=scorecard_view.charts(columns) if columns else [],
        replies=scorecard_view.written_replies(cards, labels) if cards else [],
        shown_prompts=SHOWN_PROMPTS,
        sides=SIDE_LABELS,
        colours=scorecard_view.VERDICT_CLASSES,
        files={name: label for name, label in SCORECARD_FILES.items() if place.file(name)},
        export_bytes=await _export_bytes(services, place),
    )


async def _read_shown_card(services: Services, place: ScoreCardLocation) -> ShownCard:
    owner = place.persona or ""
    return ShownCard(
        place=place,
        card=await read_full_card(place),
        summary=read_card_summary(services, place),
        is_live=place.version in services.store.versions.live_anywhere(owner),
        is_shipped=services.served_versions.is_shipped(owner, place.version),
        served_card=services.store.versions.card_of(owner, place.version),
    )


def _column_labels(places: Sequence[ScoreCardLocation]) -> list[str]:
    """Return what the columns are called: versions, with their personas where these differ."""
    if len({place.persona for place in places}) > 1:
        return [place.name for place in places]
    return [place.version for place in places]


@routes.add(f"GET {SCORECARDS_PATH}/{{persona}}/{{version}}/files/{{file}}")
async def get_card_file(request: web.Request) -> web.FileResponse:
    """Serve a file beside a card: pictures inline, others as downloads."""
    place = require_location(get_services(request), _card_name_in_path(request))
    name = request.match_info["file"]
    file = await asyncio.to_thread(place.file, name)
    if file is None:
        raise Problem(
            "not-found",
            f"There is no {name} of {place.name}.",
            "The page of its card lists what there is.",
        )
    kind = name.rpartition(".")[2]
    headers = {"Content-Type": FILE_MEDIA_TYPES[kind]}
    if kind != "png":
        headers["Content-Disposition"] = (
            f'attachment; filename="{place.name.replace("/", "-")}-{name}"'
        )
    return web.FileResponse(file, headers=headers)


async def _export_bytes(services: Services, place: ScoreCardLocation) -> int:
    """Bytes of an export of a persona's version; 0 if it cannot be exported."""
    owner = place.persona or ""
    served = {installed.version for installed in services.store.versions.installed(owner)}
    if place.version not in served or services.personas.find_owner(owner) is None:
        return 0
    return await asyncio.to_thread(exported_bytes, place.folder)


def _scored_personas(services: Services, find: str) -> list[str]:
    """The ids of personas with versions that have this text in id or name; those without a card
    come last.
    """
    ids = services.store.versions.personas()
    matching = {persona.id for _, persona in services.personas.search(find)}
    known = {persona.id for _, persona in services.personas.everybody()} if find else matching
    wanted = find.casefold()
    scored = []
    for persona_id in ids:
        is_removed = persona_id not in known
        if persona_id in matching or (is_removed and wanted in persona_id.casefold()):
            scored.append(persona_id)
    return sorted(scored, key=lambda persona_id: (persona_id not in known, persona_id))


def _list_versions(services: Services, persona_id: str) -> list[ScoredVersion]:
    """Versions of a persona, newest first."""
    versions = services.store.versions
    live = versions.live_anywhere(persona_id)
    served = {installed.version for installed in versions.installed(persona_id)}
    scored = []
    for installed in reversed(versions.ever_installed(persona_id)):
        version = installed.version
        scored.append(
            ScoredVersion(
                name=f"{persona_id}/{version}",
                version=installed,
                is_live=version in live,
                is_withdrawn=version not in served,
            )
        )
    return scored


def _other_cards(services: Services, place: ScoreCardLocation) -> list[str]:
    if place.persona is None:
        return []
    names = [listed.name for listed in _list_versions(services, place.persona)]
    return [name for name in names if name != place.name]


def _card_title(services: Services, place: ScoreCardLocation) -> str:
    owned = None
    if place.persona:
        owned = services.personas.find_owner(place.persona)
    if owned:
        return f"{owned[1].name} {place.version}"
    return place.name


def _card_name_in_path(request: web.Request) -> str:
    return f"{request.match_info['persona']}/{request.match_info['version']}"
