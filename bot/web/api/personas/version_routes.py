"""`/personas`, their versions, promotion and rollback."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from bot.services import Services
from bot.store import InstalledVersion, Promotion
from bot.versions import promotion
from bot.web.api.openapi import BodySpec, ResponseSpec, describe_operation
from bot.web.api.paging import PAGE_PARAMETERS, page_links, parse_page_query
from bot.web.api.personas.card_routes import NO_PERSONA_TEXT, PERSONAS_TAG
from bot.web.api.personas.persona_lookup import (
    ChannelSummary,
    OwnedPersona,
    channels_by_persona,
    persona_status,
    require_persona_in_path,
    require_version_in_path,
)
from bot.web.app_context import Route, get_services
from bot.web.problems import Problem
from bot.web.request_body import errors_as_problems, parse_body, read_json_object
from bot.web.template_filters import iso_timestamp
from personas.home.adapters import MANIFEST_FILE
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.schemas.scorecard import ScoreCard
from personas.schemas.training import AdapterManifest

NULLABLE_STRING: dict[str, Any] = {"type": ["string", "null"]}
TIMESTAMP_SCHEMA = {**NULLABLE_STRING, "description": "ISO 8601, in UTC."}
LINKS_SCHEMA: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
NULLABLE_OBJECT: dict[str, Any] = {"type": ["object", "null"], "additionalProperties": True}
VERSION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Version",
    "required": ["version", "job", "installed_at", "live", "withdrawn", "made_for", "scorecard", "links"],
    "properties": {
        "version": {"type": "string"},
        "job": {"type": "string", "description": "The training that made it."},
        "installed_at": TIMESTAMP_SCHEMA,
        "live": {"type": "boolean", "description": "Whether it speaks now."},
        "withdrawn": {"type": "boolean", "description": "Whether it may not be served any more."},
        "made_for": {
            **NULLABLE_STRING,
            "description": "The base model that it was made for, where another one is served.",
        },
        "scorecard": {**NULLABLE_OBJECT, "description": "What was measured of it, in short, and the gate's verdict."},
        "full_scorecard": {
            **NULLABLE_OBJECT,
            "description": "All that was measured; null where its file cannot be read.",
        },
        "manifest": {
            **NULLABLE_OBJECT,
            "description": "What it was made of and how; null where its file cannot be read.",
        },
        "links": LINKS_SCHEMA,
    },
}
PERSONA_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Persona",
    "required": ["id", "name", "guild", "ships", "edited", "live", "since", "versions", "links"],
    "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "nickname": {"type": "string"},
        "tagline": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "guild": {"type": "string", "description": "The server whose it is; 0 for one that all servers have."},
        "ships": {"type": "boolean", "description": "Whether a card of it came with the bot."},
        "edited": {"type": "boolean", "description": "Whether the operator has a card of it in place of that one."},
        "live": {**NULLABLE_STRING, "description": "The version that was made live; null is the base model."},
        "speaks": {**NULLABLE_STRING, "description": "The version that answers: one of another base model cannot."},
        "since": {**TIMESTAMP_SCHEMA, "description": "When that was decided last (ISO 8601, in UTC)."},
        "versions": {"type": "integer", "description": "How many may be served."},
        "newest": {**NULLABLE_OBJECT, "description": "The latest of them, with the gate's verdict."},
        "channels": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "string"}}},
        "links": LINKS_SCHEMA,
    },
}
CHANGE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Change",
    "required": ["version", "at", "kind", "why"],
    "properties": {
        "version": {**NULLABLE_STRING, "description": "What went live; null is the base model."},
        "at": TIMESTAMP_SCHEMA,
        "kind": {"type": "string"},
        "why": {"type": "string"},
    },
}
OMITTED_MANIFEST_FIELDS = {"checksums", "metrics"}
"""Of a manifest: what says nothing to a reader, and what the score card says anyway."""


def persona_path(persona_id: str, *more: str) -> str:
    """Where a persona, or something of it, is asked for."""
    return "/".join(("/personas", persona_id, *more))


def persona_json(found: OwnedPersona, spots: tuple[ChannelSummary, ...]) -> dict[str, Any]:
    """The published object. Ids of Discord are text: they are longer than JSON's numbers may be."""
    persona, standing = found.persona, persona_status(found.services, found.id)
    newest = standing.newest
    links = {"self": persona_path(found.id), "page": found.page}
    links |= {what: persona_path(found.id, what) for what in ("card", "versions", "lore")}
    return {
        "id": found.id,
        "name": persona.name,
        "nickname": persona.nickname,
        "tagline": persona.tagline,
        "tags": list(persona.tags),
        "guild": str(found.guild_id),
        "ships": found.ships,
        "edited": found.is_edited,
        "live": standing.live,
        "speaks": standing.speaks,
        "since": iso_timestamp(standing.since),
        "versions": standing.versions,
        "newest": {"version": newest.version, "verdict": newest.scorecard.verdict} if newest else None,
        "channels": [vars(spot) for spot in spots],
        "links": links,
    }


