"""`GET /v1/models` and `GET /v1/models/{model}`: who can be talked to, as models."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from bot.house import House
from bot.speakers import Speaker, speakers
from bot.web.here import house_of
from bot.web.openai.chat import named
from bot.web.openai.errors import errors
from bot.web.openapi import Answer, described

MODEL = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by", "name", "understudy"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "name": {"type": "string"},
        "understudy": {"type": "object"},
    },
}
MODELS = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": MODEL}},
}


@described("Who can be talked to, as models", {200: Answer("All of them.", MODELS), **errors()}, tag="openai")
async def get_models(request: web.Request) -> web.Response:
    """Each persona as it speaks now, then each of its versions, then the base model."""
    house = house_of(request)
    data = [model_json(house, speaker.id, speaker) for speaker in speakers(house)]
    live = {speaker.persona.id: named(house, speaker.persona.id) for speaker in speakers(house) if speaker.persona}
    now = [model_json(house, persona_id, speaker) for persona_id, speaker in live.items()]
    return web.json_response({"object": "list", "data": [*now, *data]})


@described(
    "One model",
    {200: Answer("The model.", MODEL), **errors(_404="There is no such model.")},
    tag="openai",
    path={"model": "A persona's id, or with a version: `ballast@v3`, `ballast@base`; `base` alone."},
)
async def get_model(request: web.Request) -> web.Response:
    """One of them."""
    house, model = house_of(request), request.match_info["model"]
    return web.json_response(model_json(house, model, named(house, model)))


def model_json(house: House, model_id: str, speaker: Speaker) -> dict[str, Any]:
    """A model as OpenAI's clients read it; `name` is what Open WebUI shows."""
    persona = speaker.persona
    return {
        "id": model_id,
        "object": "model",
        "created": _created(house, speaker),
        "owned_by": "understudy",
        "name": persona.name if persona and model_id == persona.id else speaker.name,
        "understudy": {"persona": persona.id if persona else None, "version": speaker.version},
    }


def _created(house: House, speaker: Speaker) -> int:
    """When the version was installed, in seconds since 1970; 0 for the base model, which was there before."""
    installed = house.store.versions.installed(speaker.persona.id) if speaker.persona else []
    return next((int(one.installed_at) for one in installed if one.version == speaker.version), 0)


ROUTES = (("GET", "/v1/models", get_models), ("GET", "/v1/models/{model}", get_model))
