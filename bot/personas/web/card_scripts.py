"""What the scripts of a persona's pages ask for: the check of a card, its voice before it is saved, and
tokens.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated

from aiohttp import web
from pydantic import Field as Limit

from bot.chat.filtered_reply import stream_filtered_reply
from bot.chat.model_names import LIVE_VERSION
from bot.personas.base_model_compat import token_counter_or_estimate
from bot.personas.web import card_editing
from bot.personas.web.lookup import require_persona_in_path
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.problems import redacted_texts
from bot.platform.web_kit.sse import SseItem, stream_events
from bot.platform.web_kit.validation import read_model
from bot.safety.reply_guard import WITHDRAWN
from bot.services import Services
from bot.store import BASE_MODEL_NAME
from personas.errors import UnderstudyError
from personas.schemas.base import FrozenModel
from personas.schemas.chat import ChatRequest

routes = Routes()
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


@routes.add("POST /dashboard/personas/{persona_id}/preview/events")
async def post_preview(request: web.Request) -> web.StreamResponse:
    """Stream the first reply of a conversation. Neither the card nor the message is stored."""
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


@routes.add("POST /dashboard/tokens")
async def post_tokens(request: web.Request) -> web.Response:
    """Count tokens by the names of the texts, without the chat template."""
    services = get_services(request)
    body = await read_model(request, TokenCountRequest, card_editing.MAX_CARD_BODY_BYTES)
    counts = await asyncio.to_thread(_count_tokens, services.base_model, body.texts)
    return web.json_response({"tokens": counts})


def _count_tokens(base_model: str, texts: dict[str, str]) -> dict[str, int]:
    count = token_counter_or_estimate(base_model)
    return {name: count(text) for name, text in texts.items()}


@routes.add("POST /dashboard/personas/{persona_id}/card/check")
async def post_card_check(request: web.Request) -> web.Response:
    """Say the faults of the card with these fields, and its size; nothing is saved."""
    owned = require_persona_in_path(request)
    fields = await read_model(request, card_editing.CardFields, card_editing.MAX_CARD_BODY_BYTES)
    card = await card_editing.check_edited_card(owned, fields)
    tokens = card_editing.card_tokens(card, owned.services)
    return web.json_response({"wrong": dict(card.wrong), "tokens": asdict(tokens)})
