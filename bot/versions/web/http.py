"""`/personas/ID/versions`: the versions of a persona, their promotion and rollback."""

from __future__ import annotations

import asyncio
from collections.abc import Set
from pathlib import Path

from aiohttp import web
from pydantic import BaseModel, ValidationError

from bot.personas.web.http import NO_PERSONA_TEXT, guild_ids_as_text, persona_path
from bot.personas.web.lookup import (
    require_persona_in_path,
    require_version_in_path,
)
from bot.platform.web_kit.openapi import (
    ApiModel,
    ApiRoutes,
    BodySpec,
    Json,
    Links,
    ResponseSpec,
    Timestamp,
)
from bot.platform.web_kit.paging import PAGE_PARAMETERS, paginate, parse_page_query
from bot.platform.web_kit.validation import read_model
from bot.services import Services
from bot.store import ALL_GUILDS, InstalledVersion, Promotion
from bot.versions.effects import read_effects
from bot.versions.store import PromotionKind
from bot.versions.web.card_choice import CardChoiceTokens, count_card_choice_tokens
from personas.home.adapters import MANIFEST_FILE, adapter_ref, score_card_file
from personas.home.prompt_version import has_learned_short_card
from personas.schemas.base import FrozenModel
from personas.schemas.chat import CardChoice
from personas.schemas.scorecard import ScoreCard
from personas.schemas.training import AdapterManifest

OMITTED_MANIFEST_FIELDS = {"checksums", "metrics"}
"""Manifest fields of no use to a reader, or repeated by the score card."""
NO_VERSION_TEXT = "There is no such persona, or no such version."
routes = ApiRoutes("personas")


class VersionResponse(ApiModel):
    """A version of a persona."""

    version: str
    job: str
    """The training that made it."""
    dialogue: str | None
    """The dialogue adapter that it is a copy of; null for all other versions."""
    installed_at: Timestamp
    live: bool
    """True for the live version of all servers without one of their own."""
    live_in: list[str]
    """The servers of which it is the own live version."""
    withdrawn: bool
    """True for a version that must not be served any more."""
    made_for: str | None
    """The base model it was made for, if another one is served."""
    card: CardChoice
    """The card of its prompts: `full`, or `short` with a name and one line."""
    can_have_short_card: bool
    """True for a version that was trained under the short card, too."""
    scorecard: Json | None
    """The score card in short, with the gate's verdict; null for an imported version that came
    without one.
    """
    links: Links
    full_scorecard: Json | None = None
    """The whole score card; null if its file cannot be read."""
    manifest: Json | None = None
    """Materials and recipe; null if the file cannot be read."""
    effect: Json | None = None
    """How much likelier training made the version's own replies (`measured_shift`, nats per token;
    null if it was not measured), and what each engine showed of it, the newest first.
    """
    card_tokens: CardChoiceTokens | None = None
    """Tokens that each card takes in a prompt."""

    @classmethod
    def of(
        cls,
        services: Services,
        version: InstalledVersion,
        **more: Json | None,
    ) -> VersionResponse:
        """Describe a version; `more` holds its score card, manifest, and so on."""
        persona_id = version.persona_id
        name = version.version
        path = persona_path(persona_id, "versions", name)
        versions = services.store.versions
        job = services.store.jobs.get(version.job_id)
        live_in = []
        for guild_id, live in versions.live_by_guild(persona_id).items():
            if live == name:
                live_in.append(str(guild_id))
        scorecard = None
        if version.scorecard.is_measured:
            scorecard = version.scorecard.model_dump(mode="json")
        return cls.describe(
            version,
            job=version.job_id,
            dialogue=job.dialogue if job else None,
            live=versions.live(persona_id, ALL_GUILDS) == name,
            live_in=live_in,
            withdrawn=versions.is_withdrawn(persona_id, name),
            made_for=services.served_versions.incompatible.model_of(persona_id, name),
            card=versions.card_of(persona_id, name),
            can_have_short_card=has_learned_short_card(
                adapter_ref(services.home, persona_id, name)
            ),
            scorecard=scorecard,
            links={
                "self": path,
                "promote": f"{path}/promote",
                "job": f"/finetune/jobs/{version.job_id}",
            },
            **more,
        )


class VersionChange(ApiModel):
    """A change of the live version."""

    version: str | None
    """The version that became live; null is the base model."""
    at: Timestamp
    kind: PromotionKind
    why: str
    guild: str
    """The server whose live version changed; 0 for all without their own. In a server, the version
    null is theirs.
    """

    @classmethod
    def of(cls, change: Promotion) -> VersionChange:
        return cls.describe(change, guild=str(change.for_guild))


