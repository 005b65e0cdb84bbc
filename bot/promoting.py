"""What becomes of a version when its training is done: somebody is asked, or it goes live by itself."""

from __future__ import annotations

import logging
import time

from bot.house import House
from bot.store import Job, NewRollout, StoreError
from personas.errors import UnderstudyError

log = logging.getLogger(__name__)

BY_ITSELF = 0
"""Who promoted it, where nobody did."""


async def promoted_by_itself(house: House, job: Job) -> bool:
    """Make a job's version live where its server has chosen so and the gate says promote. Whether that was done.

    It is loaded first, so that a damaged one never gets to speak; one that cannot be loaded waits for a moderator.
    """
    if job.persona is None or not _may(house, job):
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


def verdict_of(house: House, persona_id: str, version: str) -> tuple[str, tuple[str, ...]]:
    """What the gate said of an installed version, and why; empty where it was not asked."""
    found = (it for it in house.store.versions.installed(persona_id) if it.version == version)
    card = next((it.scorecard for it in found), None)
    return (card.verdict, card.reasons) if card else ("", ())


def _may(house: House, job: Job) -> bool:
    result = job.result
    if job.state != "done" or result is None or result.imported or result.scorecard.verdict != "promote":
        return False
    return house.store.guilds.promotes_by_itself(job.guild_id)
