"""`/dashboard/personas/ID`: the card's form, a preview of its replies, and its revisions."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from bot.chat.model_names import servable_versions
from bot.personas.revisions import Revision
from bot.web.api.personas.card_editing import (
    FIELD_GROUPS,
    FIELDS_BY_NAME,
    MAX_MESSAGE_CHARS,
    WHOLE_CARD,
    CardCheck,
    CardTokens,
    FieldValue,
    card_tokens,
    check_card_table,
    preview_model,
    preview_reply,
    preview_request,
    replace_card,
    replace_card_table,
    replace_fields,
    warm_up_prompt,
)
from bot.web.api.personas.persona_lookup import OwnedPersona, persona_status, require_persona_in_path
from bot.web.app_context import Route
from bot.web.problems import Problem
from bot.web.request_body import FormData, errors_as_problems, form_text, form_texts, read_form_data
from bot.web.template_filters import format_time
from bot.web.templating import FormError, redirect_to, render_page
from personas.card.spec_card import JsonObject, json_bytes
from personas.card.toml_card import parse_table
from personas.prompt import MAX_CARD_TOKENS

MESSAGE_FIELD = "message"
"""The field with what is said to the persona, which is none of the card's."""
FILE_FIELD = "file"
"""The one with a card that takes the place of this one."""
CONFLICT_TEXT = "Someone else changed this card. Save again to overwrite their changes."

CARD_FIELD_LABELS = {name: one.label for name, one in FIELDS_BY_NAME.items()} | {
    MESSAGE_FIELD: "Message",
    FILE_FIELD: "File",
}


@dataclass
class CardDraft:
    """Contents of the form: the card, a message to it, and the reply."""

    card: CardCheck
    message: str = ""
    voice: str = "live"
    reply: dict[str, Any] | None = None
    wrong: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CardFieldChange:
    """A field that was other before."""

    label: str
    before: str
    now: str


@dataclass(frozen=True)
class StoredCard:
    """A stored card with everything its page shows."""

    table: JsonObject
    stamp: str
    card: CardCheck
    earlier: list[Revision]
    voices: list[str]


async def get_card_page(request: web.Request) -> web.Response:
    """Page with the stored card in the form."""
    found = require_persona_in_path(request)
    now = await _stored_card(found)
    return _render_card(request, found, now, CardDraft(now.card))


async def render_rejected_card(request: web.Request, found: OwnedPersona, refused: Problem) -> web.Response:
    """The page with the stored card, and why a file was rejected."""
    now = await _stored_card(found)
    return _render_card(request, found, now, CardDraft(now.card, wrong={FILE_FIELD: str(refused)}), refused.status)


async def save_card(request: web.Request) -> web.Response:
    """Save the form's card; if it is invalid, show the form again with the errors."""
    found = require_persona_in_path(request)
    form, now = await read_form_data(request), await _stored_card(found)
    draft = await _draft_from_form(found, form, now)
    if now.table == draft.card.table:
        return redirect_to(request, found.page, "Nothing was changed.")
    if not draft.card.wrong and form_text(form, "stamp") != now.stamp:
        draft.wrong = {WHOLE_CARD: CONFLICT_TEXT}
        return _render_card(request, found, now, draft, 409)
    if not draft.card.wrong:
        try:
            persona = await replace_card(found, draft.card)
        except Problem as problem:
            draft.wrong = {"name": str(problem)}
        else:
            return redirect_to(request, found.page, f"{persona.name} speaks by this card from the next reply on.")
    return _render_card(request, found, now, draft, 422)


async def post_preview_page(request: web.Request) -> web.Response:
    """The form as it was sent, with a reply: for those who use no scripts."""
    found = require_persona_in_path(request)
    form, now = await read_form_data(request), await _stored_card(found)
    draft = await _draft_from_form(found, form, now)
    draft.message, draft.voice = (
        form_text(form, "message").strip()[:MAX_MESSAGE_CHARS],
        form_text(form, "voice") or "live",
    )
    if not draft.message:
        draft.wrong = {MESSAGE_FIELD: "Write what it is to answer."}
    if draft.card.wrong or draft.wrong:
        return _render_card(request, found, now, draft, 422)
    try:
        speaker = preview_model(found, draft.voice, draft.card)
        draft.reply = await preview_reply(found, preview_request(found, speaker, draft.message))
    except Problem as problem:
        draft.wrong = {WHOLE_CARD: str(problem)}
        return _render_card(request, found, now, draft, problem.status)
    return _render_card(request, found, now, draft)


async def get_revision_page(request: web.Request) -> web.Response:
    """Page of an earlier card beside the current one."""
    found = require_persona_in_path(request)
    before, kept = await _require_revision(found, request.match_info["number"])
    table = found.services.personas.table(found.id)
    return render_page(
        request,
        "personas/earlier.html",
        title=f"The card of {found.persona.name} until {format_time(kept.at).striptags()}",
        section="personas",
        found=found,
        at=kept.at,
        action=f"{found.page}/earlier/{kept.number}",
        back=found.page,
        differences=_field_changes(before, table),
    )


