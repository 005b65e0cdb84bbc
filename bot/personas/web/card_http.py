"""`/personas/ID/card`, `/personas/ID/preview` and `POST /tokens`: reads, checks, previews and
replaces a card.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Self, cast, get_args

from aiohttp import web
from pydantic import Field as Limit

from bot.chat.filtered_reply import stream_filtered_reply
from bot.chat.model_names import LIVE_VERSION
from bot.personas.base_model_compat import load_token_counter, token_counter_or_estimate
from bot.personas.card_import import FILE_SUFFIXES, export_card, log_card_export
from bot.personas.web import card_editing
from bot.personas.web.lookup import OwnedPersona, require_persona_in_path
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.openapi import ApiModel, ApiRoutes, BodySpec, ResponseSpec, enum_parameter
from bot.platform.web_kit.paging import enum_query, require_known_parameters
from bot.platform.web_kit.problems import redacted_texts
from bot.platform.web_kit.request_body import errors_as_problems
from bot.platform.web_kit.sse import SseItem, stream_events
from bot.platform.web_kit.validation import read_model
from bot.safety.reply_guard import WITHDRAWN
from bot.services import Services
from bot.store import BASE_MODEL_NAME
from personas.card.card_writer import CardExport, CardForm
from personas.card.toml_card import LIST_FIELDS
from personas.errors import UnderstudyError
from personas.home.persona_ids import short_id
from personas.schemas.base import FrozenModel
from personas.schemas.chat import ChatRequest

routes = ApiRoutes("personas")
NO_PERSONA_TEXT = "There is no such persona."
FIELDS_FORMAT = "fields"
CARD_FORMATS = (FIELDS_FORMAT, *get_args(CardForm))
MEDIA_TYPES: dict[CardForm, str] = {
    "png": "image/png", "v2": "application/json", "v3": "application/json", "charx": "application/zip",
    "toml": "application/toml",
}  # fmt: skip
MAX_TEXTS = 100


class PreviewBody(FrozenModel):
    """A message to a persona, the version that answers, and changed fields of its card."""

    message: Annotated[
        str, Limit(min_length=1, max_length=card_editing.MAX_MESSAGE_CHARS, pattern=r"\S")
    ]
    version: Annotated[
        str, Limit(max_length=64, description=f"a version, {LIVE_VERSION} or {BASE_MODEL_NAME}")
    ] = LIVE_VERSION
    card: card_editing.CardFields = card_editing.CardFields()


@routes.operation(
    "POST /personas/{persona_id}/preview",
    "Preview a card's voice before saving it",
    {
        200: ResponseSpec(
            "Server-sent events: `text` for each piece, `withdrawn` where the text begins anew, then "
            "`reply` with the whole text, or `problem`.",
            media="text/event-stream",
        ),
        404: "There is no such persona, or no such version.",
    },
    body=BodySpec(
        PreviewBody,
        {"message": "Who are you?", "version": LIVE_VERSION, "card": {"tagline": "A crane."}},
    ),
)
async def post_preview(request: web.Request) -> web.StreamResponse:
    """Generates the first reply of a conversation. Neither the card nor the message is stored."""
    owned = require_persona_in_path(request)
    body = await read_model(request, PreviewBody, card_editing.MAX_CARD_BODY_BYTES)
    card = await card_editing.check_edited_card(owned, body.card)
    speaker = card_editing.preview_model(owned, body.version, card)
    chat_request = await card_editing.preview_request(owned, speaker, body.message)
    return await stream_events(request, preview_events(owned.services, chat_request))


async def preview_events(services: Services, request: ChatRequest) -> AsyncIterator[SseItem]:
    """Yield the pieces of a reply, then the whole of it, or the problem."""
    try:
        async with stream_filtered_reply(
            services.reply_guard, request, fixed=card_editing.fixed_reply(services, request)
        ) as speech:
            async for piece in speech:
                if piece is WITHDRAWN:
                    yield "", "withdrawn", {}
                else:
                    yield "", "text", {"text": piece}
            yield "", "reply", card_editing.reply_json(speech)
    except UnderstudyError as error:
        detail, advice = redacted_texts(error, services.home)
        yield "", "problem", {"detail": detail, "advice": advice}


class TokenCountRequest(FrozenModel):
    """Texts by a name each."""

    texts: Annotated[dict[str, str], Limit(max_length=MAX_TEXTS)]


class TokenCounts(ApiModel):
    """Tokens by the names of the texts; `exact` is false where the served model's tokenizer is not
    on this machine.
    """

    tokens: dict[str, int]
    exact: bool
    base_model: str


class CheckedCard(ApiModel):
    """The check of a card: errors by field ("" for the whole card), and token counts."""

    wrong: dict[str, str]
    tokens: card_editing.CardTokens

    @classmethod
    def of(cls, owned: OwnedPersona, card: card_editing.CardCheck) -> Self:
        tokens = card_editing.card_tokens(card, owned.services)
        return cls(wrong=dict(card.wrong), tokens=tokens)


@routes.operation(
    "POST /tokens",
    "Count tokens",
    {200: ResponseSpec("Tokens by name.", TokenCounts)},
    body=BodySpec(TokenCountRequest, {"texts": {"greeting": "Mind the hook."}}),
)
async def post_tokens(request: web.Request) -> web.Response:
    """Counts tokens with the served base model's tokenizer, without the chat template."""
    services = get_services(request)
    body = await read_model(request, TokenCountRequest, card_editing.MAX_CARD_BODY_BYTES)
    counts = await asyncio.to_thread(_count_tokens, services.base_model, body.texts)
    return counts.response()


