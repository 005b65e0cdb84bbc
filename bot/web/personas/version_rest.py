"""`/personas`, their versions, and which of these speaks."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from bot import promoting
from bot.store import InstalledVersion, Promotion
from bot.web.bodies import json_object, parsed
from bot.web.here import Route, house_of
from bot.web.openapi import Answer, Body, described
from bot.web.overview import spots_of
from bot.web.paging import PAGED, links, paged
from bot.web.personas.asking import as_problem
from bot.web.personas.card_rest import NO_PERSONA, TAG
from bot.web.personas.facts import (
    CHANGE,
    LINKS,
    PERSONA,
    VERSION,
    change_json,
    in_folder,
    persona_json,
    version_json,
)
from bot.web.personas.found import Found, persona_at, version_at
from bot.web.problems import Problem
from personas.for_everybody import OPERATOR

NOBODY = 0
NO_VERSION = "There is no such persona, or no such version."


def _list_of(name: str, items: dict[str, Any], **more: Any) -> dict[str, Any]:
    listed = {name: {"type": "array", "items": items}, "links": LINKS, **more}
    return {"type": "object", "required": [*listed], "properties": listed}


class Promoting(BaseModel):
    """`anyway` is needed for a version that the gate rejects, or members speak against."""

    model_config = ConfigDict(extra="forbid")
    anyway: bool = False


@described(
    "Personas",
    {200: Answer("A page of personas; `links.next` leads to the next ones.", _list_of("personas", PERSONA)),
     404: "There is no persona `after`."},
    tag=TAG,
    query=PAGED,
)  # fmt: skip
async def get_personas(request: web.Request) -> web.Response:
    """Every persona of every server, those of all servers first."""
    house, asked = house_of(request), paged(request)
    everybody = [Found(house, guild_id, persona) for guild_id, persona in house.conversations.personas.everybody()]
    ids = [one.id for one in everybody]
    if asked.after is not None and asked.after not in ids:
        raise Problem("not-found", f"There is no persona {asked.after[:80]!r}.", "Begin without `after`.")
    begin = ids.index(asked.after) + 1 if asked.after is not None else 0
    shown, spots = everybody[begin : begin + asked.limit], spots_of(house)
    last = shown[-1].id if begin + asked.limit < len(everybody) else None
    listed = [persona_json(one, tuple(spots.get(one.id, ()))) for one in shown]
    return web.json_response({"personas": listed, "links": links(request, asked, last)})


@described("One persona", {200: Answer("The persona.", PERSONA), 404: NO_PERSONA}, tag=TAG)
async def get_persona(request: web.Request) -> web.Response:
    """Whose it is, where it lives, which version speaks."""
    found = persona_at(request)
    return web.json_response(persona_json(found, tuple(spots_of(found.house).get(found.id, ()))))


@described(
    "A persona's versions, newest first",
    {
        200: Answer(
            "A page of versions, and every change of the live one, oldest first.",
            _list_of(
                "versions", VERSION, live={"type": ["string", "null"]}, changes={"type": "array", "items": CHANGE}
            ),
        ),
        404: "There is no such persona, or no version `after`.",
    },
    tag=TAG,
    query=PAGED,
)
async def get_versions(request: web.Request) -> web.Response:
    """All that were ever there, withdrawn ones too."""
    asked, found = paged(request), persona_at(request)
    versions = found.house.store.versions
    made = versions.ever_installed(found.id)[::-1]
    names = [one.version for one in made]
    if asked.after is not None and asked.after not in names:
        raise Problem("not-found", f"There is no version {asked.after[:80]!r}.", "Begin without `after`.")
    begin = names.index(asked.after) + 1 if asked.after is not None else 0
    shown = made[begin : begin + asked.limit]
    last = shown[-1].version if begin + asked.limit < len(made) else None
    return web.json_response(
        {
            "live": versions.live(found.id),
            "versions": [version_json(found.house, one) for one in shown],
            "changes": [change_json(change) for change in versions.history(found.id)],
            "links": links(request, asked, last),
        }
    )


@described("One version", {200: Answer("The version.", VERSION), 404: NO_VERSION}, tag=TAG)
async def get_version(request: web.Request) -> web.Response:
    """With its whole score card, and what its manifest tells of how it was made."""
    found = persona_at(request)
    made = version_at(request, found)
    told = await asyncio.to_thread(in_folder, found.house, made)
    return web.json_response(version_json(found.house, made) | told)


@described(
    "Promote a version",
    {
        200: Answer("The version, live.", VERSION),
        404: NO_VERSION,
        409: "The gate or members speak against it, it cannot be served, or the key belongs to another request.",
    },
    tag=TAG,
    body=Body(Promoting, {"anyway": False}, required=False),
)
async def promote(request: web.Request) -> web.Response:
    """It is loaded first, so that a damaged one never gets to speak; then it makes every reply from the next one on."""
    found = persona_at(request)
    made = version_at(request, found)
    body = parsed(Promoting, await json_object(request) if request.body_exists else {})
    await make_live(found, made, anyway=body.anyway)
    return web.json_response(version_json(found.house, made))


@described(
    "Roll back",
    {
        200: Answer("What speaks now.", CHANGE),
        404: NO_PERSONA,
        409: "There is nothing to go back to, or the key belongs to another request.",
    },
    tag=TAG,
)
async def rollback(request: web.Request) -> web.Response:
    """The version that was live before speaks from the next reply on; twice goes two versions back."""
    return web.json_response(change_json(roll_back(persona_at(request))))


async def make_live(found: Found, made: InstalledVersion, *, anyway: bool) -> bool:
    """Make a version live; False where it was. Raises `Problem` where it may not, or cannot."""
    house, version = found.house, made.version
    if house.store.versions.is_withdrawn(found.id, version):
        raise Problem("conflict", f"{version} was withdrawn.", "Train another one.")
    if model := house.conversations.left_behind.model_of(found.id, version):
        raise Problem("conflict", f"{version} was made for {model}, which is not served here.", "Train it again.")
    objections = await promoting.objections_to(house, found.id, version, OPERATOR)
    if objections and not anyway:
        why = "Read why, and say `anyway` if you want it all the same."
        raise Problem("conflict", f"{objections.who} {version}: {' '.join(objections.reasons)}", why)
    with as_problem("conflict"):
        return await promoting.make_live(house, found.id, version, OPERATOR, 0, NOBODY)


def roll_back(found: Found) -> Promotion:
    """Make the version live that was so before. Raises `Problem` where there is none."""
    with as_problem("conflict"):
        return promoting.roll_back(found.house, found.persona, OPERATOR, NOBODY)


ROUTES: tuple[Route, ...] = (
    ("GET", "/personas", get_personas),
    ("GET", "/personas/{persona_id}", get_persona),
    ("GET", "/personas/{persona_id}/versions", get_versions),
    ("GET", "/personas/{persona_id}/versions/{version}", get_version),
    ("POST", "/personas/{persona_id}/versions/{version}/promote", promote),
    ("POST", "/personas/{persona_id}/rollback", rollback),
)
