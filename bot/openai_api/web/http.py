"""`POST /v1/chat/completions` and `GET /v1/models`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from aiohttp import web

from bot.chat.filtered_reply import FilteredReply, stream_filtered_reply
from bot.chat.model_names import ChatModel, UnknownModelError, VersionTable, find_model
from bot.openai_api.web import completion_request
from bot.openai_api.web.errors import OpenAIError, error_json, error_responses, openai_error
from bot.openai_api.web.responses import ChatCompletion, CompletionBuilder
from bot.personas.base_model_compat import token_counter_or_estimate
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.openapi import (
    JSON_TYPE,
    ApiModel,
    ApiRoutes,
    BodySpec,
    Json,
    ResponseSpec,
)
from bot.platform.web_kit.request_body import read_json_object
from bot.platform.web_kit.sse import SSE_HEADERS, is_connected, while_connected
from bot.safety.human_question import whole_answer
from bot.safety.reply_guard import WITHDRAWN
from bot.services import Services
from bot.store import BASE_MODEL_NAME
from personas.home.adapters import DialogueAdapter
from personas.schemas.chat import ChatRequest

DISCONNECT_POLL_S = 0.2
"""Interval of checks for a disconnected client."""
MAX_CHAT_BODY_BYTES = 2 * 2**20
"""Clients send the whole conversation each time."""
FIXED_NOTE = "the last message speaks of self-harm: this is a fixed text with helplines, which no model wrote"
HUMAN_NOTE = "the last message asks whether a human writes: this is the persona's fixed line, which no model wrote"
COMPLETION_EXAMPLE = {
    "model": "ballast",
    "messages": [{"role": "user", "content": "Is the ferry late?"}],
    "stream": False,
}
routes = ApiRoutes("openai")


@routes.operation(
    "POST /v1/chat/completions",
    "Create a chat completion, compatible with OpenAI's clients",
    {
        200: ResponseSpec(
            "The reply, or its pieces as server-sent events.",
            ChatCompletion,
            (JSON_TYPE, "text/event-stream"),
        ),
        **error_responses(
            _400="The body is not valid JSON, or a field is invalid: `param` names it.",
            _404="There is no such model.",
            _413="The body is too large.",
            _415="The body is not JSON.",
            _422="The version cannot be loaded.",
            _429="Too many replies are waiting, or too many wrong tokens were sent; try again after Retry-After.",
            _502="The server of the engine is away, fails, or refuses the prompt.",
        ),
    },
    body=BodySpec(completion_request.ChatCompletionBody, COMPLETION_EXAMPLE),
)
async def post_chat_completion(request: web.Request) -> web.StreamResponse:
    """Returns the reply as one object or as server-sent events. A client's disconnect cancels
    it.
    """
    services = get_services(request)
    body = completion_request.parse_chat_body(await read_json_object(request, MAX_CHAT_BODY_BYTES))
    model = require_model(services, body.model)
    speaker_name = model.persona.name if model.persona else ""
    context_tokens = services.engine.context_tokens
    talk = completion_request.parse_chat(body, speaker_name, context_tokens)
    chat_request = await while_connected(request, _chat_request(services, model, body, talk))
    fixed, notes = _fixed_reply(services, model, talk)
    builder = CompletionBuilder(model, chat_request.lore, notes, is_fixed=fixed is not None)
    try:
        async with (
            stream_filtered_reply(services.reply_guard, chat_request, fixed=fixed) as reply,
            _cancel_on_disconnect(request, reply),
        ):
            if body.stream:
                return await _stream_completion(request, reply, builder, body)
            async for _ in reply:
                pass
            # With the blank before it that a continued message needs.
            generated = reply.reply.text
            blank = generated[: len(generated) - len(generated.lstrip())]
            return builder.completion(reply.reply, blank + reply.text).response()
    except Exception as error:
        if refusal := openai_error(error, services.home):
            raise refusal from error
        raise


def _fixed_reply(
    services: Services, model: ChatModel, talk: completion_request.ParsedChat
) -> tuple[str | None, tuple[str, ...]]:
    """Return the text that is the reply of a persona in place of a model's, None without one, and
    the notes.
    """
    if model.persona is None:
        return None, talk.notes
    asked = talk.turns[-1].text
    if text := services.safety.answer(asked):
        return text, (*talk.notes, FIXED_NOTE)
    now = services.time_zones.now(model.guild_id)
    if text := whole_answer(model.persona, asked, now):
        return text, (*talk.notes, HUMAN_NOTE)
    return None, talk.notes


def require_model(services: Services, model: str) -> ChatModel:
    """Find the model a client names. Raises `OpenAIError`."""
    try:
        return find_model(services.personas, services.served_versions, model)
    except UnknownModelError as error:
        raise OpenAIError(
            error.message,
            error.advice,
            slug="not-found",
            status=404,
            code="model_not_found",
            param="model",
        ) from None


async def _chat_request(
    services: Services,
    model: ChatModel,
    body: completion_request.ChatCompletionBody,
    talk: completion_request.ParsedChat,
) -> ChatRequest:
    context_tokens = services.engine.context_tokens
    sampling = completion_request.sampling_parameters(
        body, services.request_builder.sampling_of(model), context_tokens
    )
    completion_request.require_prompt_fits(
        talk,
        sampling.max_new_tokens,
        context_tokens,
        count=token_counter_or_estimate(services.base_model),
    )
    request = await services.request_builder.request_to_model(
        model, talk.turns, sampling, talk.instructions
    )
    return replace(request, prefill=talk.prefill)


async def _stream_completion(
    request: web.Request,
    reply: FilteredReply,
    builder: CompletionBuilder,
    body: completion_request.ChatCompletionBody,
) -> web.StreamResponse:
    """Stream the reply from its first piece on: errors before it have an HTTP status of their
    own.
    """
    pieces = aiter(reply)
    first = await anext(pieces, "")
    answer = web.StreamResponse(headers=SSE_HEADERS)
    with suppress(ConnectionError):  # nobody reads it any more
        await answer.prepare(request)
        try:
            async for chunk in _chunks(first, pieces, reply=reply, builder=builder, body=body):
                await _send_chunk(answer, chunk)
        except ConnectionError:
            raise
        except Exception as error:  # the status has been sent, so the stream ends with the error
            known = openai_error(error, get_services(request).home) or OpenAIError.internal(error)
            await _send_chunk(answer, error_json(known))
        await answer.write(b"data: [DONE]\n\n")
        await answer.write_eof()
    return answer


async def _chunks(
    first: str,
    pieces: AsyncIterator[str],
    reply: FilteredReply,
    builder: CompletionBuilder,
    body: completion_request.ChatCompletionBody,
) -> AsyncIterator[dict[str, Any]]:
    """Yield the role, the text, the finish reason, and token usage if it was requested."""
    counts = bool(body.stream_options and body.stream_options.include_usage)
    more: dict[str, Any] = {"usage": None} if counts else {}
    is_withheld = False
    yield {**builder.begun(), **more}
    if first:
        yield {**builder.chunk({"content": first}), **more}
    async for piece in pieces:
        if piece is WITHDRAWN:  # a client cannot take back what it has
            is_withheld = True
            reply.cancel()  # the second attempt
        if not is_withheld:
            yield {**builder.chunk({"content": piece}), **more}
    yield {**builder.ended(reply.reply), **more}
    if counts:
        yield builder.used(reply.reply)


async def _send_chunk(answer: web.StreamResponse, chunk: dict[str, Any]) -> None:
    await answer.write(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode())


@asynccontextmanager
async def _cancel_on_disconnect(request: web.Request, reply: FilteredReply) -> AsyncIterator[None]:
    """Cancel the reply when the client disconnects."""

    async def watch() -> None:
        while is_connected(request):  # noqa: ASYNC110  a connection that has gone tells nobody
            await asyncio.sleep(DISCONNECT_POLL_S)
        reply.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


class ModelResponse(ApiModel):
    """A model as OpenAI's clients read it; `name` is what Open WebUI shows."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    name: str
    understudy: Json

    @classmethod
    def of(cls, model_id: str, model: ChatModel, installed_at: float) -> ModelResponse:
        persona = model.persona
        persona_id = persona.id if persona else None
        dialogue_id = model.dialogue.id if model.dialogue else None
        name = model.name
        if model_id in (persona_id, dialogue_id):
            # An id without a version: its name has none either.
            name = persona.name if persona else model_id
        return cls(
            id=model_id,
            object="model",
            created=int(installed_at),
            owned_by="understudy",
            name=name,
            understudy={"persona": persona_id, "version": model.version},
        )


