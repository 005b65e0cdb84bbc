"""`/dashboard/personas/ID`: the card's form, a preview of its replies, and its revisions."""

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import web

from bot.personas.card_import import FILE_SUFFIXES, export_card, log_card_export
from bot.personas.revisions import Revision
from bot.personas.web import card_editing
from bot.personas.web.lookup import OwnedPersona, persona_status, require_persona_in_path
from bot.personas.web.lore_files import lore_store
from bot.platform.localisation import gettext_lazy
from bot.platform.messages import markdown_name
from bot.platform.request_origin import OPERATOR_ORIGIN
from bot.platform.web_kit.app_context import Routes
from bot.platform.web_kit.paging import enum_query
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import Form, errors_as_problems, read_form
from bot.platform.web_kit.templating import FormError, format_moment, redirect_to, render_page
from personas.card.card_writer import CardExport, CardForm
from personas.card.spec_card import JsonObject, json_bytes
from personas.card.toml_card import parse_table
from personas.home.persona_ids import short_id
from personas.home.trash import TrashEntry, entries_of
from personas.prompt.renderer import MAX_CARD_TOKENS
from personas.schemas.import_report import ImportReport

MESSAGE_FIELD = "message"
"""The message to the persona; not a field of the card."""
FILE_FIELD = "file"
"""A file that replaces the card."""
CONFLICT_TEXT = "Someone else changed this card. Save again to overwrite their changes."

MEDIA_TYPES: dict[CardForm, str] = {
    "png": "image/png", "v2": "application/json", "v3": "application/json", "charx": "application/zip",
    "toml": "application/toml",
}  # fmt: skip
CARD_FIELD_LABELS = {name: field.label for name, field in card_editing.FIELDS_BY_NAME.items()}
CARD_FIELD_LABELS |= {MESSAGE_FIELD: "Message", FILE_FIELD: "File"}
routes = Routes()


@dataclass
class CardDraft:
    """Contents of the form: the card, a message to it, and the reply."""

    card: card_editing.CardCheck
    message: str = ""
    voice: str = "live"
    reply: dict[str, Any] | None = None
    wrong: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredCard:
    """A stored card with everything its page shows."""

    table: JsonObject
    stamp: str
    card: card_editing.CardCheck
    earlier: list[Revision]
    voices: list[str]
    report: ImportReport
    has_lore: bool


@routes.add("GET /dashboard/personas/{persona_id}")
async def get_card_page(request: web.Request) -> web.Response:
    """Page with the stored card in its form."""
    owned = require_persona_in_path(request)
    now = await _stored_card(owned)
    return _render_card(request, owned, now, CardDraft(now.card))


async def render_rejected_card(
    request: web.Request, owned: OwnedPersona, refused: Problem
) -> web.Response:
    """Page with the stored card, and why a file was rejected."""
    now = await _stored_card(owned)
    return _render_card(
        request,
        owned,
        now=now,
        draft=CardDraft(now.card, wrong={FILE_FIELD: str(refused)}),
        status=refused.status,
    )


@routes.add("POST /dashboard/personas/{persona_id}")
async def save_card(request: web.Request) -> web.Response:
    """Save the form's card; if it is invalid, show the form again with the errors."""
    owned = require_persona_in_path(request)
    form = await read_form(request)
    now = await _stored_card(owned)
    draft = await _draft_from_form(owned, form, now)
    if now.table == draft.card.table:
        return redirect_to(request, owned.page, "Nothing was changed.")
    if draft.card.wrong:
        return _render_card(request, owned, now=now, draft=draft, status=422)
    if form.get("stamp", "") != now.stamp:
        draft.wrong = {card_editing.WHOLE_CARD: CONFLICT_TEXT}
        return _render_card(request, owned, now=now, draft=draft, status=409)
    try:
        persona = await card_editing.replace_card(owned, draft.card)
    except Problem as problem:
        draft.wrong = {"name": problem.text}
        status = 422
        if problem.slug == "no-room":
            status = problem.status
        return _render_card(request, owned, now=now, draft=draft, status=status)
    return redirect_to(
        request,
        owned.page,
        f"{persona.name} speaks by this card from the next reply on.",
    )


