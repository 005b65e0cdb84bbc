"""Promotes versions and rolls them back, on request or automatically."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from bot.services import Services
from bot.store import NewRollout, Promotion, StoreError, TrainingJob
from bot.versions.rollout.rollout_metrics import summarise_votes, vote_objections
from personas.errors import RequestError, UnderstudyError
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.schemas.chat import Persona

log = logging.getLogger(__name__)

OPERATOR_USER_ID = 0
"""The user who promoted a version from the dashboard or over the API."""
AUTOMATIC_USER_ID = 0
"""Who promoted it, where nobody did."""
REJECT_VERDICT = "reject"
"""The gate's verdict that stands against a version."""


@dataclass(frozen=True)
class PromotionObjections:
    """Who speaks against a version, such as "The gate rejects", and why: it is promoted by a second word alone."""

    who: str
    reasons: tuple[str, ...]


async def promote_version(
    services: Services, persona_id: str, version: str, guild_id: int, channel_id: int, by: int
) -> bool:
    """Make a version live after loading it, so that a damaged one never gets to speak. False where it was live.

    `guild_id` and `channel_id` are where that was decided, 0 on the machine itself. Raises `RequestError` for one that
    is not installed, and `AdapterError`.
    """
    services.store.versions.require_installed(persona_id, version)
    await services.engine.load(services.request_builder.adapter(persona_id, version))
    new = NewRollout(persona_id, version, guild_id, channel_id, by, share=100)
    if services.store.rollouts.promote(new, time.time()) is None:
        return False
    _dispatch_version_changed(services, guild_id, persona_id)
    return True


def require_servable(services: Services, persona_id: str, version: str) -> None:
    """Raise `RequestError` for a withdrawn version, and for one of a base model that is not served."""
    if services.store.versions.is_withdrawn(persona_id, version):
        raise RequestError(f"{version} was withdrawn.", "Train another one.")
    if model := services.request_builder.incompatible_versions.model_of(persona_id, version):
        raise RequestError(f"{version} was made for {model}, which is not served here.", "Train it again.")


async def promote_as_operator(services: Services, persona_id: str, version: str, *, anyway: bool) -> bool:
    """Make a version live on the operator's request; False if it was live.

    Raises `RequestError` for a version that cannot be served, or that the gate or members speak against unless
    `anyway`; and `AdapterError` for a damaged one.
    """
    require_servable(services, persona_id, version)
    objections = await find_objections(services, persona_id, version, OPERATOR_GUILD_ID)
    if objections and not anyway:
        why = f"{objections.who} {version}: {' '.join(objections.reasons)}"
        raise RequestError(why, "Read the reasons, and send `anyway` to promote it all the same.")
    return await promote_version(services, persona_id, version, OPERATOR_GUILD_ID, 0, OPERATOR_USER_ID)


def roll_back_version(services: Services, persona: Persona, guild_id: int, by: int) -> Promotion:
    """Make the version live that was so before. Raises `RequestError` where there is none."""
    store = services.store
    try:
        row = store.rollouts.roll_back(persona.id, by, time.time(), guild_id)
    except RequestError as error:
        how = "Make one live with `/finetune promote`." if store.versions.installed(persona.id) else "Train one first."
        raise RequestError(f"{persona.name} has no earlier version to go back to.", how) from error
    _dispatch_version_changed(services, guild_id, persona.id)
    return row


async def promote_automatically(services: Services, job: TrainingJob) -> bool:
    """Make a job's version live where its server has chosen so and the gate says promote. Whether that was done.

    It is loaded first, so that a damaged one never gets to speak; one that cannot be loaded waits for a moderator.
    """
    if job.persona is None or not _may_promote(services, job):
        return False
    if await member_objections(services, job.persona, job.version, job.guild_id):
        return False
    new = NewRollout(job.persona, job.version, job.guild_id, job.channel_id, AUTOMATIC_USER_ID, share=100)
    try:
        services.store.versions.require_installed(job.persona, job.version)
        await services.engine.load(services.request_builder.adapter(job.persona, job.version))
        done = services.store.rollouts.promote(new, time.time(), kind="automatic promotion")
    except (UnderstudyError, StoreError) as error:
        log.warning("%s of %s was not promoted by itself: %s", job.version, job.persona, error)
        return False
    return done is not None


async def find_objections(
    services: Services, persona_id: str, version: str, guild_id: int
) -> PromotionObjections | None:
    """What the gate and the members of a guild (of all, where the operator asks) hold against an installed version.

    None where there is nothing, and for the one that speaks.
    """
    if services.store.versions.live(persona_id) == version:
        return None
    members = await member_objections(services, persona_id, version, guild_id)
    found = (it.scorecard for it in services.store.versions.installed(persona_id) if it.version == version)
    card = next(found, None)
    if card and card.verdict == REJECT_VERDICT:
        return PromotionObjections("The gate rejects", (*members, *card.reasons))
    return PromotionObjections("Members speak against", members) if members else None


async def member_objections(services: Services, persona_id: str, version: str, guild_id: int) -> tuple[str, ...]:
    """What the members of a guild (of all, where the operator asks) hold against a version for certain."""
    found = await summarise_votes(services.store, persona_id, version, time.time(), guild_id or None)
    return vote_objections(found)


def _dispatch_version_changed(services: Services, guild_id: int, persona_id: str) -> None:
    """Another version speaks: messages with buttons, and what the engine has ready, follow.

    What the operator decides is seen wherever a version of this persona was trained.
    """
    made_by = (services.store.jobs.get(made.job_id) for made in services.store.versions.installed(persona_id))
    trained_in = {job.guild_id for job in made_by if job} if guild_id == OPERATOR_GUILD_ID else set()
    if services.client:
        for one in {guild_id} | trained_in:
            services.client.dispatch("version_changed", one, persona_id)


def _may_promote(services: Services, job: TrainingJob) -> bool:
    result = job.result
    if job.state != "done" or result is None or result.imported or result.scorecard.verdict != "promote":
        return False
    return services.store.guilds.is_auto_promotion_enabled(job.guild_id)
