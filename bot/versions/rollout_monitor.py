"""Monitors rollouts after each vote or interruption: rolls back what is worse and announces it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import discord

from bot.chat.discord_channels import NO_MENTIONS, fetch_channel
from bot.services import Bot
from bot.store import Rollout
from bot.versions.comparison_context import record_member_feedback
from bot.versions.rollout import rollout_text
from bot.versions.rollout.rollout_metrics import compare_rollout

log = logging.getLogger(__name__)

RolloutViewFactory = Callable[[Rollout], discord.ui.View | None]


@dataclass
class RolloutMonitor:
    """Everything is stored before it is said; what could not be said is said at the next occasion.

    `buttons` makes what can be pressed under the message of an end.
    """

    bot: Bot
    buttons: RolloutViewFactory
    _announcement_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def judged(self, event_id: int) -> None:
        """Somebody voted on a reply, stopped it or had it made anew: is its version worse than the other?

        What members have made of it until now is noted for the gate, too.
        """
        store = self.bot.services.store
        if reply := store.replies.get(event_id):
            await self.look(reply.persona_id)
            rollout = store.rollouts.get(reply.rollout) if reply.rollout else None
            for version in filter(None, {reply.adapter_version, rollout.version if rollout else None}):
                await record_member_feedback(self.bot.services, reply.persona_id, version)

    async def look(self, persona_id: str) -> None:
        """Take back what turned out worse."""
        store, now = self.bot.services.store, time.time()
        for rollout in store.rollouts.running(persona_id, now):
            comparison = compare_rollout(store, rollout)
            if comparison.worse and store.rollouts.revert(
                rollout, now, rollout_text.rollback_reason(rollout, comparison)
            ):
                log.warning("%s %s was taken back by itself", persona_id, rollout.version)
                if rollout.is_promoted:
                    self.bot.dispatch("version_changed", rollout.guild_id, persona_id)
        await self.tell()

    async def settle(self, persona_id: str) -> None:
        """Another version is live, or one was withdrawn: what this decides ends, and that is said."""
        self.bot.services.store.rollouts.end_superseded(persona_id, time.time())
        await self.tell()

    async def settle_all(self) -> None:
        """At the start: what ended or turned out worse while nobody was there to say it is said."""
        for persona_id in self.bot.services.store.rollouts.personas():
            self.bot.services.store.rollouts.end_superseded(persona_id, time.time())
            await self.look(persona_id)
        await self.tell()

    async def tell(self) -> None:
        """Say the ends that have not been said."""
        async with self._announcement_lock:
            for rollout in self.bot.services.store.rollouts.unannounced():
                try:
                    await self._tell(rollout)
                except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
                    log.warning("that a rollout ended could not be said yet: %s", error)
                else:
                    self.bot.services.store.rollouts.mark_announced(rollout.seq)

    async def _tell(self, rollout: Rollout) -> None:
        persona = self.bot.services.personas.get(rollout.persona_id, rollout.guild_id)
        channel = await fetch_channel(self.bot, rollout.channel_id)
        if persona is None or channel is None:
            return  # nobody is left to be told
        view = self.buttons(rollout) or discord.utils.MISSING
        try:
            await channel.send(rollout_text.ended_text(rollout, persona.name), view=view, allowed_mentions=NO_MENTIONS)
        except (discord.Forbidden, discord.NotFound) as error:
            log.warning("that a rollout ended cannot be said in #%s: %s", channel, error)