class ModelListResponse(ApiModel):
    """All models."""

    object: Literal["list"]
    data: list[ModelResponse]


@routes.operation(
    "GET /v1/models",
    "List personas and versions as models",
    {200: ResponseSpec("All models.", ModelListResponse), **error_responses()},
)
async def get_models(request: web.Request) -> web.Response:
    """List each persona with its live version, then each of its versions, dialogue adapters, and
    the base model.
    """
    services = get_services(request)
    versions = VersionTable.read(services.served_versions)
    # Some thousand personas make megabytes of JSON: in a thread, the event loop goes on meanwhile.
    text = await asyncio.to_thread(_model_list_json, services, versions)
    return web.Response(body=text, content_type=JSON_TYPE)


def _model_list_json(services: Services, versions: VersionTable) -> bytes:
    # Written one by one: each step is short, and other threads have their turn in between.
    models = (ModelResponse.of(*row).model_dump_json() for row in _list_rows(services, versions))
    return f'{{"object": "list", "data": [{", ".join(models)}]}}'.encode()


def _list_rows(
    services: Services, versions: VersionTable
) -> Iterator[tuple[str, ChatModel, float]]:
    """Yield id, model and time of creation: each persona for its live version, then with each of
    its versions.
    """
    for guild_id, persona in services.personas.everybody():
        listed = versions.models(guild_id, persona)
        yield persona.id, listed.live, listed.live_since
        for model, installed_at in listed.models:
            yield model.id, model, installed_at
    for adapter in services.served_versions.dialogue_adapters():
        yield adapter.id, ChatModel.of_dialogue(adapter), _created_at(adapter)
    yield BASE_MODEL_NAME, ChatModel(), 0.0


@routes.operation(
    "GET /v1/models/{model:.+}",
    "Get a model",
    {
        200: ResponseSpec("The model.", ModelResponse),
        **error_responses(_404="There is no such model."),
    },
    parameters={
        "model": "A persona's id, optionally with a version (`ballast@v3`, `ballast@base`), a dialogue adapter "
        "(`dialogue/NAME`), or `base`."
    },
)
async def get_model(request: web.Request) -> web.Response:
    """Returns one model of the list."""
    services = get_services(request)
    model = request.match_info["model"]
    chat_model = require_model(services, model)
    return ModelResponse.of(model, chat_model, _installed_at(services, chat_model)).response()


def _installed_at(services: Services, model: ChatModel) -> float:
    """Install time of a version, or creation time of a dialogue adapter, in seconds since 1970; 0
    for others.
    """
    if model.dialogue:
        return _created_at(model.dialogue)
    installed = services.store.versions.installed(model.persona.id) if model.persona else []
    for version in installed:
        if version.version == model.version:
            return version.installed_at
    return 0.0


def _created_at(adapter: DialogueAdapter) -> float:
    with suppress(ValueError):
        return datetime.fromisoformat(adapter.created_at).timestamp()
    return 0.0