class VersionListResponse(ApiModel):
    """A page of versions, newest first, and every change of the live one, oldest first."""

    live: str | None
    live_by_guild: dict[str, str]
    versions: list[VersionResponse]
    changes: list[VersionChange]
    links: Links


def read_version_files(services: Services, version: InstalledVersion) -> dict[str, Json | None]:
    """Read a version's score card, manifest and effect; None for a damaged file. To be called in a
    thread.
    """
    adapter = adapter_ref(services.home, version.persona_id, version.version)
    folder = adapter.folder
    scorecard = _read_model(score_card_file(folder, "scorecard.json"), ScoreCard)
    manifest = _read_model(folder / MANIFEST_FILE, AdapterManifest, OMITTED_MANIFEST_FIELDS)
    [effect] = read_effects(services.home, [adapter])
    return {
        "full_scorecard": scorecard,
        "manifest": manifest,
        "effect": {
            "measured_shift": effect.probe.shift if effect.probe else None,
            "engines": [result.model_dump(mode="json") for result in effect.results],
        },
    }


def _read_model(path: Path, model: type[BaseModel], omitted: Set[str] = frozenset()) -> Json | None:
    try:
        return model.model_validate_json(path.read_bytes()).model_dump(
            mode="json", exclude=set(omitted)
        )
    except (OSError, ValidationError):
        return None


class PromoteBody(FrozenModel):
    """`anyway` is needed for a version that the gate rejects or holds for its safety, or members speak
    against.
    """

    anyway: bool = False


@routes.operation(
    "GET /personas/{persona_id}/versions",
    "List a persona's versions, newest first",
    {
        200: ResponseSpec(
            "A page of versions, and changes of the live one, oldest first.", VersionListResponse
        ),
        404: "There is no such persona, or no version `after`.",
    },
    query=PAGE_PARAMETERS,
)
async def get_versions(request: web.Request) -> web.Response:
    """Lists all versions, including withdrawn ones."""
    page = parse_page_query(request)
    owned = require_persona_in_path(request)
    versions = owned.services.store.versions
    installed = versions.ever_installed(owned.id)[::-1]
    shown, links = paginate(
        request, page, items=installed, key=lambda version: version.version, noun="version"
    )
    return VersionListResponse(
        live=versions.live(owned.id, ALL_GUILDS),
        live_by_guild=guild_ids_as_text(versions.live_by_guild(owned.id)),
        versions=[VersionResponse.of(owned.services, version) for version in shown],
        changes=[VersionChange.of(change) for change in versions.history(owned.id)],
        links=links,
    ).response()


@routes.operation(
    "GET /personas/{persona_id}/versions/{version}",
    "Get a version",
    {200: ResponseSpec("The version.", VersionResponse), 404: NO_VERSION_TEXT},
)
async def get_version(request: web.Request) -> web.Response:
    """Returns the version with its score card and manifest."""
    owned = require_persona_in_path(request)
    installed = require_version_in_path(request, owned)
    files = await asyncio.to_thread(read_version_files, owned.services, installed)
    tokens = await asyncio.to_thread(count_card_choice_tokens, owned)
    return VersionResponse.of(
        owned.services, installed, **files, card_tokens=tokens.as_json()
    ).response()


@routes.operation(
    "POST /personas/{persona_id}/versions/{version}/promote",
    "Promote a version",
    {
        200: ResponseSpec("The version, now live.", VersionResponse),
        404: NO_VERSION_TEXT,
        409: (
            "The gate or members speak against it, it cannot be served, or the key belongs to "
            "another request."
        ),
    },
    body=BodySpec(PromoteBody, {"anyway": False}, required=False),
)
async def post_promote(request: web.Request) -> web.Response:
    """It goes live in all servers without a live version of their own, from the next reply on.

    The version is loaded first, so that a damaged one never goes live.
    """
    owned = require_persona_in_path(request)
    installed = require_version_in_path(request, owned)
    body = await read_model(request, PromoteBody) if request.body_exists else PromoteBody()
    await owned.promote(installed, anyway=body.anyway)
    return VersionResponse.of(owned.services, installed).response()


@routes.operation(
    "POST /personas/{persona_id}/rollback",
    "Roll back",
    {
        200: ResponseSpec("The live version.", VersionChange),
        404: NO_PERSONA_TEXT,
        409: "There is nothing to go back to, or the key belongs to another request.",
    },
)
async def post_rollback(request: web.Request) -> web.Response:
    """The previous live version of all servers serves from the next reply on; a second call goes
    back two versions.
    """
    owned = require_persona_in_path(request)
    result = owned.roll_back()
    return VersionChange.of(result.change).response()
