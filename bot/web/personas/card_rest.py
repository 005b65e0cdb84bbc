"""`/personas/ID/card` and `POST /tokens`: a card read, checked, rewritten; and texts counted in tokens."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, get_args

from aiohttp import web
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Limit

from bot.card_files import ENDINGS, note_left, written_card
from bot.card_room import count_of, tokenizer_of
from bot.house import House
from bot.personas import short_id
from bot.web.bodies import json_object, parsed
from bot.web.here import Route, house_of
from bot.web.openapi import Answer, Body, described, one_of
from bot.web.paging import choice, require_known
from bot.web.personas.asking import as_problem
from bot.web.personas.card_fields import LARGEST_CARD_BYTES, CardFields, Checked, Value
from bot.web.personas.found import Found, persona_at
from bot.web.personas.preview import checked_with, require_right
from personas.card import Form, Written
from personas.card.document import Json
from personas.contracts import Persona
from personas.prompt import CONTEXT_TOKENS

TAG = "personas"
NO_PERSONA = "There is no such persona."
FIELDS_FORM = "fields"
FORMS = (FIELDS_FORM, *get_args(Form))
MEDIA: dict[Form, str] = {
    "png": "image/png", "v2": "application/json", "v3": "application/json", "charx": "application/zip",
    "toml": "application/toml",
}  # fmt: skip
MOST_TEXTS = 100


class Texts(BaseModel):
    """Texts by a name each."""

    model_config = ConfigDict(extra="forbid")
    texts: Annotated[dict[str, str], Limit(max_length=MOST_TEXTS)]


class Counted(BaseModel):
    """Tokens by the names of the texts; `exact` is false where the served model's tokenizer is not on this machine."""

    tokens: dict[str, int]
    exact: bool
    base_model: str


class CardTokens(BaseModel):
    """What a card takes: tokens by field, `prose` of every prompt, and of its examples as many as fit.

    `share` is of what prompt and reply hold together, `context_tokens`.
    """

    fields: dict[str, int]
    prose: int | None
    examples: int | None
    examples_used: int | None
    tokens: int | None
    context_tokens: int
    share: float | None
    exact: bool


class CheckedCard(BaseModel):
    """Whether a card can speak: what is wrong by field ("": of the whole), and what it takes."""

    wrong: dict[str, str]
    tokens: CardTokens


def card_tokens(card: Checked, base_model: str) -> CardTokens:
    """What a card that was looked at takes."""
    room = card.room
    return CardTokens(
        fields=dict(card.tokens),
        prose=room.prose if room else None,
        examples=room.examples if room else None,
        examples_used=room.examples_used if room else None,
        tokens=room.tokens if room else None,
        context_tokens=CONTEXT_TOKENS,
        share=room.share if room else None,
        exact=tokenizer_of(base_model) is not None,
    )


@described(
    "Count tokens",
    {200: Answer("Tokens by name.", Counted)},
    tag=TAG,
    body=Body(Texts, {"texts": {"greeting": "Mind the hook."}}),
)
async def tokens(request: web.Request) -> web.Response:
    """Counts texts as the served base model reads them, without what a chat template puts around."""
    house = house_of(request)
    texts = parsed(Texts, await json_object(request, LARGEST_CARD_BYTES)).texts
    return web.json_response((await asyncio.to_thread(_counted, house, texts)).model_dump())


def _counted(house: House, texts: dict[str, str]) -> Counted:
    """In a thread: the first time reads the tokenizer."""
    count = count_of(house.base_model)
    exact = tokenizer_of(house.base_model) is not None
    return Counted(tokens={name: count(text) for name, text in texts.items()}, exact=exact, base_model=house.base_model)