def version_json(services: Services, made: InstalledVersion) -> dict[str, Any]:
    """The published object of one version, without what stands in its folder."""
    path = persona_path(made.persona_id, "versions", made.version)
    versions, behind = services.store.versions, services.request_builder.incompatible_versions
    return {
        "version": made.version,
        "job": made.job_id,
        "installed_at": iso_timestamp(made.installed_at),
        "live": versions.live(made.persona_id) == made.version,
        "withdrawn": versions.is_withdrawn(made.persona_id, made.version),
        "made_for": behind.model_of(made.persona_id, made.version),
        "scorecard": made.scorecard.model_dump(mode="json"),
        "links": {"self": path, "promote": f"{path}/promote", "job": f"/finetune/jobs/{made.job_id}"},
    }


def change_json(change: Promotion) -> dict[str, Any]:
    """A change of the live version."""
    return {"version": change.version, "at": iso_timestamp(change.at), "kind": change.kind, "why": change.why}


def read_version_folder(services: Services, made: InstalledVersion) -> dict[str, Any]:
    """What the version's folder tells: the whole score card, and the manifest. To be read in a thread."""
    folder = services.request_builder.adapter(made.persona_id, made.version).folder
    told: dict[str, Any] = {"full_scorecard": None, "manifest": None}
    for key, name, shape in (
        ("full_scorecard", "scorecard.json", ScoreCard),
        ("manifest", MANIFEST_FILE, AdapterManifest),
    ):
        try:
            told[key] = json.loads(shape.model_validate_json((folder / name).read_bytes()).model_dump_json())
        except (OSError, ValidationError):
            continue  # a damaged folder is told when it is loaded
    if told["manifest"]:
        told["manifest"] = {
            name: value for name, value in told["manifest"].items() if name not in OMITTED_MANIFEST_FIELDS
        }
    return told


OPERATOR_USER_ID = 0
NO_VERSION_TEXT = "There is no such persona, or no such version."


def _list_schema(name: str, items: dict[str, Any], **more: Any) -> dict[str, Any]:
    listed = {name: {"type": "array", "items": items}, "links": LINKS_SCHEMA, **more}
    return {"type": "object", "required": [*listed], "properties": listed}


class PromoteBody(BaseModel):
    """`anyway` is needed for a version that the gate rejects, or members speak against."""

    model_config = ConfigDict(extra="forbid")
    anyway: bool = False


@describe_operation(
    "Personas",
    {
        200: ResponseSpec(
            "A page of personas; `links.next` leads to the next ones.", _list_schema("personas", PERSONA_SCHEMA)
        ),
        404: "There is no persona `after`.",
    },
    tag=PERSONAS_TAG,
    query=PAGE_PARAMETERS,
)
async def get_personas(request: web.Request) -> web.Response:
    """Every persona of every server, those of all servers first."""
    services, asked = get_services(request), parse_page_query(request)
    everybody = [OwnedPersona(services, guild_id, persona) for guild_id, persona in services.personas.everybody()]
    ids = [one.id for one in everybody]
    if asked.after is not None and asked.after not in ids:
        raise Problem("not-found", f"There is no persona {asked.after[:80]!r}.", "Begin without `after`.")
    begin = ids.index(asked.after) + 1 if asked.after is not None else 0
    shown, spots = everybody[begin : begin + asked.limit], channels_by_persona(services)
    last = shown[-1].id if begin + asked.limit < len(everybody) else None
    listed = [persona_json(one, tuple(spots.get(one.id, ()))) for one in shown]
    return web.json_response({"personas": listed, "links": page_links(request, asked, last)})


@describe_operation(
    "One persona", {200: ResponseSpec("The persona.", PERSONA_SCHEMA), 404: NO_PERSONA_TEXT}, tag=PERSONAS_TAG
)
async def get_persona(request: web.Request) -> web.Response:
    """Whose it is, where it lives, which version speaks."""
    found = require_persona_in_path(request)
    return web.json_response(persona_json(found, tuple(channels_by_persona(found.services).get(found.id, ()))))