async def restore_revision(request: web.Request) -> web.Response:
    """Restore an earlier card; the picture stays."""
    found = require_persona_in_path(request)
    before, _ = await _require_revision(found, request.match_info["number"])
    persona = await replace_card_table(found, before)
    return redirect_to(request, found.page, f"{persona.name} speaks by the earlier card again.")


async def restore_shipped_card(request: web.Request) -> web.Response:
    """Restore the card that came with the bot."""
    found = require_persona_in_path(request)
    personas = found.services.personas
    if not found.is_edited:
        raise Problem("conflict", f"{found.persona.name} speaks by no other card.", "Nothing was changed.")
    await asyncio.to_thread(personas.remove, found.guild_id, found.persona, keeping=True)
    persona = personas.get(found.id, 0)
    assert persona is not None  # it ships
    warm_up_prompt(found, persona)
    return redirect_to(request, found.page, f"{persona.name} speaks by the card that came with the bot.")


async def get_avatar(request: web.Request) -> web.StreamResponse:
    """The persona's picture."""
    found = require_persona_in_path(request)
    picture = found.persona.avatar
    if picture is None or not picture.is_file():
        raise Problem("not-found", f"{found.persona.name} has no picture.", "Import a card that has one.")
    return web.FileResponse(picture, headers={"Cache-Control": "no-cache"})


# ------------------------------------------------------------------------------------------------ parts of it


async def _stored_card(found: OwnedPersona) -> StoredCard:
    """Read the stored card in a thread."""

    voices = servable_versions(found.services.request_builder, found.persona)

    def read() -> StoredCard:
        personas = found.services.personas
        table = replace_fields(personas.table(found.id), {})
        stamp = hashlib.sha256(json_bytes(table)).hexdigest()[:16]
        card = check_card_table(table, found.services.base_model)
        return StoredCard(table, stamp, card, personas.earlier(found.id).all(), voices)

    return await asyncio.to_thread(read)


async def _draft_from_form(found: OwnedPersona, form: FormData, now: StoredCard) -> CardDraft:
    fields: dict[str, FieldValue] = {}
    for name, one in FIELDS_BY_NAME.items():
        if one.kind == "list":
            fields[name] = form_texts(form, name)
        elif one.kind == "tags":
            fields[name] = form_text(form, name).split(",")
        else:
            fields[name] = form_text(form, name)
    return CardDraft(
        await asyncio.to_thread(check_card_table, replace_fields(now.table, fields), found.services.base_model)
    )


def _render_card(
    request: web.Request, found: OwnedPersona, now: StoredCard, draft: CardDraft, status: int = 200
) -> web.Response:
    tokens: CardTokens = card_tokens(draft.card, found.services.base_model)
    wrong = dict(draft.card.wrong) | draft.wrong
    return render_page(
        request,
        "personas/card.html",
        title=f"{found.persona.name}: card",
        section="personas",
        status=status,
        faults=[FormError(said, name, CARD_FIELD_LABELS.get(name, "")) for name, said in wrong.items()],
        tab="card",
        found=found,
        standing=persona_status(found.services, found.id),
        parts=FIELD_GROUPS,
        table=draft.card.table,
        wrong=wrong,
        tokens=tokens,
        most_tokens=MAX_CARD_TOKENS,
        now=now,
        draft=draft,
        longest_message=MAX_MESSAGE_CHARS,
    )


async def _require_revision(found: OwnedPersona, number: str) -> tuple[JsonObject, Revision]:
    """One of the earlier tables. Raises `Problem` where it is gone, or cannot be read."""
    earlier = found.services.personas.earlier(found.id)
    with errors_as_problems("not-found"):
        content = await asyncio.to_thread(earlier.read, number)
        table = parse_table(content, found.id)
    kept = next(one for one in await asyncio.to_thread(earlier.all) if one.number == number)
    return table, kept


def _field_changes(before: JsonObject, now: JsonObject) -> list[CardFieldChange]:
    pairs = [
        (one.label, _value_text(before.get(name)), _value_text(now.get(name))) for name, one in FIELDS_BY_NAME.items()
    ]
    return [CardFieldChange(*pair) for pair in pairs if pair[1] != pair[2]]


def _value_text(value: object) -> str:
    return "\n\n".join(value) if isinstance(value, list) else str(value or "").strip()


ROUTES: tuple[Route, ...] = (
    ("GET", "/dashboard/personas/{persona_id}", get_card_page),
    ("POST", "/dashboard/personas/{persona_id}", save_card),
    ("POST", "/dashboard/personas/{persona_id}/preview", post_preview_page),
    ("GET", "/dashboard/personas/{persona_id}/earlier/{number}", get_revision_page),
    ("POST", "/dashboard/personas/{persona_id}/earlier/{number}", restore_revision),
    ("POST", "/dashboard/personas/{persona_id}/as-shipped", restore_shipped_card),
    ("GET", "/dashboard/personas/{persona_id}/face", get_avatar),
)
