"""`/dashboard/personas`: the list of personas; import and removal of cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from bot.personas.card_import import (
    MAX_CARD_BYTES,
    CardImport,
    import_card,
    import_character_book,
    install_bundled_adapter,
    remove_persona,
)
from bot.personas.guild_lore import GuildLore
from bot.personas.registry import short_id
from bot.versions.live_versions import OPERATOR_USER_ID
from bot.web.api.personas.card_editing import warm_up_prompt
from bot.web.api.personas.lore_files import lore_store
from bot.web.api.personas.persona_lookup import (
    ChannelSummary,
    OwnedPersona,
    PersonaStatus,
    channels_by_persona,
    persona_status,
    require_persona_in_path,
)
from bot.web.app_context import Route, get_services
from bot.web.pages.personas.card_pages import render_rejected_card
from bot.web.problems import Problem
from bot.web.request_body import FileForm, errors_as_problems, read_file_form
from bot.web.templating import FormError, redirect_to, render_page
from personas.home.shared_personas import OPERATOR_GUILD_ID


@dataclass(frozen=True)
class PersonaListItem:
    """A persona as the list shows it."""

    found: OwnedPersona
    standing: PersonaStatus
    spots: list[ChannelSummary]


async def get_persona_list(request: web.Request) -> web.Response:
    """Every persona of every server, those of all servers first."""
    return _render_list(request)


def _render_list(
    request: web.Request, fields: Mapping[str, str] | None = None, wrong: Problem | None = None
) -> web.Response:
    services = get_services(request)
    spots = channels_by_persona(services)
    everybody = [OwnedPersona(services, guild_id, persona) for guild_id, persona in services.personas.everybody()]
    return render_page(
        request,
        "personas/list.html",
        title="Personas",
        section="personas",
        status=wrong.status if wrong else 200,
        faults=[FormError(str(wrong), "file", "File")] if wrong else (),
        wrong={"file": str(wrong)} if wrong else {},
        short_name=(fields or {}).get("id", ""),
        listed=[PersonaListItem(one, persona_status(services, one.id), spots.get(one.id, [])) for one in everybody],
    )


async def post_card_import(request: web.Request) -> web.Response:
    """Make a card's file a persona for all servers."""
    services, sent = get_services(request), FileForm()
    try:
        sent = await _read_card_form(request)
        with errors_as_problems("invalid-request"):
            arrived = await import_card(
                services.personas,
                services.base_model,
                OPERATOR_GUILD_ID,
                sent.content,
                sent.name,
                sent.fields.get("id", "").strip(),
                keeping=True,
            )
    except Problem as problem:
        return _render_list(request, sent.fields, problem)
    found = OwnedPersona(services, OPERATOR_GUILD_ID, arrived.brought.persona)
    said = await _install_attachments(found, arrived, sent.name)
    verb = "is a persona of all servers now" if arrived.brought.is_new else "has a new card"
    return redirect_to(request, found.page, f"{found.persona.name} {verb}. {said}".strip())


async def replace_card_file(request: web.Request) -> web.Response:
    """Replace a persona's card, picture and book with a card file; the previous card is stored."""
    found = require_persona_in_path(request)
    try:
        sent = await _read_card_form(request)
        with errors_as_problems("invalid-request"):
            short = short_id(found.persona, found.guild_id)
            here = found.services
            arrived = await import_card(
                here.personas, here.base_model, found.guild_id, sent.content, sent.name, short, keeping=True
            )
    except Problem as problem:
        return await render_rejected_card(request, found, problem)
    said = await _install_attachments(
        OwnedPersona(found.services, found.guild_id, arrived.brought.persona), arrived, sent.name
    )
    return redirect_to(request, found.page, f"{arrived.brought.persona.name} has a new card. {said}".strip())


async def confirm_remove(request: web.Request) -> web.Response:
    """Page that lists what is removed with a persona."""
    found = _require_removable(request)
    return render_page(
        request,
        "personas/remove.html",
        title=f"Remove {found.persona.name}",
        section="personas",
        found=found,
        spots=channels_by_persona(found.services).get(found.id, []),
        files=lore_store(found.services).files(found.guild_id, found.id),
        versions=persona_status(found.services, found.id).versions,
    )


async def remove_persona_page(request: web.Request) -> web.Response:
    """Remove it with its lore."""
    found = _require_removable(request)
    lore = GuildLore(found.services.home, found.services.request_builder.lore, found.services.catalogue.shipped.lore)
    await remove_persona(found.services.personas, found.services.store, lore, found.guild_id, found.persona)
    return redirect_to(request, "/dashboard/personas", f"{found.persona.name} is gone, and lives nowhere any more.")


def _require_removable(request: web.Request) -> OwnedPersona:
    found = require_persona_in_path(request)
    if found.ships:
        advice = "Take its channels away: /persona clear. To undo what you wrote, return to the card that came with it."
        raise Problem("conflict", f"{found.persona.name} came with the bot.", advice)
    return found


async def _read_card_form(request: web.Request) -> FileForm:
    sent = await read_file_form(request, MAX_CARD_BYTES)
    if not sent.content:
        raise Problem("invalid-request", "No file was chosen.", "Choose a card: PNG, JSON, CHARX or TOML.")
    return sent


async def _install_attachments(found: OwnedPersona, arrived: CardImport, file: str) -> str:
    """Take up what a card brings besides: its book as lore, its adapter as a version. Says what became of them."""
    said = await import_character_book(lore_store(found.services), found.guild_id, found.persona, arrived.card)
    services = found.services
    notes, _ = await install_bundled_adapter(
        services.home,
        services.store,
        services.base_model,
        (found.guild_id, 0, OPERATOR_USER_ID),
        found.id,
        arrived.card,
        file,
    )
    warm_up_prompt(found, found.persona)
    return " ".join([*said, *(note.replace("**", "") for note in notes)])


ROUTES: tuple[Route, ...] = (
    ("GET", "/dashboard/personas", get_persona_list),
    ("POST", "/dashboard/personas", post_card_import),
    ("POST", "/dashboard/personas/{persona_id}/file", replace_card_file),
    ("GET", "/dashboard/personas/{persona_id}/remove", confirm_remove),
    ("POST", "/dashboard/personas/{persona_id}/remove", remove_persona_page),
)
