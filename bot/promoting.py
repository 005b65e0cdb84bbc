"""Versions go live and are taken back: by somebody's word, on Discord or elsewhere, or by themselves."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from bot.house import House
from bot.judging.heard import against, heard
from bot.store import Job, NewRollout, Promotion, StoreError
from personas.contracts import Persona
from personas.errors import RequestError, UnderstudyError
from personas.for_everybody import OPERATOR

log = logging.getLogger(__name__)

BY_ITSELF = 0
"""Who promoted it, where nobody did."""
REJECTED = "reject"
"""The gate's verdict that stands against a version."""


@dataclass(frozen=True)
class Objections:
    """Who speaks against a version, such as "The gate rejects", and why: it is promoted by a second word alone."""

    who: str
    reasons: tuple[str, ...]


async def make_live(house: House, persona_id: str, version: str, guild_id: int, channel_id: int, by: int) -> bool:
    """Make a version live after loading it, so that a damaged one never gets to speak. False where it was live.

    `guild_id` and `channel_id` are where that was decided, 0 on the machine itself. Raises `RequestError` for one that
    is not installed, and `AdapterError`.
    """
    house.store.versions.require_installed(persona_id, version)
    await house.answerer.engine.load(house.conversations.adapter(persona_id, version))
    new = NewRollout(persona_id, version, guild_id, channel_id, by, share=100)
    if house.store.rollouts.promote(new, time.time()) is None:
        return False
    _changed(house, guild_id, persona_id)
    return True


def roll_back(house: House, persona: Persona, guild_id: int, by: int) -> Promotion:
    """Make the version live that was so before. Raises `RequestError` where there is none."""
    store = house.store
    try:
        row = store.rollouts.roll_back(persona.id, by, time.time(), guild_id)
    except RequestError as error:
        how = "Make one live with `/finetune promote`." if store.versions.installed(persona.id) else "Train one first."
        raise RequestError(f"{persona.name} has no earlier version to go back to.", how) from error
    _changed(house, guild_id, persona.id)
    return row


async def promoted_by_itself(house: House, job: Job) -> bool:
    """Make a job's version live where its server has chosen so and the gate says promote. Whether that was done.

    It is loaded first, so that a damaged one never gets to speak; one that cannot be loaded waits for a moderator.
    """
    if job.persona is None or not _may(house, job):
        return False
    if await members_against(house, job.persona, job.version, job.guild_id):
        return False
    new = NewRollout(job.persona, job.version, job.guild_id, job.channel_id, BY_ITSELF, share=100)
    try:
        house.store.versions.require_installed(job.persona, job.version)
        await house.answerer.engine.load(house.conversations.adapter(job.persona, job.version))
        done = house.store.rollouts.promote(new, time.time(), kind="automatic promotion")
    except (UnderstudyError, StoreError) as error:
        log.warning("%s of %s was not promoted by itself: %s", job.version, job.persona, error)
        return False
    return done is not None


async def objections_to(house: House, persona_id: str, version: str, guild_id: int) -> Objections | None:
    """What the gate and the members of a guild (of all, where the operator asks) hold against an installed version.

    None where there is nothing, and for the one that speaks.
    """
    if house.store.versions.live(persona_id) == version:
        return None
    members = await members_against(house, persona_id, version, guild_id)
    found = (it.scorecard for it in house.store.versions.installed(persona_id) if it.version == version)
    card = next(found, None)
    if card and card.verdict == REJECTED:
        return Objections("The gate rejects", (*members, *card.reasons))
    return Objections("Members speak against", members) if members else None


async def members_against(house: House, persona_id: str, version: str, guild_id: int) -> tuple[str, ...]:
    """What the members of a guild (of all, where the operator asks) hold against a version for certain."""
    found = await heard(house.store, persona_id, version, time.time(), guild_id or None)
    return against(found)


def _changed(house: House, guild_id: int, persona_id: str) -> None:
    """Another version speaks: messages with buttons, and what the engine has ready, follow.

    What the operator decides is seen wherever a version of this persona was trained.
    """
    made_by = (house.store.jobs.get(made.job_id) for made in house.store.versions.installed(persona_id))
    trained_in = {job.guild_id for job in made_by if job} if guild_id == OPERATOR else set()
    if house.client:
        for one in {guild_id} | trained_in:
            house.client.dispatch("version_changed", one, persona_id)


def _may(house: House, job: Job) -> bool:
    result = job.result
    if job.state != "done" or result is None or result.imported or result.scorecard.verdict != "promote":
        return False
    return house.store.guilds.promotes_by_itself(job.guild_id)