@described(
    "A card",
    {200: Answer("The card: its fields as JSON, or a file.", None, ("application/json", *sorted(set(MEDIA.values())))),
     404: NO_PERSONA, 409: "This card does not go into such a file."},
    tag=TAG,
    query={"format": one_of(FORMS, f"{FIELDS_FORM} if left out; the others are files of other programs, or ours.")},
)  # fmt: skip
async def get_card(request: web.Request) -> web.Response:
    """What a persona is: its fields as they are edited, or a file for other programs to read."""
    found = persona_at(request)
    require_known(request, "format")
    form = choice(request, "format", FORMS) or FIELDS_FORM
    if form == FIELDS_FORM:
        return web.json_response(await asyncio.to_thread(fields_json, found))
    return await as_file(found, next(one for one in get_args(Form) if one == form))


async def as_file(found: Found, form: Form) -> web.Response:
    """The card as a file to keep; it is listed as having left where a member gave it. Raises `Problem`."""
    name = short_id(found.persona, found.guild_id)
    file = f"{name}.{ENDINGS[form]}"
    with as_problem("conflict"):
        written = await asyncio.to_thread(_written, found, form, name)
    note_left(found.house, found.guild_id, found.persona, file, written.content, "to the operator")
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return web.Response(body=written.content, content_type=MEDIA[form], headers=headers)


def _written(found: Found, form: Form, name: str) -> Written:
    card = found.house.conversations.personas.card(found.persona, found.guild_id)
    return written_card(card, form, found.persona, name)


def fields_json(found: Found) -> dict[str, Any]:
    """The fields of a card, those that are empty too."""
    table = found.house.conversations.personas.table(found.id)
    empty: dict[str, Value] = {
        name: [] if name in ("tags", "alternate_greetings") else "" for name in CardFields.model_fields
    }
    return {"id": found.id, "fields": {name: table.get(name, value) for name, value in empty.items()}}


@described(
    "Check a card",
    {200: Answer("What is wrong with it, and what it takes.", CheckedCard), 404: NO_PERSONA},
    tag=TAG,
    body=Body(CardFields, {"tagline": "A crane."}),
)
async def check_card(request: web.Request) -> web.Response:
    """Looks at the persona's card with these fields in place of its own; nothing is kept."""
    found = persona_at(request)
    card = await checked_with(found, parsed(CardFields, await json_object(request, LARGEST_CARD_BYTES)))
    told = CheckedCard(wrong=dict(card.wrong), tokens=card_tokens(card, found.house.base_model))
    return web.json_response(told.model_dump())


@described(
    "Rewrite a card",
    {200: Answer("What it takes now.", CheckedCard), 404: NO_PERSONA, 409: "Another persona has this name."},
    tag=TAG,
    body=Body(CardFields, {"tagline": "A crane."}),
)
async def put_card(request: web.Request) -> web.Response:
    """The persona speaks by it from its next reply on. Fields that are left out stay; what it said before is kept.

    Of a card that came with the bot a copy is made in UNDERSTUDY_HOME, which wins.
    """
    found = persona_at(request)
    card = await checked_with(found, parsed(CardFields, await json_object(request, LARGEST_CARD_BYTES)))
    await rewrite(found, card)
    told = CheckedCard(wrong={}, tokens=card_tokens(card, found.house.base_model))
    return web.json_response(told.model_dump())


async def rewrite(found: Found, card: Checked) -> Persona:
    """Let a persona speak by a card that was looked at. Raises `Problem`."""
    require_right(card)
    return await rewritten(found, card.table)


async def rewritten(found: Found, table: Json) -> Persona:
    """Let a persona speak by this table. Raises `Problem` where another one has its name."""
    personas = found.house.conversations.personas
    with as_problem("conflict"):
        persona = await asyncio.to_thread(personas.rewrite, found.id, table)
    make_ready(found, persona)
    return persona


def make_ready(found: Found, persona: Persona) -> None:
    """Have what its prompts begin with now ready before they come."""
    conversations = found.house.conversations
    version = conversations.speaking(found.id)
    adapter = conversations.adapter(found.id, version) if version else None
    found.house.answerer.engine.prepare(persona, adapter)


ROUTES: tuple[Route, ...] = (
    ("POST", "/tokens", tokens),
    ("GET", "/personas/{persona_id}/card", get_card),
    ("PUT", "/personas/{persona_id}/card", put_card),
    ("POST", "/personas/{persona_id}/card/check", check_card),
)