@routes.add("POST /dashboard/personas/{persona_id}/preview")
async def post_preview_page(request: web.Request) -> web.Response:
    """Show the form again with a reply, for browsers without scripts."""
    owned = require_persona_in_path(request)
    form = await read_form(request)
    now = await _stored_card(owned)
    draft = await _draft_from_form(owned, form, now)
    draft.message = form.get("message", "").strip()[: card_editing.MAX_MESSAGE_CHARS]
    draft.voice = form.get("voice", "") or "live"
    if not draft.message:
        draft.wrong = {MESSAGE_FIELD: "Write what it is to answer."}
    if draft.card.wrong or draft.wrong:
        return _render_card(request, owned, now=now, draft=draft, status=422)
    try:
        model = card_editing.preview_model(owned, draft.voice, draft.card)
        chat_request = await card_editing.preview_request(owned, model, draft.message)
        draft.reply = await card_editing.preview_reply(owned, chat_request)
    except Problem as problem:
        draft.wrong = {card_editing.WHOLE_CARD: problem.text}
        return _render_card(request, owned, now=now, draft=draft, status=problem.status)
    return _render_card(request, owned, now, draft)


@routes.add("GET /dashboard/personas/{persona_id}/earlier/{number}")
async def get_revision_page(request: web.Request) -> web.Response:
    """Page of an earlier card, the address's `number`, beside the current one."""
    owned = require_persona_in_path(request)
    before, revision = await _require_revision(owned, request.match_info["number"])
    now = owned.services.personas.table(owned.id)
    differences = []
    for name, card_field in card_editing.FIELDS_BY_NAME.items():
        text_before = _value_text(before.get(name))
        text_now = _value_text(now.get(name))
        if text_before != text_now:
            differences.append((card_field.label, text_before, text_now))
    return render_page(
        request,
        "personas/earlier.html",
        title=f"The card of {owned.persona.name} until {format_moment(revision.at)}",
        at=revision.at,
        action=f"{owned.page}/earlier/{revision.number}",
        back=owned.page,
        differences=differences,
    )


@routes.add("POST /dashboard/personas/{persona_id}/earlier/{number}")
async def post_revision(request: web.Request) -> web.Response:
    """Restore an earlier card, the address's `number`; the picture stays."""
    owned = require_persona_in_path(request)
    before, _ = await _require_revision(owned, request.match_info["number"])
    persona = await card_editing.replace_card_table(owned, before)
    return redirect_to(
        request,
        owned.page,
        f"{persona.name} speaks by the earlier card again.",
    )


@routes.add("POST /dashboard/personas/{persona_id}/as-shipped")
async def restore_shipped_card(request: web.Request) -> web.Response:
    owned = require_persona_in_path(request)
    personas = owned.services.personas
    if not owned.is_edited:
        raise Problem(
            "conflict",
            f"{owned.persona.name} has no other card.",
            "Nothing was changed.",
        )
    persona = await asyncio.to_thread(personas.restore_shipped, owned.persona)
    restored = gettext_lazy(
        "restored the card of {persona} that came with the bot",
        persona=f"**{markdown_name(persona)}**",
    )
    owned.services.audit.record(owned.guild_id, OPERATOR_ORIGIN.user_id, restored)
    card_editing.warm_up_prompt(owned, persona)
    return redirect_to(
        request,
        owned.page,
        f"{persona.name} speaks by the card that came with the bot.",
    )


@routes.add("GET /dashboard/personas/{persona_id}/card")
async def get_card_file(request: web.Request) -> web.Response:
    """Return the card as a file for other programs, or in our own form."""
    owned = require_persona_in_path(request)
    form = enum_query(request, "format", tuple(MEDIA_TYPES)) or "png"
    return await _card_file_response(owned, cast(CardForm, form))


async def _card_file_response(owned: OwnedPersona, form: CardForm) -> web.Response:
    """The card as a file; the export of a member's card is logged. Raises `Problem`."""
    name = short_id(owned.persona, owned.guild_id)
    file = f"{name}.{FILE_SUFFIXES[form]}"
    with errors_as_problems("conflict"):
        written = await asyncio.to_thread(_write_card_file, owned, form, name)
    home = owned.services.home
    store = owned.services.store
    log_card_export(
        home,
        store,
        guild_id=owned.guild_id,
        persona=owned.persona,
        file=file,
        content=written.content,
        recipient="to the operator",
    )
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return web.Response(body=written.content, content_type=MEDIA_TYPES[form], headers=headers)


