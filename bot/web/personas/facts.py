"""Personas and their versions as the API shows them."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from bot.house import House
from bot.store import InstalledVersion, Promotion
from bot.web.overview import Spot
from bot.web.personas.found import Found, standing_of
from bot.web.words import moment
from personas.adapters import MANIFEST
from personas.contracts import Manifest
from personas.scorecard import FullScoreCard

TEXT: dict[str, Any] = {"type": ["string", "null"]}
MOMENT = {**TEXT, "description": "ISO 8601, in UTC."}
LINKS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
OBJECT: dict[str, Any] = {"type": ["object", "null"], "additionalProperties": True}
VERSION: dict[str, Any] = {
    "type": "object",
    "title": "Version",
    "required": ["version", "job", "installed_at", "live", "withdrawn", "made_for", "scorecard", "links"],
    "properties": {
        "version": {"type": "string"},
        "job": {"type": "string", "description": "The training that made it."},
        "installed_at": MOMENT,
        "live": {"type": "boolean", "description": "Whether it speaks now."},
        "withdrawn": {"type": "boolean", "description": "Whether it may not be served any more."},
        "made_for": {**TEXT, "description": "The base model that it was made for, where another one is served."},
        "scorecard": {**OBJECT, "description": "What was measured of it, in short, and the gate's verdict."},
        "full_scorecard": {**OBJECT, "description": "All that was measured; null where its file cannot be read."},
        "manifest": {**OBJECT, "description": "What it was made of and how; null where its file cannot be read."},
        "links": LINKS,
    },
}
PERSONA: dict[str, Any] = {
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
        "live": {**TEXT, "description": "The version that was made live; null is the base model."},
        "speaks": {**TEXT, "description": "The version that answers: one of another base model cannot."},
        "since": {**MOMENT, "description": "When that was decided last (ISO 8601, in UTC)."},
        "versions": {"type": "integer", "description": "How many may be served."},
        "newest": {**OBJECT, "description": "The latest of them, with the gate's verdict."},
        "channels": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "string"}}},
        "links": LINKS,
    },
}
CHANGE: dict[str, Any] = {
    "type": "object",
    "title": "Change",
    "required": ["version", "at", "kind", "why"],
    "properties": {
        "version": {**TEXT, "description": "What went live; null is the base model."},
        "at": MOMENT,
        "kind": {"type": "string"},
        "why": {"type": "string"},
    },
}
LEFT_OUT = {"checksums", "metrics"}
"""Of a manifest: what says nothing to a reader, and what the score card says anyway."""


def path_of(persona_id: str, *more: str) -> str:
    """Where a persona, or something of it, is asked for."""
    return "/".join(("/personas", persona_id, *more))


def persona_json(found: Found, spots: tuple[Spot, ...]) -> dict[str, Any]:
    """The published object. Ids of Discord are text: they are longer than JSON's numbers may be."""
    persona, standing = found.persona, standing_of(found.house, found.id)
    newest = standing.newest
    links = {"self": path_of(found.id), "page": found.page}
    links |= {what: path_of(found.id, what) for what in ("card", "versions", "lore")}
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
        "since": moment(standing.since),
        "versions": standing.versions,
        "newest": {"version": newest.version, "verdict": newest.scorecard.verdict} if newest else None,
        "channels": [vars(spot) for spot in spots],
        "links": links,
    }


def version_json(house: House, made: InstalledVersion) -> dict[str, Any]:
    """The published object of one version, without what stands in its folder."""
    path = path_of(made.persona_id, "versions", made.version)
    versions, behind = house.store.versions, house.conversations.left_behind
    return {
        "version": made.version,
        "job": made.job_id,
        "installed_at": moment(made.installed_at),
        "live": versions.live(made.persona_id) == made.version,
        "withdrawn": versions.is_withdrawn(made.persona_id, made.version),
        "made_for": behind.model_of(made.persona_id, made.version),
        "scorecard": made.scorecard.model_dump(mode="json"),
        "links": {"self": path, "promote": f"{path}/promote", "job": f"/finetune/jobs/{made.job_id}"},
    }


def change_json(change: Promotion) -> dict[str, Any]:
    """A change of the live version."""
    return {"version": change.version, "at": moment(change.at), "kind": change.kind, "why": change.why}


def in_folder(house: House, made: InstalledVersion) -> dict[str, Any]:
    """What the version's folder tells: the whole score card, and the manifest. To be read in a thread."""
    folder = house.conversations.adapter(made.persona_id, made.version).folder
    told: dict[str, Any] = {"full_scorecard": None, "manifest": None}
    for key, name, shape in (("full_scorecard", "scorecard.json", FullScoreCard), ("manifest", MANIFEST, Manifest)):
        try:
            told[key] = json.loads(shape.model_validate_json((folder / name).read_bytes()).model_dump_json())
        except (OSError, ValidationError):
            continue  # a damaged folder is told when it is loaded
    if told["manifest"]:
        told["manifest"] = {name: value for name, value in told["manifest"].items() if name not in LEFT_OUT}
    return told
