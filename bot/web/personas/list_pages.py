"""`/dashboard/personas`: who there is; and cards that come in as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from bot.card_files import MAX_CARD_BYTES, Arrived, bring_in_card, keep_book, remove_persona
from bot.carried import install_carried
from bot.lore import GuildLore
from bot.personas import short_id
from bot.web.frame import Fault, back_to, page
from bot.web.here import Route, house_of
from bot.web.overview import Spot, spots_of
from bot.web.personas.asking import Uploaded, as_problem, uploaded
from bot.web.personas.card_pages import card_again
from bot.web.personas.card_rest import make_ready
from bot.web.personas.found import Found, Standing, persona_at, standing_of
from bot.web.personas.lore_files import lore_of
from bot.web.problems import Problem
from personas.for_everybody import OPERATOR

NOBODY = 0


@dataclass(frozen=True)
class Listed:
    """A persona as the list shows it."""

    found: Found
    standing: Standing
    spots: list[Spot]


async def list_page(request: web.Request) -> web.Response:
    """Every persona of every server, those of all servers first."""
    return _shown(request)


def _shown(request: web.Request, fields: Mapping[str, str] | None = None, wrong: Problem | None = None) -> web.Response:
    house = house_of(request)
    spots = spots_of(house)
    everybody = [Found(house, guild_id, persona) for guild_id, persona in house.conversations.personas.everybody()]
    return page(
        request,
        "personas/list.html",
        title="Personas",
        section="personas",
        status=wrong.status if wrong else 200,
        faults=[Fault(str(wrong), "file", "File")] if wrong else (),
        wrong={"file": str(wrong)} if wrong else {},
        short_name=(fields or {}).get("id", ""),
        listed=[Listed(one, standing_of(house, one.id), spots.get(one.id, [])) for one in everybody],
    )


async def bring_in(request: web.Request) -> web.Response:
    """Make a card's file a persona for all servers."""
    house, sent = house_of(request), Uploaded()
    try:
        sent = await _card_sent(request)
        with as_problem("invalid-request"):
            arrived = await bring_in_card(
                house, OPERATOR, sent.content, sent.name, sent.fields.get("id", "").strip(), keeping=True
            )
    except Problem as problem:
        return _shown(request, sent.fields, problem)
    found = Found(house, OPERATOR, arrived.brought.persona)
    said = await _settled(found, arrived, sent.name)
    verb = "is a persona of all servers now" if arrived.brought.is_new else "has a new card"
    return back_to(request, found.page, f"{found.persona.name} {verb}. {said}".strip())


async def replace_card(request: web.Request) -> web.Response:
    """Let a card's file take the place of a persona's card, picture and book; what it said is kept."""
    found = persona_at(request)
    try:
        sent = await _card_sent(request)
        with as_problem("invalid-request"):
            short = short_id(found.persona, found.guild_id)
            arrived = await bring_in_card(found.house, found.guild_id, sent.content, sent.name, short, keeping=True)
    except Problem as problem:
        return await card_again(request, found, problem)
    said = await _settled(Found(found.house, found.guild_id, arrived.brought.persona), arrived, sent.name)
    return back_to(request, found.page, f"{arrived.brought.persona.name} has a new card. {said}".strip())


async def confirm_remove(request: web.Request) -> web.Response:
    """What goes with a persona."""
    found = _removable(request)
    return page(
        request,
        "personas/remove.html",
        title=f"Remove {found.persona.name}",
        section="personas",
        found=found,
        spots=spots_of(found.house).get(found.id, []),
        files=lore_of(found.house).files(found.guild_id, found.id),
        versions=standing_of(found.house, found.id).versions,
    )


async def remove(request: web.Request) -> web.Response:
    """Remove it with its lore."""
    found = _removable(request)
    lore = GuildLore(found.house.home, found.house.conversations.lore, found.house.catalogue.shipped.lore)
    await remove_persona(found.house, lore, found.guild_id, found.persona)
    return back_to(request, "/dashboard/personas", f"{found.persona.name} is gone, and lives nowhere any more.")


def _removable(request: web.Request) -> Found:
    found = persona_at(request)
    if found.ships:
        advice = "Take its channels away: /persona clear. To undo what you wrote, return to the card that came with it."
        raise Problem("conflict", f"{found.persona.name} came with the bot.", advice)
    return found


async def _card_sent(request: web.Request) -> Uploaded:
    sent = await uploaded(request, MAX_CARD_BYTES)
    if not sent.content:
        raise Problem("invalid-request", "No file was chosen.", "Choose a card: PNG, JSON, CHARX or TOML.")
    return sent


async def _settled(found: Found, arrived: Arrived, file: str) -> str:
    """Take up what a card brings besides: its book as lore, its adapter as a version. Says what became of them."""
    said = await keep_book(lore_of(found.house), found.guild_id, found.persona, arrived.card)
    notes, _ = await install_carried(found.house, (found.guild_id, 0, NOBODY), found.id, arrived.card, file)
    make_ready(found, found.persona)
    return " ".join([*said, *(note.replace("**", "") for note in notes)])


ROUTES: tuple[Route, ...] = (
    ("GET", "/dashboard/personas", list_page),
    ("POST", "/dashboard/personas", bring_in),
    ("POST", "/dashboard/personas/{persona_id}/file", replace_card),
    ("GET", "/dashboard/personas/{persona_id}/remove", confirm_remove),
    ("POST", "/dashboard/personas/{persona_id}/remove", remove),
)
