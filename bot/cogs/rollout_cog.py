"""`/finetune rollout start|stop|status` and `/finetune history`: a version answers a share of the replies first."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from bot.chat.discord_channels import NO_MENTIONS, GuildChannel, SpeakChannel, channel_ref
from bot.cogs.progress_messages import ModeratorButton, PromoteButton, promote_with_reply
from bot.cogs.transformers import (
    MAX_CHOICES,
    Choices,
    Interaction,
    PersonaOption,
    channel_persona,
    persona_option,
    require_persona,
)
from bot.errors import RefusedError
from bot.services import Bot
from bot.store import NewRollout, Rollout
from bot.versions.rollout import rollout_text
from bot.versions.rollout.rollout_metrics import compare_rollout
from bot.versions.rollout.version_history import VersionHistory
from bot.versions.rollout_monitor import RolloutMonitor
from personas.errors import RequestError
from personas.schemas.chat import Persona


def require_speaks_in(interaction: Interaction, persona: Persona, channel: discord.TextChannel) -> None:
    """Raise `RequestError` where a persona answers neither in a channel nor in a thread of it."""
    request_builder = interaction.client.services.request_builder
    places: list[SpeakChannel] = [channel, *channel.threads]
    here = [request_builder.persona_in(channel_ref(place)) for place in places]
    if not any(it and it.id == persona.id for it in here):
        raise RequestError(
            f"{persona.name} does not live in #{channel.name}, so none of its versions would answer there.",
            "Name the channel in which it lives, or give it that one with `/persona set`.",
        )


def stop_rollout(interaction: Interaction, rollout: Rollout) -> str:
    """Stop a rollout; returns the reply to the moderator."""
    persona = rollout_persona(interaction, rollout)
    interaction.client.services.versions.stop_rollout(rollout, interaction.user.id)
    return rollout_text.stopped_text(rollout, persona.name)


async def restart_rollout(interaction: Interaction, rollout: Rollout) -> str:
    """Give a version that was taken back by itself another chance; what was counted before counts no more."""
    persona = rollout_persona(interaction, rollout)
    if not interaction.client.services.store.rollouts.is_last(rollout):
        raise RefusedError(
            "More has happened since this version was taken back.",
            "`/finetune history` says what; `/finetune rollout start` and `/finetune promote` let it speak again.",
        )
    if rollout.is_promoted:
        return await promote_with_reply(interaction, persona, rollout.version)
    names = NewRollout.__dataclass_fields__
    new = replace(NewRollout(**{name: getattr(rollout, name) for name in names}), started_by=interaction.user.id)
    return rollout_text.started_text(await interaction.client.services.versions.start_rollout(new), persona.name)


def rollout_persona(interaction: Interaction, rollout: Rollout) -> Persona:
    """Find the rollout's persona. Raises `RequestError` where it was removed."""
    return require_persona(interaction, rollout.persona_id)


def running_rollout_view(rollout: Rollout) -> discord.ui.View:
    """Under a rollout that goes on."""
    return _view(PromoteButton(rollout.persona_id, rollout.version), StopRolloutButton(str(rollout.seq)))


def ended_rollout_view(rollout: Rollout) -> discord.ui.View | None:
    """Under the message that a rollout has ended by itself."""
    return _view(RestartRolloutButton(str(rollout.seq))) if rollout.ending == "worse" else None


def history_view(persona_id: str, page: int, pages: int) -> discord.ui.View | None:
    """To turn the pages of a history, from 0."""
    turns = []
    if page > 0:
        turns.append(HistoryPageButton(persona_id, str(page - 1), "Newer"))
    if page + 1 < pages:
        turns.append(HistoryPageButton(persona_id, str(page + 1), "Older"))
    return _view(*turns) if turns else None


class _RolloutButton(ModeratorButton, template=r"never:"):
    """A button for one rollout, by its number."""

    def __init__(self, seq: str, custom_id: str, label: str) -> None:
        self.seq = int(seq)
        super().__init__(discord.ui.Button(label=label, custom_id=f"{custom_id}:{seq}"))

    def rollout(self, interaction: Interaction) -> Rollout:
        """Raises `RefusedError` where it is not, or no longer, known."""
        found = interaction.client.services.store.rollouts.get(self.seq)
        if found is None or found.guild_id != interaction.guild_id:
            raise RefusedError("This rollout is no longer known.", "`/finetune history` says what there was.")
        return found


class StopRolloutButton(_RolloutButton, template=r"rollout-stop:(?P<seq>[0-9]+)"):
    """Ends a rollout."""

    def __init__(self, seq: str) -> None:
        super().__init__(seq, "rollout-stop", "Stop")

    async def pressed(self, interaction: Interaction) -> None:
        said = stop_rollout(interaction, self.rollout(interaction))
        await interaction.response.send_message(said, ephemeral=True, allowed_mentions=NO_MENTIONS)


class RestartRolloutButton(_RolloutButton, template=r"rollout-undo:(?P<seq>[0-9]+)"):
    """Undoes that a version was taken back by itself."""

    def __init__(self, seq: str) -> None:
        super().__init__(seq, "rollout-undo", "Undo")

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.defer()
        said = await restart_rollout(interaction, self.rollout(interaction))
        await interaction.followup.send(said, allowed_mentions=NO_MENTIONS)


class HistoryPageButton(ModeratorButton, template=r"history:(?P<persona_id>[\w-]+):(?P<page>[0-9]+)"):
    """Turns the pages of a history."""

    def __init__(self, persona_id: str, page: str, label: str = "Page") -> None:
        self.persona_id, self.page = persona_id, int(page)
        super().__init__(discord.ui.Button(label=label, custom_id=f"history:{persona_id}:{page}"))

    async def pressed(self, interaction: Interaction) -> None:
        persona = require_persona(interaction, self.persona_id)
        pages = VersionHistory(interaction.client.services.store, persona, interaction.guild_id or 0).pages()
        page = min(self.page, len(pages) - 1)
        await interaction.response.edit_message(
            content=pages[page], view=history_view(persona.id, page, len(pages)), allowed_mentions=NO_MENTIONS
        )


