"""A persona's card as a page: its form, its voice before it is kept, what it said before."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from bot.earlier import Kept
from bot.speakers import servable
from bot.web.formats import when
from bot.web.frame import Fault, back_to, page
from bot.web.here import Route
from bot.web.personas.asking import Form, as_problem, form_of, text_in, texts_in
from bot.web.personas.card_fields import FIELDS, PARTS, WHOLE, Checked, Value, checked, with_fields
from bot.web.personas.card_rest import CardTokens, card_tokens, make_ready, rewrite, rewritten
from bot.web.personas.found import Found, persona_at, standing_of
from bot.web.personas.preview import LONGEST_MESSAGE, asked, voice_of, whole_reply
from bot.web.problems import Problem
from personas.card.document import Json, json_bytes
from personas.card.own import parse_table
from personas.prompt import MAX_CARD_TOKENS

MESSAGE = "message"
"""The field with what is said to the persona, which is none of the card's."""
FILE = "file"
"""The one with a card that takes the place of this one."""
MEANWHILE = "The card was changed meanwhile, elsewhere. Save again to write over that."

LABELS = {name: one.label for name, one in FIELDS.items()} | {MESSAGE: "Message", FILE: "File"}


@dataclass
class Draft:
    """The form as it is shown: the card in it, what was said to it, and the reply to that."""

    card: Checked
    message: str = ""
    voice: str = "live"
    reply: dict[str, Any] | None = None
    wrong: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """A field that was other before."""

    label: str
    before: str
    now: str


@dataclass(frozen=True)
class Now:
    """A card as it is kept, with all that its page shows of it."""

    table: Json
    stamp: str
    card: Checked
    earlier: list[Kept]
    voices: list[str]


async def card_page(request: web.Request) -> web.Response:
    """The form with the card that is kept."""
    found = persona_at(request)
    now = await _now(found)
    return _shown(request, found, now, Draft(now.card))


async def card_again(request: web.Request, found: Found, refused: Problem) -> web.Response:
    """The form as it is kept, and why a file did not take its place."""
    now = await _now(found)
    return _shown(request, found, now, Draft(now.card, wrong={FILE: str(refused)}), refused.status)


async def save_card(request: web.Request) -> web.Response:
    """Let the persona speak by the form; where it cannot be, the form comes again and says why."""
    found = persona_at(request)
    form, now = await form_of(request), await _now(found)
    draft = await _drafted(found, form, now)
    if now.table == draft.card.table:
        return back_to(request, found.page, "Nothing was changed.")
    if not draft.card.wrong and text_in(form, "stamp") != now.stamp:
        draft.wrong = {WHOLE: MEANWHILE}
        return _shown(request, found, now, draft, 409)
    if not draft.card.wrong:
        try:
            persona = await rewrite(found, draft.card)
        except Problem as problem:
            draft.wrong = {"name": str(problem)}
        else:
            return back_to(request, found.page, f"{persona.name} speaks by this card from the next reply on.")
    return _shown(request, found, now, draft, 422)


async def preview_page(request: web.Request) -> web.Response:
    """The form as it was sent, with a reply: for those who use no scripts."""
    found = persona_at(request)
    form, now = await form_of(request), await _now(found)
    draft = await _drafted(found, form, now)
    draft.message, draft.voice = text_in(form, "message").strip()[:LONGEST_MESSAGE], text_in(form, "voice") or "live"
    if not draft.message:
        draft.wrong = {MESSAGE: "Write what it is to answer."}
    if draft.card.wrong or draft.wrong:
        return _shown(request, found, now, draft, 422)
    try:
        speaker = voice_of(found, draft.voice, draft.card)
        draft.reply = await whole_reply(found, asked(found, speaker, draft.message))
    except Problem as problem:
        draft.wrong = {WHOLE: str(problem)}
        return _shown(request, found, now, draft, problem.status)
    return _shown(request, found, now, draft)


async def earlier_page(request: web.Request) -> web.Response:
    """What the card said before, beside what it says now."""
    found = persona_at(request)
    before, kept = await _earlier(found, request.match_info["number"])
    table = found.house.conversations.personas.table(found.id)
    return page(
        request,
        "personas/earlier.html",
        title=f"The card of {found.persona.name} until {when(kept.at).striptags()}",
        section="personas",
        found=found,
        at=kept.at,
        action=f"{found.page}/earlier/{kept.number}",
        back=found.page,
        differences=_differences(before, table),
    )


