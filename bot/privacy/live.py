"""What the running bot does while somebody is forgotten: trainings, engine, lore, personas, and who is told."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import discord

from bot.house import HouseBot
from bot.lore import GuildLore
from bot.privacy.receipt import Receipt, Withdrawn
from bot.privacy.words import said
from bot.store import Job
from bot.voices import NO_MENTIONS
from personas.errors import UnderstudyError

log = logging.getLogger(__name__)

NOBODY = 0
"""Who asks for a training that follows from a forgetting."""


@dataclass(frozen=True)
class LiveBot:
    """The bot around a forgetting (`bot.privacy.forget.Around`)."""

    client: HouseBot

    @property
    def busy(self) -> Collection[Path]:
        """The index of the lore is open, and written anew."""
        return list((self.client.house.home / "cache").glob("lore.sqlite*"))

    async def set_aside(self, jobs: Collection[str]) -> None:
        queue = self.client.house.queue
        queue.hold()
        for job_id in jobs:
            await queue.set_aside(job_id)

    async def drop(self, persona_id: str, version: str) -> None:
        house = self.client.house
        house.answerer.hush_replies(of=persona_id)
        await house.answerer.engine.drop(house.conversations.adapter(persona_id, version))

    async def files_changed(self, paths: Collection[str]) -> None:
        house = self.client.house
        parts = [Path(path).parts for path in paths]
        if any(part[0] == "personas" for part in parts):
            await asyncio.to_thread(house.conversations.personas.reread)
        lore = GuildLore(house.home, house.conversations.lore, house.catalogue.shipped.lore)
        owners = {
            (int(part[1]), part[2]) for part in parts if part[0] == "lore" and len(part) > 3 and part[1].isdigit()
        }
        for guild_id, persona_id in sorted(owners):
            await lore.refresh(guild_id, persona_id)
        house.conversations.lore.compact()

    async def follow(self, receipt: Receipt) -> Receipt:
        await self.client.house.answerer.engine.forget_texts()
        try:
            withdrawn = tuple([self._trained_anew(one) for one in receipt.withdrawn])
            dialogues = tuple([self._dialogue_anew(one) for one in receipt.dialogues])
        finally:
            self.client.house.queue.go_on()
        for one in withdrawn:
            await self._tell(one)
        return receipt.model_copy(update={"withdrawn": withdrawn, "dialogues": dialogues})

    # ------------------------------------------------------------------------------------------------ anew

    def _trained_anew(self, one: Withdrawn) -> Withdrawn:
        """Ask again for what a withdrawn version was made by, where it was live; others are asked for if missed."""
        job_id = self.client.house.store.versions.job_of(one.persona_id, one.version)
        job = self.client.house.store.jobs.get(job_id) if job_id else None
        return self._again(one, job) if job and one.now is not None else one

    def _dialogue_anew(self, one: Withdrawn) -> Withdrawn:
        done = self.client.house.store.jobs.in_state("done")
        job = next((job for job in reversed(done) if job.name == f"dialogue/{one.persona_id}"), None)
        return self._again(one, job) if job else one

    def _again(self, one: Withdrawn, job: Job) -> Withdrawn:
        again_id = hashlib.sha256(f"again:{job.job_id}".encode()).hexdigest()[:10]
        if self.client.house.store.jobs.get(again_id):
            return one.model_copy(update={"again": again_id})
        try:
            self.client.house.queue.enqueue(
                job.request, guild_id=job.guild_id, channel_id=job.channel_id, requested_by=NOBODY, job_id=again_id
            )
        except UnderstudyError as error:
            log.warning("%s %s is not trained anew: %s", one.persona_id, one.version, error)
            return one.model_copy(update={"why_not": error.message})
        return one.model_copy(update={"again": again_id})

    # ------------------------------------------------------------------------------------------------ saying so

    async def _tell(self, one: Withdrawn) -> None:
        """Say in the channels concerned that a version was withdrawn; whoever it was about is not named."""
        if one.now is None:
            return
        personas = self.client.house.conversations.personas
        for guild in self.client.guilds:
            persona = personas.get(one.persona_id, guild.id)
            if persona is None:
                continue
            words = said("en", "announced", name=persona.name, version=one.version, now=one.now or "the base model")
            words += " " + said("en", "announced_again" if one.again else "announced_alone")
            for channel in self._channels(guild, one.persona_id):
                try:
                    await channel.send(words, allowed_mentions=NO_MENTIONS)
                except discord.HTTPException as error:
                    log.warning("could not say in #%s that a version was withdrawn: %s", channel, error)
            self.client.dispatch("version_changed", guild.id, one.persona_id)

    def _channels(self, guild: discord.Guild, persona_id: str) -> Iterator[discord.abc.Messageable]:
        for setting in self.client.house.store.channels.of_guild(guild.id):
            channel = guild.get_channel_or_thread(setting.channel_id)
            if setting.persona_id == persona_id and isinstance(channel, discord.TextChannel | discord.Thread):
                yield channel
