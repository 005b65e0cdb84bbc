"""`POST /v1/chat/completions`: a persona answers an OpenAI client, at once or piece by piece."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from bot.card_room import count_of
from bot.house import House
from bot.speakers import NoSuchSpeakerError, Speaker, request_to, speaker_named
from bot.speech import Speech, speaking
from bot.web.bodies import json_object
from bot.web.events import HEADERS, is_heard
from bot.web.here import house_of
from bot.web.openai.asked import ChatBody, chat_body, require_room, sampling_of, talk_of
from bot.web.openai.errors import Refusal, error_json, errors, refusal_of
from bot.web.openai.shapes import Shapes
from bot.web.openapi import JSON, Answer, Body, described
from personas.contracts import ChatRequest

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.2
"""How often it is looked whether the client is still there."""
LARGEST_TALK_BYTES = 2 * 2**20
"""Clients send the whole talk each time, however much of it fits."""


COMPLETION = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage", "understudy"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "chat.completion"},
        "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "object"}},
        "usage": {"type": "object", "additionalProperties": {"type": "integer"}},
        "understudy": {"type": "object"},
    },
}
EXAMPLE = {"model": "ballast", "messages": [{"role": "user", "content": "Is the ferry late?"}], "stream": False}


@described(
    "Have a persona answer, as OpenAI's clients ask",
    {
        200: Answer("The reply, or its pieces as server-sent events.", COMPLETION, (JSON, "text/event-stream")),
        **errors(
            _400="The body is no JSON, or a field cannot be as it is: `param` names it.",
            _404="There is no such model.",
            _413="The body is too large.",
            _415="The body is not JSON.",
            _422="The version cannot be loaded.",
            _429="Too many replies wait, or too many wrong tokens have come; Retry-After says when to ask again.",
        ),
    },
    tag="openai",
    body=Body(ChatBody, EXAMPLE),
)
async def chat_completions(request: web.Request) -> web.StreamResponse:
    """The reply, as one object or as server-sent events. Its place in the engine is free once the client has gone."""
    house = house_of(request)
    asked = chat_body(await json_object(request, LARGEST_TALK_BYTES))
    speaker = named(house, asked.model)
    wanted = _request(house, speaker, asked)
    shapes = Shapes(speaker, wanted.lore)
    try:
        async with speaking(house, wanted) as speech, _while_heard(request, speech):
            if asked.stream:
                return await _streamed(request, speech, shapes, asked)
            async for _ in speech:
                pass
            return web.json_response(shapes.completion(speech.reply, speech.text))
    except Exception as error:
        if refusal := refusal_of(error, house.home):
            raise refusal from error
        raise


def named(house: House, model: str) -> Speaker:
    """Whom a client means. Raises `Refusal`."""
    try:
        return speaker_named(house, model)
    except NoSuchSpeakerError as error:
        raise Refusal(
            error.message, error.advice, slug="not-found", status=404, code="model_not_found", param="model"
        ) from None


def _request(house: House, speaker: Speaker, asked: ChatBody) -> ChatRequest:
    talk = talk_of(asked, speaker.persona.name if speaker.persona else "")
    sampling = sampling_of(asked, house.conversations.sampling)
    require_room(talk, sampling.max_new_tokens, count_of(house.base_model))
    return request_to(house.conversations, speaker, talk.turns, sampling, talk.instructions)


async def _streamed(request: web.Request, speech: Speech, shapes: Shapes, asked: ChatBody) -> web.StreamResponse:
    """Server-sent events. They begin with the first piece: what goes wrong before it has an HTTP status of its own."""
    pieces = aiter(speech)
    first = await anext(pieces, "")
    answer = web.StreamResponse(headers=HEADERS)
    with suppress(ConnectionError):  # nobody reads it any more
        await answer.prepare(request)
        try:
            async for chunk in _chunks(first, pieces, speech, shapes, asked):
                await _send(answer, chunk)
        except ConnectionError:
            raise
        except Exception as error:  # the status has been sent: it is said in the stream
            await _send(answer, error_json(refusal_of(error, house_of(request).home) or _unforeseen(error)))
        await answer.write(b"data: [DONE]\n\n")
        await answer.write_eof()
    return answer


async def _chunks(
    first: str, pieces: AsyncIterator[str], speech: Speech, shapes: Shapes, asked: ChatBody
) -> AsyncIterator[dict[str, Any]]:
    """The role, the text, how it ended; and how many tokens that took, where the client wants to know."""
    counts = bool(asked.stream_options and asked.stream_options.include_usage)
    more: dict[str, Any] = {"usage": None} if counts else {}
    yield {**shapes.begun(), **more}
    if first:
        yield {**shapes.chunk({"content": first}), **more}
    async for piece in pieces:
        yield {**shapes.chunk({"content": piece}), **more}
    yield {**shapes.ended(speech.reply), **more}
    if counts:
        yield shapes.used(speech.reply)


async def _send(answer: web.StreamResponse, chunk: dict[str, Any]) -> None:
    await answer.write(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode())


def _unforeseen(error: Exception) -> Refusal:
    code = secrets.token_hex(4)
    log.error("error %s", code, exc_info=error)
    return Refusal("That went wrong inside the bot.", f"Its log says why under {code}.", slug="failed", status=500)


@asynccontextmanager
async def _while_heard(request: web.Request, speech: Speech) -> AsyncIterator[None]:
    """Stop the reply when the client closes the connection before its end."""

    async def watch() -> None:
        while is_heard(request):  # noqa: ASYNC110  a connection that has gone tells nobody
            await asyncio.sleep(LOOK_EVERY_S)
        speech.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


ROUTES = (("POST", "/v1/chat/completions", chat_completions),)