def _count_tokens(base_model: str, texts: dict[str, str]) -> TokenCounts:
    count = token_counter_or_estimate(base_model)
    exact = load_token_counter(base_model) is not None
    return TokenCounts(
        tokens={name: count(text) for name, text in texts.items()},
        exact=exact,
        base_model=base_model,
    )


@routes.operation(
    "GET /personas/{persona_id}/card",
    "Get a card",
    {
        200: ResponseSpec(
            "The card: its fields as JSON, or a file.",
            None,
            ("application/json", *sorted(set(MEDIA_TYPES.values()))),
        ),
        404: NO_PERSONA_TEXT,
        409: "This card does not go into such a file.",
    },
    query={
        "format": enum_parameter(
            CARD_FORMATS,
            f"{FIELDS_FORMAT} if left out; the others are files of other programs, or ours.",
        )
    },
)
async def get_card(request: web.Request) -> web.Response:
    """Returns the editable fields, or a file for other programs."""
    owned = require_persona_in_path(request)
    require_known_parameters(request, "format")
    form = enum_query(request, "format", CARD_FORMATS) or FIELDS_FORMAT
    if form == FIELDS_FORMAT:
        return web.json_response(await asyncio.to_thread(fields_json, owned))
    return await card_file_response(owned, cast(CardForm, form))


async def card_file_response(owned: OwnedPersona, form: CardForm) -> web.Response:
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


def fields_json(owned: OwnedPersona) -> dict[str, Any]:
    """The fields of a card, including empty ones."""
    table = owned.services.personas.table(owned.id)
    fields: dict[str, card_editing.FieldValue] = {}
    for name in card_editing.CardFields.model_fields:
        empty: card_editing.FieldValue = [] if name in LIST_FIELDS else ""
        fields[name] = table.get(name, empty)
    return {"id": owned.id, "fields": fields}


class ImportedParts(ApiModel):
    """What is used of a card: each part with `what` it is and, unless it is taken as is, `why`."""

    as_is: list[dict[str, str]]
    other_meaning: list[dict[str, str]]
    not_taken: list[dict[str, str]]


@routes.operation(
    "GET /personas/{persona_id}/card/imported",
    "List what is used of a card",
    {
        200: ResponseSpec(
            "Its fields, macros and book entries by what became of them.", ImportedParts
        ),
        404: NO_PERSONA_TEXT,
    },
)
async def get_imported_parts(request: web.Request) -> web.Response:
    """Says what of the stored card is taken as is, what has another meaning here, and what has no
    effect, and why.
    """
    owned = require_persona_in_path(request)
    report = await asyncio.to_thread(
        card_editing.report_table, owned.services.personas.table(owned.id)
    )
    return ImportedParts(**report.as_json()).response()


@routes.operation(
    "POST /personas/{persona_id}/card/check",
    "Check a card",
    {
        200: ResponseSpec("The card's faults, and its size in tokens.", CheckedCard),
        404: NO_PERSONA_TEXT,
    },
    body=BodySpec(card_editing.CardFields, {"tagline": "A crane."}),
)
async def post_card_check(request: web.Request) -> web.Response:
    """Checks the persona's card with these fields; nothing is saved."""
    owned = require_persona_in_path(request)
    card = await _read_edited_card(request, owned)
    return CheckedCard.of(owned, card).response()


async def _read_edited_card(request: web.Request, owned: OwnedPersona) -> card_editing.CardCheck:
    """The card with the fields of the body, and its faults."""
    fields = await read_model(request, card_editing.CardFields, card_editing.MAX_CARD_BODY_BYTES)
    return await card_editing.check_edited_card(owned, fields)


@routes.operation(
    "PUT /personas/{persona_id}/card",
    "Rewrite a card",
    {
        200: ResponseSpec("Its new size in tokens.", CheckedCard),
        404: NO_PERSONA_TEXT,
        409: "Another persona has this name.",
    },
    body=BodySpec(card_editing.CardFields, {"tagline": "A crane."}),
)
async def put_card(request: web.Request) -> web.Response:
    """Takes effect with the next reply. Omitted fields stay; the previous card is stored.

    A shipped card is copied to UNDERSTUDY_HOME, and the copy takes precedence.
    """
    owned = require_persona_in_path(request)
    card = await _read_edited_card(request, owned)
    await card_editing.replace_card(owned, card)
    return CheckedCard.of(owned, card).response()