async def bring_back(request: web.Request) -> web.Response:
    """Let the persona speak by what its card said before; its picture stays."""
    found = persona_at(request)
    before, _ = await _earlier(found, request.match_info["number"])
    persona = await rewritten(found, before)
    return back_to(request, found.page, f"{persona.name} speaks by the earlier card again.")


async def as_shipped(request: web.Request) -> web.Response:
    """Let the persona speak by the card that came with the bot."""
    found = persona_at(request)
    personas = found.house.conversations.personas
    if not found.is_edited:
        raise Problem("conflict", f"{found.persona.name} speaks by no other card.", "Nothing was changed.")
    await asyncio.to_thread(personas.remove, found.guild_id, found.persona, keeping=True)
    persona = personas.get(found.id, 0)
    assert persona is not None  # it ships
    make_ready(found, persona)
    return back_to(request, found.page, f"{persona.name} speaks by the card that came with the bot.")


async def face(request: web.Request) -> web.StreamResponse:
    """The persona's picture."""
    found = persona_at(request)
    picture = found.persona.avatar
    if picture is None or not picture.is_file():
        raise Problem("not-found", f"{found.persona.name} has no picture.", "Bring in a card that has one.")
    return web.FileResponse(picture, headers={"Cache-Control": "no-cache"})


# ------------------------------------------------------------------------------------------------ parts of it


async def _now(found: Found) -> Now:
    """What is kept, read in a thread."""

    voices = servable(found.house, found.persona)

    def read() -> Now:
        personas = found.house.conversations.personas
        table = with_fields(personas.table(found.id), {})
        stamp = hashlib.sha256(json_bytes(table)).hexdigest()[:16]
        card = checked(table, found.house.base_model)
        return Now(table, stamp, card, personas.earlier(found.id).all(), voices)

    return await asyncio.to_thread(read)


async def _drafted(found: Found, form: Form, now: Now) -> Draft:
    fields: dict[str, Value] = {}
    for name, one in FIELDS.items():
        if one.kind == "list":
            fields[name] = texts_in(form, name)
        elif one.kind == "tags":
            fields[name] = text_in(form, name).split(",")
        else:
            fields[name] = text_in(form, name)
    return Draft(await asyncio.to_thread(checked, with_fields(now.table, fields), found.house.base_model))


def _shown(request: web.Request, found: Found, now: Now, draft: Draft, status: int = 200) -> web.Response:
    tokens: CardTokens = card_tokens(draft.card, found.house.base_model)
    wrong = dict(draft.card.wrong) | draft.wrong
    return page(
        request,
        "personas/card.html",
        title=f"{found.persona.name}: card",
        section="personas",
        status=status,
        faults=[Fault(said, name, LABELS.get(name, "")) for name, said in wrong.items()],
        tab="card",
        found=found,
        standing=standing_of(found.house, found.id),
        parts=PARTS,
        table=draft.card.table,
        wrong=wrong,
        tokens=tokens,
        most_tokens=MAX_CARD_TOKENS,
        now=now,
        draft=draft,
        longest_message=LONGEST_MESSAGE,
    )


async def _earlier(found: Found, number: str) -> tuple[Json, Kept]:
    """One of the earlier tables. Raises `Problem` where it is gone, or cannot be read."""
    earlier = found.house.conversations.personas.earlier(found.id)
    with as_problem("not-found"):
        content = await asyncio.to_thread(earlier.read, number)
        table = parse_table(content, found.id)
    kept = next(one for one in await asyncio.to_thread(earlier.all) if one.number == number)
    return table, kept


def _differences(before: Json, now: Json) -> list[Difference]:
    pairs = [(one.label, _written(before.get(name)), _written(now.get(name))) for name, one in FIELDS.items()]
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]


def _written(value: object) -> str:
    return "\n\n".join(value) if isinstance(value, list) else str(value or "").strip()


ROUTES: tuple[Route, ...] = (
    ("GET", "/dashboard/personas/{persona_id}", card_page),
    ("POST", "/dashboard/personas/{persona_id}", save_card),
    ("POST", "/dashboard/personas/{persona_id}/preview", preview_page),
    ("GET", "/dashboard/personas/{persona_id}/earlier/{number}", earlier_page),
    ("POST", "/dashboard/personas/{persona_id}/earlier/{number}", bring_back),
    ("POST", "/dashboard/personas/{persona_id}/as-shipped", as_shipped),
    ("GET", "/dashboard/personas/{persona_id}/face", face),
)