def _write_card_file(owned: OwnedPersona, form: CardForm, name: str) -> CardExport:
    card = owned.services.personas.card(owned.persona, owned.guild_id)
    return export_card(card, form, owned.persona, name)


@routes.add("GET /dashboard/personas/{persona_id}/face")
async def get_avatar(request: web.Request) -> web.StreamResponse:
    owned = require_persona_in_path(request)
    picture = owned.persona.avatar
    if picture is None or not picture.is_file():
        raise Problem(
            "not-found",
            f"{owned.persona.name} has no picture.",
            "Import a card that has one.",
        )
    return web.FileResponse(picture, headers={"Cache-Control": "no-cache"})


async def _stored_card(owned: OwnedPersona) -> StoredCard:
    voices = owned.services.served_versions.of_persona(owned.id)

    def read() -> StoredCard:
        personas = owned.services.personas
        table = card_editing.replace_fields(personas.table(owned.id), {})
        stamp = hashlib.sha256(json_bytes(table)).hexdigest()[:16]
        card = card_editing.check_owned_table(owned, table)
        report = card_editing.report_table(table)
        return StoredCard(
            table,
            stamp,
            card=card,
            earlier=personas.earlier(owned.id).all(),
            voices=voices,
            report=report,
            has_lore=bool(lore_store(owned.services).files(owned.guild_id, owned.id)),
        )

    return await asyncio.to_thread(read)


async def _draft_from_form(owned: OwnedPersona, form: Form, now: StoredCard) -> CardDraft:
    fields: dict[str, card_editing.FieldValue] = {}
    for name, card_field in card_editing.FIELDS_BY_NAME.items():
        match card_field.kind:
            case "list":
                fields[name] = form.getall(name, [])
            case "tags":
                fields[name] = form.get(name, "").split(",")
            case _:
                fields[name] = form.get(name, "")
    table = card_editing.replace_fields(now.table, fields)
    card = await asyncio.to_thread(card_editing.check_owned_table, owned, table)
    return CardDraft(card)


def _render_card(
    request: web.Request, owned: OwnedPersona, now: StoredCard, draft: CardDraft, status: int = 200
) -> web.Response:
    wrong = dict(draft.card.wrong) | draft.wrong
    return render_page(
        request,
        "personas/card.html",
        title=f"{owned.persona.name}: card",
        status=status,
        faults=[
            FormError(message, name, CARD_FIELD_LABELS.get(name, ""))
            for name, message in wrong.items()
        ],
        tab="card",
        owned=owned,
        standing=persona_status(owned.services, owned.id),
        parts=card_editing.FIELD_GROUPS,
        table=draft.card.table,
        wrong=wrong,
        tokens=card_editing.card_tokens(draft.card, owned.services),
        most_tokens=MAX_CARD_TOKENS,
        now=now,
        draft=draft,
        longest_message=card_editing.MAX_MESSAGE_CHARS,
        belongings=_belongings(owned),
        replaced=_replaced(owned),
    )


def _belongings(owned: OwnedPersona) -> str:
    """List what stays with the persona when a file replaces its card."""
    trainings = len(owned.services.trainings.open_of_persona(owned.id))
    removal = owned.services.removal
    return removal.belongings(owned.guild_id, owned.persona, trainings).text()


def _replaced(owned: OwnedPersona) -> list[TrashEntry]:
    """List the cards that can be brought back, newest first."""
    now = time.time()
    entries = entries_of(owned.services.home, owned.guild_id, "card", owned.id)
    return [entry for entry in entries if entry.is_kept(now)]


async def _require_revision(owned: OwnedPersona, number: str) -> tuple[JsonObject, Revision]:
    """An earlier card. Raises `Problem` if it is gone or unreadable."""
    earlier = owned.services.personas.earlier(owned.id)
    with errors_as_problems("not-found"):
        content = await asyncio.to_thread(earlier.read, number)
        table = parse_table(content, owned.id)
    revisions = await asyncio.to_thread(earlier.all)
    return table, next(revision for revision in revisions if revision.number == number)


def _value_text(value: object) -> str:
    if isinstance(value, list):
        return "\n\n".join(value)
    return str(value or "").strip()
