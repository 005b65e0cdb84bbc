"""Ends rollouts that members' feedback or another change of the live version decides, and announces
that.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import discord

from bot.chat.places import fetch_channel
from bot.personas.registry import PersonaRegistry
from bot.platform.localisation import SOURCE_LANGUAGE, Language, language_of, localise
from bot.platform.messages import NO_MENTIONS, markdown_name
from bot.store import Rollout, Store
from bot.versions.actions import LiveVersions
from bot.versions.member_feedback import record_member_feedback
from bot.versions.rollout import report as rollout_report

log = logging.getLogger(__name__)


@dataclass
class RolloutMonitor:
    """Stores how each rollout ends, then announces it; a failed announcement is repeated at the
    next occasion.

    `buttons` creates the buttons under the announcement.
    """

    client: discord.Client
    home: Path
    store: Store
    personas: PersonaRegistry
    versions: LiveVersions
    buttons: Callable[[Rollout, Language], discord.ui.View | None]
    _announcement_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def on_reply_judged(self, event_id: int) -> None:
        """Re-evaluate the rollouts of a judged reply, and write the members' feedback for the
        gate.
        """
        reply = self.store.replies.get(event_id)
        if reply is None:
            return
        await self.evaluate(reply.persona_id)
        # A reply of the live version counts for the version on trial, too: it is compared with it.
        versions = set()
        if reply.adapter_version:
            versions.add(reply.adapter_version)
        rollout = None
        if reply.rollout:
            rollout = self.store.rollouts.get(reply.rollout)
        if rollout:
            versions.add(rollout.version)
        for version in versions:
            await record_member_feedback(
                self.home,
                self.store,
                personas=self.personas,
                persona_id=reply.persona_id,
                version=version,
            )

    async def evaluate(self, persona_id: str) -> None:
        """Roll back each version that turned out worse."""
        for rollout in self.store.rollouts.running(persona_id, time.time()):
            comparison = rollout_report.compare_rollout(self.store, rollout)
            if comparison.worse:
                reason = rollout_report.rollback_reason(rollout, comparison)
                self.versions.revert_rollout(rollout, reason)
        await self.announce()

    async def settle(self, persona_id: str) -> None:
        """End and announce the rollouts that a promotion, rollback or withdrawal has decided."""
        self.store.rollouts.end_superseded(persona_id, time.time())
        await self.announce()

    async def settle_all(self) -> None:
        """Settle and announce, at start-up, everything that ended or turned out worse meanwhile."""
        for persona_id in self.store.rollouts.personas():
            self.store.rollouts.end_superseded(persona_id, time.time())
            await self.evaluate(persona_id)
        await self.announce()

    async def announce(self) -> None:
        """Announce the ended rollouts that have not been announced."""
        async with self._announcement_lock:
            for rollout in self.store.rollouts.unannounced():
                try:
                    await self._announce(rollout)
                except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
                    log.warning("the end of a rollout could not be announced yet: %s", error)
                else:
                    self.store.rollouts.mark_announced(rollout.seq)

    async def _announce(self, rollout: Rollout) -> None:
        persona = self.personas.get(rollout.persona_id, rollout.guild_id)
        channel = await fetch_channel(self.client, rollout.channel_id)
        if persona is None or channel is None:
            return  # nobody is left to read it
        guild = self.client.get_guild(rollout.guild_id)
        language = language_of(guild.preferred_locale) if guild else SOURCE_LANGUAGE
        view = self.buttons(rollout, language) or discord.utils.MISSING
        try:
            await channel.send(
                localise(rollout_report.ended_text(rollout, markdown_name(persona)), language),
                view=view,
                allowed_mentions=NO_MENTIONS,
            )
        except (discord.Forbidden, discord.NotFound) as error:
            log.warning("the end of a rollout cannot be announced in #%s: %s", channel, error)
