"""Monitors rollouts after each vote or interruption: rolls back what is worse and announces it."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import discord

from bot.chat.discord_channels import NO_MENTIONS, fetch_channel
from bot.personas.registry import PersonaRegistry
from bot.store import BASE_MODEL_NAME, Rollout, Store
from bot.versions.live_versions import LiveVersions
from bot.versions.member_feedback import record_member_feedback, share_votes
from bot.versions.rollout.rollout_report import compare_rollout, ended_text, rollback_reason

log = logging.getLogger(__name__)

RolloutViewFactory = Callable[[Rollout], discord.ui.View | None]


@dataclass
class RolloutMonitor:
    """Stores how each rollout ends, then announces it; a failed announcement is repeated at the next occasion.

    `buttons` creates the buttons under the announcement. `serves`: rollouts of other guilds are other processes'.
    """

    client: discord.Client
    home: Path
    store: Store
    personas: PersonaRegistry
    versions: LiveVersions
    buttons: RolloutViewFactory
    serves: Callable[[int], bool] = lambda guild_id: True
    _announcement_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def on_reply_judged(self, event_id: int) -> None:
        """Re-evaluate the rollouts of a judged reply, and write the members' feedback for the gate."""
        if reply := self.store.replies.get(event_id):
            await self.look(reply.persona_id)
            rollout = self.store.rollouts.get(reply.rollout) if reply.rollout else None
            live = self.store.versions.live(reply.persona_id, reply.guild_id) or BASE_MODEL_NAME
            for version in filter(None, {reply.adapter_version, rollout.version if rollout else None}):
                share_votes(self.store, reply.persona_id, version, live, reply.guild_id)
                await record_member_feedback(self.home, self.store, self.personas, reply.persona_id, version)

    async def look(self, persona_id: str) -> None:
        """Roll back each version that turned out worse."""
        for rollout in filter(self._is_own, self.store.rollouts.running(persona_id, time.time())):
            comparison = compare_rollout(self.store, rollout)
            if comparison.worse:
                self.versions.revert_rollout(rollout, rollback_reason(rollout, comparison))
        await self.announce()

    async def settle(self, persona_id: str) -> None:
        """End and announce the rollouts that a promotion, rollback or withdrawal has decided."""
        self.store.rollouts.end_superseded(persona_id, time.time())
        await self.announce()

    async def settle_all(self) -> None:
        """Settle and announce, at start-up, everything that ended or turned out worse meanwhile."""
        for guild_id, persona_id, version, against in self.store.guild_feedback.pairs():
            share_votes(self.store, persona_id, version, against, guild_id)
        for persona_id in self.store.rollouts.personas():
            self.store.rollouts.end_superseded(persona_id, time.time())
            await self.look(persona_id)
        await self.announce()

    async def announce(self) -> None:
        """Announce the ended rollouts that have not been announced."""
        async with self._announcement_lock:
            for rollout in filter(self._is_own, self.store.rollouts.unannounced()):
                try:
                    await self._announce(rollout)
                except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
                    log.warning("the end of a rollout could not be announced yet: %s", error)
                else:
                    self.store.rollouts.mark_announced(rollout.seq)

    def _is_own(self, rollout: Rollout) -> bool:
        return self.serves(rollout.guild_id)

    async def _announce(self, rollout: Rollout) -> None:
        persona = self.personas.get(rollout.persona_id, rollout.guild_id)
        channel = await fetch_channel(self.client, rollout.channel_id)
        if persona is None or channel is None:
            return  # nobody is left to read it
        view = self.buttons(rollout) or discord.utils.MISSING
        try:
            await channel.send(ended_text(rollout, persona.name), view=view, allowed_mentions=NO_MENTIONS)
        except (discord.Forbidden, discord.NotFound) as error:
            log.warning("the end of a rollout cannot be announced in #%s: %s", channel, error)
