"""`/dashboard/cards`: the list of score cards, one card, two compared, and the files beside a card."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from bot.services import Services
from bot.store import InstalledVersion, TrainingJob
from bot.web.app_context import Routes, get_services
from bot.web.pages.scorecards import scorecard_view
from bot.web.problems import Problem
from bot.web.templating import DASHBOARD, render_page
from personas.home.adapters import adapter_ref
from personas.home.job_material import dialogue_adapter_folder
from personas.schemas.base import explain_validation_error
from personas.schemas.chat import Persona
from personas.schemas.formatting import format_value
from personas.schemas.scorecard import ScoreCard
from personas.schemas.scorecard import ScoreCard as FullScoreCard
from personas.schemas.training_events import ScoreSummary

SCORECARDS_PATH = f"{DASHBOARD}/cards"
DIALOGUE_PREFIX = "dialogue"
SCORECARD_FILES = {
    "scorecard.json": "the card for programs",
    "scorecard.md": "the card as text",
    "scorecard.png": "the card as a picture",
    "rubric.md": "a sheet to score replies on",
    "rubric.csv": "the same for a spreadsheet",
    "rubric-key.json": "whose replies they are",
}
"""Files for download, in the adapter's folder or in its `report/`."""
MAX_DIALOGUE_JOBS = 100
FILE_MEDIA_TYPES = {
    "json": "application/json",
    "md": "text/markdown",
    "csv": "text/csv",
    "png": "image/png",
    "html": "text/html",
}
REPORT_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
)
"""The trainer's own page: it holds its style, and nothing in it is run."""
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
        found = (place / name for place in (self.folder, self.folder / "report"))
        return next((file for file in found if file.is_file()), None)


def require_location(services: Services, name: str) -> ScoreCardLocation:
    """The location of `oda/v2` or `dialogue/harbour`. Raises `Problem` if there is none."""
    owner, _, version = name.partition("/")
    if version in {one.version for one in services.store.versions.ever_installed(owner)}:
        return ScoreCardLocation(owner, version, adapter_ref(services.home, owner, version).folder)
    if owner == DIALOGUE_PREFIX and version in {job.request.job_name for job in list_dialogue_jobs(services)}:
        return ScoreCardLocation(None, version, dialogue_adapter_folder(services.home, version))
    raise Problem("not-found", f"There is no version {name}.", "The list of score cards has all of them.")


def list_dialogue_jobs(services: Services) -> list[TrainingJob]:
    names = [name for name in services.store.jobs.names() if name.startswith(f"{DIALOGUE_PREFIX}/")]
    found = [job for name in names for job in services.store.jobs.page(1, name=name, state="done")]
    return sorted(found, key=lambda job: -job.seq)[:MAX_DIALOGUE_JOBS]


def read_card_summary(services: Services, place: ScoreCardLocation) -> ScoreSummary | None:
    """Read the summary of a version's score card from the database."""
    if place.persona:
        found = services.store.versions.ever_installed(place.persona)
        return next((one.scorecard for one in found if one.version == place.version), None)
    made = (job for job in list_dialogue_jobs(services) if job.request.job_name == place.version)
    return next((job.result.scorecard for job in made if job.result), None)


async def read_full_card(place: ScoreCardLocation) -> FullScoreCard | None:
    """Read the whole card; None if there is none. Raises `Problem` for a damaged one."""
    return await asyncio.to_thread(_parse_card, place)