@describe_operation(
    "A persona's versions, newest first",
    {
        200: ResponseSpec(
            "A page of versions, and every change of the live one, oldest first.",
            _list_schema(
                "versions",
                VERSION_SCHEMA,
                live={"type": ["string", "null"]},
                changes={"type": "array", "items": CHANGE_SCHEMA},
            ),
        ),
        404: "There is no such persona, or no version `after`.",
    },
    tag=PERSONAS_TAG,
    query=PAGE_PARAMETERS,
)
async def get_versions(request: web.Request) -> web.Response:
    """All that were ever there, withdrawn ones too."""
    asked, found = parse_page_query(request), require_persona_in_path(request)
    versions = found.services.store.versions
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
            "versions": [version_json(found.services, one) for one in shown],
            "changes": [change_json(change) for change in versions.history(found.id)],
            "links": page_links(request, asked, last),
        }
    )


@describe_operation(
    "One version", {200: ResponseSpec("The version.", VERSION_SCHEMA), 404: NO_VERSION_TEXT}, tag=PERSONAS_TAG
)
async def get_version(request: web.Request) -> web.Response:
    """With its whole score card, and what its manifest tells of how it was made."""
    found = require_persona_in_path(request)
    made = require_version_in_path(request, found)
    told = await asyncio.to_thread(read_version_folder, found.services, made)
    return web.json_response(version_json(found.services, made) | told)


@describe_operation(
    "Promote a version",
    {
        200: ResponseSpec("The version, live.", VERSION_SCHEMA),
        404: NO_VERSION_TEXT,
        409: "The gate or members speak against it, it cannot be served, or the key belongs to another request.",
    },
    tag=PERSONAS_TAG,
    body=BodySpec(PromoteBody, {"anyway": False}, required=False),
)
async def post_promote(request: web.Request) -> web.Response:
    """It is loaded first, so that a damaged one never gets to speak; then it makes every reply from the next one on."""
    found = require_persona_in_path(request)
    made = require_version_in_path(request, found)
    body = parse_body(PromoteBody, await read_json_object(request) if request.body_exists else {})
    await promote_version(found, made, anyway=body.anyway)
    return web.json_response(version_json(found.services, made))


@describe_operation(
    "Roll back",
    {
        200: ResponseSpec("What speaks now.", CHANGE_SCHEMA),
        404: NO_PERSONA_TEXT,
        409: "There is nothing to go back to, or the key belongs to another request.",
    },
    tag=PERSONAS_TAG,
)
async def post_rollback(request: web.Request) -> web.Response:
    """The version that was live before speaks from the next reply on; twice goes two versions back."""
    return web.json_response(change_json(roll_back_version(require_persona_in_path(request))))


async def promote_version(found: OwnedPersona, made: InstalledVersion, *, anyway: bool) -> bool:
    """Make a version live; False where it was. Raises `Problem` where it may not, or cannot."""
    services, version = found.services, made.version
    if services.store.versions.is_withdrawn(found.id, version):
        raise Problem("conflict", f"{version} was withdrawn.", "Train another one.")
    if model := services.request_builder.incompatible_versions.model_of(found.id, version):
        raise Problem("conflict", f"{version} was made for {model}, which is not served here.", "Train it again.")
    objections = await promotion.find_objections(services, found.id, version, OPERATOR_GUILD_ID)
    if objections and not anyway:
        why = "Read why, and say `anyway` if you want it all the same."
        raise Problem("conflict", f"{objections.who} {version}: {' '.join(objections.reasons)}", why)
    with errors_as_problems("conflict"):
        return await promotion.promote_version(services, found.id, version, OPERATOR_GUILD_ID, 0, OPERATOR_USER_ID)


def roll_back_version(found: OwnedPersona) -> Promotion:
    """Make the version live that was so before. Raises `Problem` where there is none."""
    with errors_as_problems("conflict"):
        return promotion.roll_back_version(found.services, found.persona, OPERATOR_GUILD_ID, OPERATOR_USER_ID)


ROUTES: tuple[Route, ...] = (
    ("GET", "/personas", get_personas),
    ("GET", "/personas/{persona_id}", get_persona),
    ("GET", "/personas/{persona_id}/versions", get_versions),
    ("GET", "/personas/{persona_id}/versions/{version}", get_version),
    ("POST", "/personas/{persona_id}/versions/{version}/promote", post_promote),
    ("POST", "/personas/{persona_id}/rollback", post_rollback),
)
