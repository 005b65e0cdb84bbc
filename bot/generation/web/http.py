"""`/personas/ID/generation`: length, sampling and context of a persona's replies."""

from __future__ import annotations

from typing import Annotated, Self

from aiohttp import web
from pydantic import Field

from bot.generation.actions import MAX_TEMPERATURE, MIN_TOP_P
from bot.generation.store import FIELDS, SettingValue
from bot.generation.web.places import GenerationPlace, find_place, list_places
from bot.personas.web.lookup import OwnedPersona, require_persona_in_path
from bot.platform.web_kit.openapi import ApiModel, ApiRoutes, BodySpec, ResponseSpec
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import errors_as_problems
from bot.platform.web_kit.validation import read_model
from personas.engine.context_window import MIN_CONTEXT_TOKENS
from personas.schemas.base import FrozenModel

NO_PLACE_TEXT = "There is no such persona, or it does not live there, or no such server."
MAX_ID_DIGITS = 20
DiscordId = Annotated[str, Field(pattern=rf"^[0-9]{{1,{MAX_ID_DIGITS}}}$")]
PLACE_PARAMETERS = {
    "guild": "A server's id; all servers if left out.",
    "channel": "The id of one of its channels in which the persona lives.",
}
routes = ApiRoutes("personas")


class GenerationFields(FrozenModel):
    """Settings of replies. A field that is null is left to the next place: a channel's to the
    persona in that server, that to the persona in all servers, and that to the bot's own settings.
    """

    # The largest are today's bounds, which `GenerationActions.change` checks.
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=MAX_TEMPERATURE)] | None = None
    top_p: Annotated[float, Field(ge=MIN_TOP_P, le=1)] | None = None
    context_tokens: Annotated[int, Field(ge=MIN_CONTEXT_TOKENS)] | None = None


class GenerationChange(GenerationFields):
    """The fields to change, at a place; those that are left out stay as they are."""

    guild: DiscordId | None = None
    channel: DiscordId | None = None

    @property
    def changes(self) -> dict[str, SettingValue | None]:
        return {name: getattr(self, name) for name in FIELDS if name in self.model_fields_set}


class HeldSetting(ApiModel):
    """A value that holds and its source.

    `asked` is the stored value where today's bounds do not allow it.
    """

    value: SettingValue
    source: str
    asked: SettingValue | None = None


class SettingBounds(ApiModel):
    """The smallest and the largest value that can be set now, and what sets the latter."""

    low: SettingValue
    high: SettingValue
    reason: str


class PlaceSettings(ApiModel):
    """The settings of one place: a channel, a server (`channel` is null), or all servers (`guild`
    is "0").
    """

    guild: str
    channel: str | None
    name: str
    settings: dict[str, SettingValue | None]

    @classmethod
    def of(cls, place: GenerationPlace) -> Self:
        channel = str(place.channel_id) if place.channel_id else None
        stored = vars(place.stored)
        return cls(guild=str(place.guild_id), channel=channel, name=place.name, settings=stored)


class GenerationResponse(ApiModel):
    """What holds for a persona's replies at a place, and what is set for each place."""

    holds: dict[str, HeldSetting]
    bounds: dict[str, SettingBounds]
    places: list[PlaceSettings]

    @classmethod
    def of(cls, owned: OwnedPersona, place: GenerationPlace) -> Self:
        holds = {}
        for name, held in place.effective.values.items():
            known = {key: value for key, value in vars(held).items() if value is not None}
            holds[name] = HeldSetting(**known)
        bounds = {}
        for name, limits in owned.services.generation.bounds().items():
            bounds[name] = SettingBounds(**vars(limits))
        places = [PlaceSettings.of(other) for other in list_places(owned)]
        return cls(holds=holds, bounds=bounds, places=places)


@routes.operation(
    "GET /personas/{persona_id}/generation",
    "Get generation settings",
    {
        200: ResponseSpec("What holds, and why.", GenerationResponse),
        404: NO_PLACE_TEXT,
        422: "The server or the channel is no id.",
    },
    query=PLACE_PARAMETERS,
)
async def get_generation(request: web.Request) -> web.Response:
    """Returns what holds at a place, today's bounds, and the settings of all places."""
    owned = require_persona_in_path(request)
    return GenerationResponse.of(owned, _place_in_query(request, owned)).response()


@routes.operation(
    "PATCH /personas/{persona_id}/generation",
    "Change generation settings",
    {
        200: ResponseSpec("What holds now.", GenerationResponse),
        404: NO_PLACE_TEXT,
        409: "A value is beyond today's bounds.",
    },
    body=BodySpec(GenerationChange, {"max_new_tokens": 300, "temperature": None}),
)
async def patch_generation(request: web.Request) -> web.Response:
    """Changes the given fields for a place; null leaves a field to the next place."""
    owned = require_persona_in_path(request)
    body = await read_model(request, GenerationChange)
    place = find_place(owned, _number(body.guild), _number(body.channel))
    with errors_as_problems("conflict"):
        owned.services.generation.change(place.scope, body.changes)
    return GenerationResponse.of(owned, place).response()


@routes.operation(
    "DELETE /personas/{persona_id}/generation",
    "Reset generation settings",
    {
        200: ResponseSpec("What holds now.", GenerationResponse),
        404: NO_PLACE_TEXT,
        409: "Nothing is set there.",
        422: "The server or the channel is no id.",
    },
    query=PLACE_PARAMETERS,
)
async def delete_generation(request: web.Request) -> web.Response:
    """Removes all settings of a place."""
    owned = require_persona_in_path(request)
    place = _place_in_query(request, owned)
    with errors_as_problems("conflict"):
        owned.services.generation.reset(place.scope)
    return GenerationResponse.of(owned, place).response()


def _place_in_query(request: web.Request, owned: OwnedPersona) -> GenerationPlace:
    ids = []
    for name in PLACE_PARAMETERS:
        text = request.query.get(name, "")
        if text and not (text.isascii() and text.isdecimal() and len(text) <= MAX_ID_DIGITS):
            raise Problem("invalid-request", f"{name} is no id: {text[:80]!r}.", "Send its digits.")
        ids.append(_number(text))
    guild_id, channel_id = ids
    return find_place(owned, guild_id, channel_id)


def _number(text: str | None) -> int | None:
    return int(text) if text else None
