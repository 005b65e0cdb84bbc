"""The pages of score cards: the list, one card, two side by side, and the files beside a card."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web

from bot.house import House
from bot.store import InstalledVersion
from bot.web.cards import two, view
from bot.web.cards.reading import CARDS, DIALOGUE, FILES, Place, dialogues, full_card, place_named, short_card
from bot.web.frame import page
from bot.web.here import Route, house_of
from bot.web.problems import Problem
from personas.amounts import amount
from personas.contracts import Persona
from personas.scorecard import FullScoreCard

TYPES = {"json": "application/json", "md": "text/markdown", "csv": "text/csv", "png": "image/png", "html": "text/html"}
SELF_CONTAINED = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
"""The trainer's own page: it holds its style, and nothing in it is run."""


@dataclass(frozen=True)
class Listed:
    """A version in the list. A withdrawn one is never served again."""

    name: str
    version: InstalledVersion
    is_live: bool
    is_withdrawn: bool


@dataclass(frozen=True)
class OfPersona:
    """A persona, by id where its card is gone, and its versions, newest first."""

    persona_id: str
    name: str
    versions: list[Listed]


async def card_list(request: web.Request) -> web.Response:
    """Every version with what the gate said of it."""
    house = house_of(request)
    found = _personas(house)
    return page(
        request,
        "cards/list.html",
        title="Score cards",
        section="cards",
        personas=found,
        names=[listed.name for one in found for listed in one.versions],
        dialogues=[(job, job.result) for job in dialogues(house) if job.result],
        colours=view.VERDICTS,
    )


async def one_card(request: web.Request) -> web.Response:
    """All that was measured of one version."""
    house = house_of(request)
    place = place_named(house, _name(request))
    card, short = await full_card(place), short_card(house, place)
    files = await asyncio.to_thread(lambda: {name: words for name, words in FILES.items() if place.file(name)})
    return page(
        request,
        "cards/one.html",
        title=f"Score card: {_titled(house, place)}",
        section="cards",
        place=place,
        card=card,
        short=short,
        made_elsewhere=bool(card and card.verdict and short and not short.verdict),
        parts=list(view.sections(card)) if card else [],
        criteria=_criteria(card),
        sides=view.SIDES,
        colours=view.VERDICTS,
        files=files,
        others=_others(house, place),
        live=house.store.versions.live(place.persona) if place.persona else None,
    )


async def two_cards(request: web.Request) -> web.Response:
    """Two cards side by side."""
    house = house_of(request)
    places = [place_named(house, request.query.get(which, "")) for which in ("a", "b")]
    found = [await full_card(place) for place in places]
    if missing := [place.name for place, card in zip(places, found, strict=True) if card is None]:
        raise Problem("not-found", f"There is no whole card of {missing[0]}.", _how_to_make(places[0]))
    a, b = (card for card in found if card)
    return page(
        request,
        "cards/two.html",
        title=f"Score cards: {places[0].name} and {places[1].name}",
        section="cards",
        a=a,
        b=b,
        place_a=places[0],
        place_b=places[1],
        rows=list(two.measured(a, b)),
        outcomes=two.outcomes(a, b),
        prompts=two.same_prompts(a, b),
        colours=view.VERDICTS,
    )


async def card_file(request: web.Request) -> web.FileResponse:
    """A file that lies beside a card, to be kept; a picture and the trainer's page are shown."""
    place = place_named(house_of(request), _name(request))
    name = request.match_info["file"]
    file = await asyncio.to_thread(place.file, name)
    if file is None:
        raise Problem("not-found", f"There is no {name} of {place.name}.", "The page of its card lists what there is.")
    kind = name.rpartition(".")[2]
    headers = {"Content-Type": TYPES[kind]}
    if kind == "html":
        headers["Content-Security-Policy"] = SELF_CONTAINED
    elif kind != "png":
        kept = f"{place.persona or DIALOGUE}-{place.version}-{name}"
        headers["Content-Disposition"] = f'attachment; filename="{kept}"'
    return web.FileResponse(file, headers=headers)


def _personas(house: House) -> list[OfPersona]:
    known: dict[str, Persona] = {one.id: one for _, one in house.conversations.personas.everybody()}
    with_versions = dict.fromkeys(persona_id for persona_id, _, _ in house.store.versions.all_installed())
    return [
        OfPersona(it, known[it].name if it in known else it, _versions(house, it))
        for it in sorted(with_versions, key=lambda it: (it not in known, it))
    ]


def _versions(house: House, persona_id: str) -> list[Listed]:
    versions = house.store.versions
    live, served = versions.live(persona_id), {one.version for one in versions.installed(persona_id)}
    return [
        Listed(f"{persona_id}/{one.version}", one, one.version == live, one.version not in served)
        for one in reversed(versions.ever_installed(persona_id))
    ]


def _others(house: House, place: Place) -> list[str]:
    if place.persona is None:
        return []
    found = house.store.versions.ever_installed(place.persona)
    return [f"{place.persona}/{one.version}" for one in reversed(found) if one.version != place.version]


def _criteria(card: FullScoreCard | None) -> list[tuple[tuple[str, str], str, object]]:
    """CSS class and words of the outcome, the value, and the criterion itself."""
    if card is None or card.verdict is None:
        return []
    unmeasured = ("", "– not measured")
    return [(view.OUTCOMES.get(it.outcome, unmeasured), amount(it.value, it.unit), it) for it in card.verdict.criteria]


def _titled(house: House, place: Place) -> str:
    found = house.conversations.personas.whose(place.persona) if place.persona else None
    return f"{found[1].name} {place.version}" if found else place.name


def _name(request: web.Request) -> str:
    return f"{request.match_info['persona']}/{request.match_info['version']}"


def _how_to_make(place: Place) -> str:
    return f"Make one: `python -m trainer evaluate --adapter UNDERSTUDY_HOME/models/…/{place.version}`."


ROUTES: tuple[Route, ...] = (
    ("GET", CARDS, card_list),
    ("GET", f"{CARDS}/two", two_cards),
    ("GET", f"{CARDS}/{{persona}}/{{version}}", one_card),
    ("GET", f"{CARDS}/{{persona}}/{{version}}/files/{{file}}", card_file),
)
