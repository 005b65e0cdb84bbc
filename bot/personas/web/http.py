"""`/personas`: the personas of all servers, with their channels and live versions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from bot.personas.web.lookup import (
    ChannelSummary,
    OwnedPersona,
    channels_by_persona,
    owned_personas,
    persona_status,
    require_persona_in_path,
)
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.openapi import ApiModel, ApiRoutes, Links, ResponseSpec, Timestamp
from bot.platform.web_kit.paging import PAGE_PARAMETERS, paginate, parse_page_query

routes = ApiRoutes("personas")
NO_PERSONA_TEXT = "There is no such persona."


def persona_path(persona_id: str, *more: str) -> str:
    return "/".join(("/personas", persona_id, *more))


def guild_ids_as_text(versions: dict[int, str]) -> dict[str, str]:
    """Return the versions by guild with ids as text, as they exceed JSON's numbers."""
    return {str(guild_id): version for guild_id, version in versions.items()}


class NewestVersion(ApiModel):
    """The latest version of a persona, with the gate's verdict."""

    version: str
    verdict: str


class PersonaResponse(ApiModel):
    """A persona. Discord's ids are text, as they exceed JSON's numbers."""

    id: str
    name: str
    nickname: str
    tagline: str
    tags: list[str]
    guild: str
    """The server that owns it; 0 for a persona of all servers."""
    ships: bool
    """True for a card that ships with the bot."""
    edited: bool
    """True for an operator's card that replaces a shipped one."""
    live: str | None
    """The version that was promoted last for all servers without one of their own; null is the base
    model.
    """
    live_by_guild: dict[str, str]
    """The live versions of the servers that have their own."""
    speaks: str | None
    """The version that answers: a version of another base model cannot."""
    since: Timestamp
    """Time of the last promotion or rollback."""
    versions: int
    """Number of versions that can be served."""
    newest: NewestVersion | None
    channels: list[dict[str, str | None]]
    links: Links

    @classmethod
    def of(cls, owned: OwnedPersona, channels: Sequence[ChannelSummary]) -> PersonaResponse:
        status = persona_status(owned.services, owned.id)
        newest = None
        if status.newest:
            newest = NewestVersion(
                version=status.newest.version, verdict=status.newest.scorecard.verdict
            )
        return cls.describe(
            owned.persona,
            status,
            ships=owned.ships,
            guild=str(owned.guild_id),
            edited=owned.is_edited,
            live_by_guild=guild_ids_as_text(status.live_by_guild),
            newest=newest,
            channels=[vars(channel) for channel in channels],
            links={
                "self": persona_path(owned.id),
                "page": owned.page,
                "versions": persona_path(owned.id, "versions"),
            },
        )


class PersonaListResponse(ApiModel):
    """A page of personas."""

    personas: list[PersonaResponse]
    links: Links


@routes.operation(
    "GET /personas",
    "Personas",
    {
        200: ResponseSpec(
            "A page of personas; `links.next` leads to the next ones.", PersonaListResponse
        ),
        404: "There is no persona `after`.",
    },
    query=PAGE_PARAMETERS,
)
async def get_personas(request: web.Request) -> web.Response:
    """Lists the personas of all servers, shared ones first."""
    services = get_services(request)
    page = parse_page_query(request)
    everybody = owned_personas(services)
    shown, links = paginate(
        request, page, items=everybody, key=lambda persona: persona.id, noun="persona"
    )
    channels = channels_by_persona(services, [persona.id for persona in shown])
    personas = []
    for persona in shown:
        personas.append(PersonaResponse.of(persona, channels.get(persona.id, ())))
        await asyncio.sleep(0)  # some queries each: others have their turn in between
    return PersonaListResponse(personas=personas, links=links).response()


@routes.operation(
    "GET /personas/{persona_id}",
    "Get a persona",
    {200: ResponseSpec("The persona.", PersonaResponse), 404: NO_PERSONA_TEXT},
)
async def get_persona(request: web.Request) -> web.Response:
    """Returns its owner, its channels and its live version."""
    owned = require_persona_in_path(request)
    channels = channels_by_persona(owned.services, [owned.id])
    return PersonaResponse.of(owned, channels.get(owned.id, ())).response()