def _view(*buttons: discord.ui.DynamicItem[Any]) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    return view


ROLLOUT_BUTTONS = (StopRolloutButton, RestartRolloutButton, HistoryPageButton)


class RolloutCommands(commands.Cog):
    """Commands of the group `/finetune`: a base of its cog. It also hears what members make of replies."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        services = bot.services
        self._monitor = RolloutMonitor(
            bot, services.home, services.store, services.personas, services.versions, ended_rollout_view
        )
        super().__init__()

    @commands.Cog.listener("on_ready")
    async def _settle_all(self) -> None:
        await self._monitor.settle_all()

    @commands.Cog.listener("on_reply_judged")
    async def _look(self, event_id: int) -> None:
        await self._monitor.on_reply_judged(event_id)

    @commands.Cog.listener("on_version_changed")
    async def _settle(self, guild_id: int, persona_id: str) -> None:
        await self._monitor.settle(persona_id)

    rollout = app_commands.Group(name="rollout", description="Let a version answer a part of the replies first.")

    @rollout.command(name="start", description="Let a version that is not live answer a part of the replies.")
    @app_commands.describe(
        version="Which (the newest that is not live if left out)",
        share="Of how many replies, in percent, drawn by chance",
        channel="In this channel alone, its threads included; all of its replies unless a share is given",
        persona="Whose (this channel's persona if left out)",
    )
    async def start_rollout(
        self,
        interaction: Interaction,
        version: str | None = None,
        share: app_commands.Range[int, 1, 99] | None = None,
        channel: discord.TextChannel | None = None,
        persona: PersonaOption | None = None,
    ) -> None:
        here = interaction.channel
        if not isinstance(here, GuildChannel):
            raise RefusedError("Rollouts are begun, and told of, in text channels and threads.", "Try it there.")
        if share is None and channel is None:
            raise RequestError("How far?", "Name a `share` of the replies, such as 20, or a `channel`, or both.")
        await interaction.response.defer(ephemeral=True)
        who = persona or channel_persona(interaction)
        if channel:
            require_speaks_in(interaction, who, channel)
        new = NewRollout(
            persona_id=who.id,
            version=version or self._newest(who.id),
            guild_id=here.guild.id,
            channel_id=here.id,
            started_by=interaction.user.id,
            share=share or 100,
            only_channel=channel.id if channel else None,
        )
        rollout = await self.bot.services.versions.start_rollout(new)
        await interaction.followup.send(
            rollout_text.started_text(rollout, who.name), view=running_rollout_view(rollout), ephemeral=True
        )

    @start_rollout.autocomplete("version")
    async def _versions(self, interaction: Interaction, current: str) -> Choices:
        try:
            who = persona_option(interaction)
        except RequestError:
            return []
        versions = self.bot.services.store.versions
        found = [one.version for one in reversed(versions.installed(who.id)) if current in one.version]
        live = versions.live(who.id)
        return [app_commands.Choice(name=one, value=one) for one in found if one != live][:MAX_CHOICES]

    @rollout.command(name="stop", description="Let the live version make all replies again.")
    @app_commands.describe(persona="Whose (this channel's persona if left out)")
    async def stop_rollout(self, interaction: Interaction, persona: PersonaOption | None = None) -> None:
        who = persona or channel_persona(interaction)
        running = self.bot.services.store.rollouts.find_active(who.id, interaction.guild_id or 0, time.time())
        if running is None:
            raise RequestError(f"No version of {who.name} is being rolled out here.", "`/finetune rollout start`")
        await interaction.response.send_message(stop_rollout(interaction, running), ephemeral=True)

    @rollout.command(name="status", description="What is rolled out here or watched, and what members make of it.")
    async def rollout_status(self, interaction: Interaction) -> None:
        rollouts, now = self.bot.services.store.rollouts, time.time()
        told, tried = [], []
        for who in self.bot.services.personas.of(interaction.guild_id or 0).values():
            for one in rollouts.running(who.id, now):
                if one.guild_id == interaction.guild_id:
                    told.append(rollout_text.status_text(one, who.name, compare_rollout(self.bot.services.store, one)))
                    tried += [] if one.is_promoted else [one]
        said = "\n\n".join(told)[:2000] or "Nothing is rolled out, and no version was promoted lately."
        view = running_rollout_view(tried[0]) if len(tried) == 1 else discord.utils.MISSING
        await interaction.response.send_message(said, view=view, ephemeral=True, allowed_mentions=NO_MENTIONS)

    @app_commands.command(description="A persona's versions: measured, rolled out, live, taken back, and why.")
    @app_commands.describe(persona="Whose (this channel's persona if left out)")
    async def history(self, interaction: Interaction, persona: PersonaOption | None = None) -> None:
        who = persona or channel_persona(interaction)
        pages = VersionHistory(self.bot.services.store, who, interaction.guild_id or 0).pages()
        view = history_view(who.id, 0, len(pages)) or discord.utils.MISSING
        await interaction.response.send_message(pages[0], view=view, ephemeral=True, allowed_mentions=NO_MENTIONS)

    def _newest(self, persona_id: str) -> str:
        versions = self.bot.services.store.versions
        live = versions.live(persona_id)
        found = [one.version for one in versions.installed(persona_id) if one.version != live]
        if not found:
            raise RequestError("There is no version that is not live.", "Train one with `/finetune start`.")
        return found[-1]
