"""The voice before it is kept: a message answered with the card as it stands in the form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Limit

from bot.speakers import NOW, Speaker, request_to, speaker_named
from bot.speech import Speech, speaking
from bot.store import BASE
from bot.web.bodies import json_object, parsed
from bot.web.events import Item, stream
from bot.web.here import Route
from bot.web.openapi import Answer, Body, described
from bot.web.personas.asking import as_problem
from bot.web.personas.card_fields import LARGEST_CARD_BYTES, CardFields, Checked, checked, with_fields
from bot.web.personas.found import Found, persona_at
from bot.web.problems import Problem
from bot.web.words import without_places
from personas.contracts import ChatRequest, Turn
from personas.errors import UnderstudyError
from personas.prompt import EXAMPLE_USER

LONGEST_MESSAGE = 4000


class PreviewBody(BaseModel):
    """What is said to the persona, which version of it answers, and fields of its card that are other than kept."""

    model_config = ConfigDict(extra="forbid")
    message: Annotated[str, Limit(min_length=1, max_length=LONGEST_MESSAGE, pattern=r"\S")]
    version: Annotated[str, Limit(max_length=64, description=f"a version, {NOW} or {BASE}")] = NOW
    card: CardFields = CardFields()


def voice_of(found: Found, version: str, card: Checked) -> Speaker:
    """Who answers: a version (`live`: the one that speaks, `base`: none) with this card. Raises `Problem`."""
    require_right(card)
    with as_problem("not-found"):
        speaker = speaker_named(found.house, f"{found.id}@{version}")
    return replace(speaker, persona=card.persona)


def require_right(card: Checked) -> None:
    """Raise `Problem`, which names the field, for a card that cannot speak."""
    if card.wrong:
        errors = [{"field": name, "pointer": f"#/{name}" if name else "#", "detail": said}
                  for name, said in card.wrong.items()]  # fmt: skip
        said = "; ".join(card.wrong.values())
        raise Problem("invalid-request", f"The card cannot be: {said}", "Correct what `errors` names.", errors=errors)


def asked(found: Found, speaker: Speaker, message: str) -> ChatRequest:
    """What the engine is asked: as at the beginning of a talk, with the lore that the message finds."""
    turns = [Turn(EXAMPLE_USER, message)]
    return request_to(found.house.conversations, speaker, turns, found.house.conversations.sampling)


def reply_json(speech: Speech, request: ChatRequest) -> dict[str, Any]:
    """A finished reply with what it took."""
    reply = speech.reply
    return {
        "text": speech.text,
        "version": reply.version,
        "seed": reply.seed,
        "prompt_tokens": reply.prompt_tokens,
        "new_tokens": reply.new_tokens,
        "finish": reply.finish,
        "shortened": reply.shortened,
        "repeated": reply.repeated,
        "lore": [{"source": hit.source, "heading": hit.heading, "score": round(hit.score, 3)} for hit in request.lore],
    }


async def whole_reply(found: Found, request: ChatRequest) -> dict[str, Any]:
    """The reply at once, for pages without scripts. Raises `Problem` when it cannot be made."""
    with as_problem("busy"):
        async with speaking(found.house, request) as speech:
            async for _ in speech:
                pass
            return reply_json(speech, request)


async def checked_with(found: Found, fields: CardFields) -> Checked:
    """The persona's card with other fields, looked at."""

    def look() -> Checked:
        table = found.house.conversations.personas.table(found.id)
        return checked(with_fields(table, fields.given()), found.house.base_model)

    return await asyncio.to_thread(look)


@described(
    "Hear a voice before it is kept",
    {
        200: Answer(
            "Server-sent events: `text` with each piece, then `reply` with the whole, or `problem`.",
            media="text/event-stream",
        ),
        404: "There is no such persona, or no such version.",
    },
    tag="personas",
    body=Body(PreviewBody, {"message": "Who are you?", "version": NOW, "card": {"tagline": "A crane."}}),
)
async def preview(request: web.Request) -> web.StreamResponse:
    """A reply as at the beginning of a talk. Nothing is kept, neither the card nor what was said."""
    found = persona_at(request)
    body = parsed(PreviewBody, await json_object(request, LARGEST_CARD_BYTES))
    speaker = voice_of(found, body.version, await checked_with(found, body.card))
    return await stream(request, _said(found, asked(found, speaker, body.message)))


async def _said(found: Found, request: ChatRequest) -> AsyncIterator[Item]:
    try:
        async with speaking(found.house, request) as speech:
            async for piece in speech:
                yield "", "text", {"text": piece}
            yield "", "reply", reply_json(speech, request)
    except UnderstudyError as error:
        home = found.house.home
        told = {"detail": without_places(error.message, home), "advice": without_places(error.advice, home)}
        yield "", "problem", told


ROUTES: tuple[Route, ...] = (("POST", "/personas/{persona_id}/preview", preview),)
