"""`/finetune rollout start|stop|status` and `/finetune history`: a version answers a part of the replies first."""

from __future__ import annotations

import time

import discord
from discord import app_commands
from discord.ext import commands

from bot.cogs import rollout_actions as actions
from bot.cogs.asking import MAX_CHOICES, Choices, Interaction, persona_choices, persona_meant
from bot.errors import RefusedError
from bot.house import HouseBot
from bot.place import GuildChannel
from bot.rollout import words
from bot.rollout.comparing import compare
from bot.rollout.history import History
from bot.rollout.watch import RolloutWatch
from bot.store import NewRollout
from bot.voices import NO_MENTIONS
from personas.errors import RequestError


class RolloutCommands(commands.Cog):
    """Commands of the group `/finetune`: a base of its cog. It also hears what members make of replies."""

    def __init__(self, bot: HouseBot) -> None:
        self.bot = bot
        self._watch = RolloutWatch(bot, actions.ended_view)
        super().__init__()

    @commands.Cog.listener("on_ready")
    async def _settle_all(self) -> None:
        await self._watch.settle_all()

    @commands.Cog.listener("on_reply_judged")
    async def _look(self, event_id: int) -> None:
        await self._watch.judged(event_id)

    @commands.Cog.listener("on_version_changed")
    async def _settle(self, guild_id: int, persona_id: str) -> None:
        await self._watch.settle(persona_id)

    rollout = app_commands.Group(name="rollout", description="Let a version answer a part of the replies first.")

    @rollout.command(name="start", description="Let a version that is not live answer a part of the replies.")
    @app_commands.describe(
        version="Which (the newest that is not live if left out)",
        share="Of how many replies, in percent, drawn by chance",
        channel="In this channel alone, its threads included; all of its replies unless a share is given",
        persona="Whose (this channel's persona if left out)",
    )
    @app_commands.autocomplete(persona=persona_choices)
    async def start_rollout(
        self,
        interaction: Interaction,
        version: str | None = None,
        share: app_commands.Range[int, 1, 99] | None = None,
        channel: discord.TextChannel | None = None,
        persona: str | None = None,
    ) -> None:
        here = interaction.channel
        if not isinstance(here, GuildChannel):
            raise RefusedError("Rollouts are begun, and told of, in text channels and threads.", "Try it there.")
        if share is None and channel is None:
            raise RequestError("How far?", "Name a `share` of the replies, such as 20, or a `channel`, or both.")
        await interaction.response.defer(ephemeral=True)
        who = persona_meant(interaction, persona)
        if channel:
            actions.require_lives_in(interaction, who, channel)
        new = NewRollout(
            persona_id=who.id,
            version=version or self._newest(who.id),
            guild_id=here.guild.id,
            channel_id=here.id,
            started_by=interaction.user.id,
            share=share or 100,
            only_channel=channel.id if channel else None,
        )
        rollout = await actions.start_rollout(interaction, new)
        await interaction.followup.send(
            words.begun(rollout, who.name), view=actions.running_view(rollout), ephemeral=True
        )

    @start_rollout.autocomplete("version")
    async def _versions(self, interaction: Interaction, current: str) -> Choices:
        try:
            who = persona_meant(interaction, getattr(interaction.namespace, "persona", None))
        except RequestError:
            return []
        versions = self.bot.house.store.versions
        found = [one.version for one in reversed(versions.installed(who.id)) if current in one.version]
        live = versions.live(who.id)
        return [app_commands.Choice(name=one, value=one) for one in found if one != live][:MAX_CHOICES]

    @rollout.command(name="stop", description="Let the live version make all replies again.")
    @app_commands.describe(persona="Whose (this channel's persona if left out)")
    @app_commands.autocomplete(persona=persona_choices)
    async def stop_rollout(self, interaction: Interaction, persona: str | None = None) -> None:
        who = persona_meant(interaction, persona)
        running = self.bot.house.store.rollouts.here(who.id, interaction.guild_id or 0, time.time())
        if running is None:
            raise RequestError(f"No version of {who.name} is being rolled out here.", "`/finetune rollout start`")
        await interaction.response.send_message(actions.stop_rollout(interaction, running), ephemeral=True)

    @rollout.command(name="status", description="What is rolled out here or watched, and what members make of it.")
    async def rollout_status(self, interaction: Interaction) -> None:
        rollouts, now = self.bot.house.store.rollouts, time.time()
        told, tried = [], []
        for who in self.bot.house.conversations.personas.of(interaction.guild_id or 0).values():
            for one in rollouts.running(who.id, now):
                if one.guild_id == interaction.guild_id:
                    told.append(words.status(one, who.name, compare(self.bot.house.store, one)))
                    tried += [] if one.is_promoted else [one]
        said = "\n\n".join(told)[:2000] or "Nothing is rolled out, and no version was promoted lately."
        view = actions.running_view(tried[0]) if len(tried) == 1 else discord.utils.MISSING
        await interaction.response.send_message(said, view=view, ephemeral=True, allowed_mentions=NO_MENTIONS)

    @app_commands.command(description="A persona's versions: measured, rolled out, live, taken back, and why.")
    @app_commands.describe(persona="Whose (this channel's persona if left out)")
    @app_commands.autocomplete(persona=persona_choices)
    async def history(self, interaction: Interaction, persona: str | None = None) -> None:
        who = persona_meant(interaction, persona)
        pages = History(self.bot.house, who, interaction.guild_id or 0).pages()
        view = actions.history_view(who.id, 0, len(pages)) or discord.utils.MISSING
        await interaction.response.send_message(pages[0], view=view, ephemeral=True, allowed_mentions=NO_MENTIONS)

    def _newest(self, persona_id: str) -> str:
        versions = self.bot.house.store.versions
        live = versions.live(persona_id)
        found = [one.version for one in versions.installed(persona_id) if one.version != live]
        if not found:
            raise RequestError("There is no version that is not live.", "Train one with `/finetune start`.")
        return found[-1]