def _parse_card(place: ScoreCardLocation) -> FullScoreCard | None:
    file = place.file("scorecard.json")
    if file is None:
        return None
    try:
        return FullScoreCard.model_validate_json(file.read_bytes())
    except OSError as error:
        raise Problem("failed", f"The card of {place.name} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        again = "Create it again: `python -m trainer evaluate --adapter …`."
        raise Problem(
            "failed", f"The card of {place.name} is damaged: {explain_validation_error(error).message}", again
        ) from error


@dataclass(frozen=True)
class ScoredVersion:
    """A version in the list. A withdrawn one is never served again."""

    name: str
    version: InstalledVersion
    is_live: bool
    is_withdrawn: bool


@dataclass(frozen=True)
class PersonaVersions:
    """A persona, by id if its card is gone, and its versions, newest first."""

    persona_id: str
    name: str
    versions: list[ScoredVersion]


@routes.add(f"GET {SCORECARDS_PATH}")
async def get_card_list(request: web.Request) -> web.Response:
    services = get_services(request)
    found = _list_personas(services)
    return render_page(
        request,
        "cards/list.html",
        title="Score cards",
        personas=found,
        names=[listed.name for one in found for listed in one.versions],
        dialogues=[(job, job.result) for job in list_dialogue_jobs(services) if job.result],
        colours=scorecard_view.VERDICT_CLASSES,
    )


@routes.add(f"GET {SCORECARDS_PATH}/{{persona}}/{{version}}")
async def get_card(request: web.Request) -> web.Response:
    services = get_services(request)
    place = require_location(services, _card_name_in_path(request))
    card, short = await read_full_card(place), read_card_summary(services, place)
    files = await asyncio.to_thread(
        lambda: {name: words for name, words in SCORECARD_FILES.items() if place.file(name)}
    )
    return render_page(
        request,
        "cards/one.html",
        title=f"Score card: {_card_title(services, place)}",
        place=place,
        card=card,
        short=short,
        made_elsewhere=bool(card and card.verdict and short and not short.verdict),
        parts=list(scorecard_view.score_sections(card)) if card else [],
        criteria=_criterion_rows(card),
        sides=scorecard_view.SIDE_LABELS,
        colours=scorecard_view.VERDICT_CLASSES,
        files=files,
        others=_other_cards(services, place),
        live=services.store.versions.live(place.persona) if place.persona else None,
    )


@routes.add(f"GET {SCORECARDS_PATH}/two")
async def get_two_cards(request: web.Request) -> web.Response:
    services = get_services(request)
    places = [require_location(services, request.query.get(which, "")) for which in ("a", "b")]
    found = [await read_full_card(place) for place in places]
    if missing := [place.name for place, card in zip(places, found, strict=True) if card is None]:
        raise Problem("not-found", f"There is no whole card of {missing[0]}.", _evaluate_command(places[0]))
    a, b = (card for card in found if card)
    return render_page(
        request,
        "cards/two.html",
        title=f"Score cards: {places[0].name} and {places[1].name}",
        a=a,
        b=b,
        place_a=places[0],
        place_b=places[1],
        rows=list(scorecard_view.compare_metrics(a, b)),
        outcomes=scorecard_view.compare_outcomes(a, b),
        prompts=scorecard_view.shared_prompts(a, b),
        colours=scorecard_view.VERDICT_CLASSES,
    )


@routes.add(f"GET {SCORECARDS_PATH}/{{persona}}/{{version}}/files/{{file}}")
async def get_card_file(request: web.Request) -> web.FileResponse:
    """Serve a file beside a card: pictures inline, others as downloads."""
    place = require_location(get_services(request), _card_name_in_path(request))
    name = request.match_info["file"]
    file = await asyncio.to_thread(place.file, name)
    if file is None:
        raise Problem("not-found", f"There is no {name} of {place.name}.", "The page of its card lists what there is.")
    kind = name.rpartition(".")[2]
    headers = {"Content-Type": FILE_MEDIA_TYPES[kind]}
    if kind == "html":
        headers["Content-Security-Policy"] = REPORT_CONTENT_SECURITY_POLICY
    elif kind != "png":
        kept = f"{place.persona or DIALOGUE_PREFIX}-{place.version}-{name}"
        headers["Content-Disposition"] = f'attachment; filename="{kept}"'
    return web.FileResponse(file, headers=headers)


def _list_personas(services: Services) -> list[PersonaVersions]:
    known: dict[str, Persona] = {one.id: one for _, one in services.personas.everybody()}
    with_versions = dict.fromkeys(persona_id for persona_id, _, _ in services.store.versions.all_installed())
    return [
        PersonaVersions(it, known[it].name if it in known else it, _list_versions(services, it))
        for it in sorted(with_versions, key=lambda it: (it not in known, it))
    ]


def _list_versions(services: Services, persona_id: str) -> list[ScoredVersion]:
    versions = services.store.versions
    live, served = versions.live(persona_id), {one.version for one in versions.installed(persona_id)}
    return [
        ScoredVersion(f"{persona_id}/{one.version}", one, one.version == live, one.version not in served)
        for one in reversed(versions.ever_installed(persona_id))
    ]


def _other_cards(services: Services, place: ScoreCardLocation) -> list[str]:
    if place.persona is None:
        return []
    found = services.store.versions.ever_installed(place.persona)
    return [f"{place.persona}/{one.version}" for one in reversed(found) if one.version != place.version]


def _criterion_rows(card: ScoreCard | None) -> list[tuple[tuple[str, str], str, object]]:
    """CSS class and label of each outcome, the value, and the criterion itself."""
    if card is None or card.verdict is None:
        return []
    unmeasured = ("", "– not measured")
    return [
        (scorecard_view.OUTCOME_LABELS.get(it.outcome, unmeasured), format_value(it.value, it.unit), it)
        for it in card.verdict.criteria
    ]


def _card_title(services: Services, place: ScoreCardLocation) -> str:
    found = services.personas.whose(place.persona) if place.persona else None
    return f"{found[1].name} {place.version}" if found else place.name


def _card_name_in_path(request: web.Request) -> str:
    return f"{request.match_info['persona']}/{request.match_info['version']}"


def _evaluate_command(place: ScoreCardLocation) -> str:
    return f"Make one: `python -m trainer evaluate --adapter UNDERSTUDY_HOME/models/…/{place.version}`."
