"""Who speaks in which channel: `/persona set|show|list|clear|mute|unmute`; what else there is comes from its bases.

Everyone may ask who is here, so the group is open to all, and what changes something checks for a moderator itself:
Discord knows default permissions for a whole command only, not for its subcommands. In direct messages everyone
chooses for themselves.
"""

from __future__ import annotations

import time
from typing import Literal

import discord
from discord import app_commands
from discord.ext import commands

from bot import permissions
from bot.cogs.asking import Interaction, known_persona, persona_choices, require_moderator
from bot.cogs.cards import CardCommands
from bot.cogs.duet import DuetCommands
from bot.cogs.lore import LoreCommands
from bot.cogs.teach import TeachCommands
from bot.errors import RefusedError
from bot.house import HouseBot
from bot.personas import short_id
from bot.place import SpeakChannel, place_of
from bot.store import EVERYONE, EVERYWHERE, Channel, Mute, StoredReply
from bot.voices import NO_MENTIONS
from personas.contracts import Persona

Where = Literal["channel", "server"]
Said = Literal["nothing", "hour", "day", "everything"]
SINCE_S: dict[Said, float] = {"hour": 3600.0, "day": 86400.0, "everything": 1e11}
REPORT_EVERY = 10
"""After so many deleted replies a moderator is told how far it is."""


@app_commands.allowed_contexts(guilds=True, dms=True)
class PersonaCommands(
    CardCommands,
    DuetCommands,
    LoreCommands,
    TeachCommands,
    commands.GroupCog,
    group_name="persona",
    group_description="Who speaks in this channel.",
):
    """The commands."""

    def __init__(self, bot: HouseBot) -> None:
        self.bot = bot
        super().__init__()

    # ------------------------------------------------------------------------------------------ who lives where

    @app_commands.command(name="set", description="Let a persona live in this channel (moderators).")
    @app_commands.describe(persona="Who", answers="Which messages (every one that the bot may read, if left out)")
    @app_commands.choices(
        answers=[
            app_commands.Choice(name="messages that mention me", value="mentions"),
            app_commands.Choice(name="every message", value="everything"),
        ]
    )
    @app_commands.autocomplete(persona=persona_choices)
    async def set_(
        self,
        interaction: Interaction,
        persona: str,
        answers: Literal["mentions", "everything"] | None = None,
    ) -> None:
        channel = self._channel(interaction, changing=True)
        answers = answers or ("everything" if self.bot.intents.message_content else "mentions")
        chosen, place = known_persona(interaction, persona), place_of(channel)
        await interaction.response.defer(ephemeral=True)
        setting = Channel(place.guild_id, place.channel_id, chosen.id, answers, interaction.user.id, time.time())
        self.bot.house.store.channels.assign(setting)
        await interaction.followup.send(self._set_words(chosen, answers, channel), ephemeral=True)
        await self.bot.house.answerer.greet(chosen, channel, interaction.user.display_name)

    @app_commands.command(description="Say who lives in this channel.")
    async def show(self, interaction: Interaction) -> None:
        place = place_of(self._channel(interaction))
        setting = self.bot.house.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
        persona = self.bot.house.conversations.persona_in(place)
        if setting is None or persona is None:
            raise RefusedError("No persona lives here.", "A moderator can change that with `/persona set`.")
        live = self._live_words(persona) or "base model (not trained yet)"
        heard = "every message" if setting.answers == "everything" or not place.guild_id else "messages that mention me"
        silent = self.bot.house.answerer.rules.muted(persona, place)
        tagline = f": {persona.tagline}" if persona.tagline else ""
        answers = "Silenced by a moderator (`/persona unmute`)" if silent else f"Answers {heard}, and /chat"
        await interaction.response.send_message(
            f"**{persona.name}** (`{short_id(persona, place.guild_id)}`){tagline}\n{answers}. Live: {live}.",
            ephemeral=True,
            allowed_mentions=NO_MENTIONS,
        )

    @app_commands.command(name="list", description="List the personas and where they live.")
    async def list_(self, interaction: Interaction) -> None:
        house = self.bot.house
        places = house.store.channels.of_guild(interaction.guild_id) if interaction.guild_id else []
        lines = []
        guild_id = interaction.guild_id or 0
        for persona in house.conversations.personas.of(guild_id).values():
            where = " ".join(f"<#{place.channel_id}>" for place in places if place.persona_id == persona.id)
            live = self._live_words(persona) or "base model"
            lines.append(
                f"**{persona.name}** (`{short_id(persona, guild_id)}`, {live}) {where}\n{persona.tagline}".strip()
            )
        mutes = house.store.mutes.of_guild(guild_id)
        lines += [f"Silenced: {self._mute_words(mute)}" for mute in mutes]
        await interaction.response.send_message("\n".join(lines)[:2000] or "No personas.", ephemeral=True)

    def _live_words(self, persona: Persona) -> str:
        """The live version; of one that was made for another base model, that it does not speak. Empty for none."""
        house = self.bot.house
        live = house.store.versions.live(persona.id) or ""
        behind = house.conversations.left_behind.model_of(persona.id, live)
        return f"{live}, made for another base model; ours speaks until it is trained again" if behind else live

    @app_commands.command(description="Let no persona live in this channel (moderators).")
    async def clear(self, interaction: Interaction) -> None:
        place = place_of(self._channel(interaction, changing=True))
        if not self.bot.house.store.channels.clear(place.guild_id, place.channel_id):
            raise RefusedError("No persona lives here.")
        await interaction.response.send_message("Nobody lives here now. `/persona set` undoes this.", ephemeral=True)

    @app_commands.command(description="Start the talk here afresh: what was said before is not shown to the persona.")
    async def fresh(self, interaction: Interaction) -> None:
        place = place_of(self._channel(interaction))
        self.bot.house.answerer.rules.require_voice(interaction)
        self.bot.house.store.messages.start_afresh(place.channel_id)
        await interaction.response.send_message("The talk here starts afresh. Nothing was deleted.")

    # ------------------------------------------------------------------------------------------ silence

    @app_commands.command(description="Silence personas at once, in the middle of a word (moderators).")
    @app_commands.describe(
        where="In this channel and its threads, or in the whole server (this channel if left out)",
        persona="Whom (all personas if left out)",
        delete="What they have said there already is deleted (nothing if left out)",
    )
    @app_commands.choices(
        where=[
            app_commands.Choice(name="this channel", value="channel"),
            app_commands.Choice(name="the whole server", value="server"),
        ],
        delete=[
            app_commands.Choice(name="nothing", value="nothing"),
            app_commands.Choice(name="what was said in the last hour", value="hour"),
            app_commands.Choice(name="what was said in the last day", value="day"),
            app_commands.Choice(name="everything they ever said", value="everything"),
        ],
    )
    @app_commands.autocomplete(persona=persona_choices)
    async def mute(
        self, interaction: Interaction, where: Where = "channel", persona: str | None = None, delete: Said = "nothing"
    ) -> None:
        mute = self._mute(interaction, where, persona)
        self.bot.house.store.mutes.add(mute)
        self.bot.house.answerer.hush(mute.guild_id)
        words = f"Silenced: {self._mute_words(mute)}. `/persona unmute` lifts it."
        await interaction.response.send_message(words, ephemeral=True)
        if delete != "nothing":
            await self._delete_said(interaction, mute, time.time() - SINCE_S[delete], words)

    @app_commands.command(description="Let silenced personas speak again (moderators).")
    @app_commands.describe(
        where="Where they were silenced (this channel if left out)", persona="Who was (all personas if left out)"
    )
    @app_commands.choices(
        where=[
            app_commands.Choice(name="this channel", value="channel"),
            app_commands.Choice(name="the whole server", value="server"),
        ]
    )
    @app_commands.autocomplete(persona=persona_choices)
    async def unmute(self, interaction: Interaction, where: Where = "channel", persona: str | None = None) -> None:
        mute, mutes = self._mute(interaction, where, persona), self.bot.house.store.mutes
        if not mutes.remove(mute.guild_id, mute.channel_id, mute.persona_id):
            there = "; ".join(self._mute_words(other) for other in mutes.of_guild(mute.guild_id)) or "nothing"
            raise RefusedError(f"There is no such silence: {self._mute_words(mute)}.", f"In force: {there}.")
        await interaction.response.send_message(f"Lifted: {self._mute_words(mute)}.", ephemeral=True)

    def _mute(self, interaction: Interaction, where: Where, persona: str | None) -> Mute:
        place = place_of(self._channel(interaction, changing=True))
        if not place.guild_id:
            raise RefusedError("In direct messages nobody needs silencing.", "`/persona clear` sends them away.")
        channel_id = place.channel_id if where == "channel" else EVERYWHERE
        persona_id = known_persona(interaction, persona).id if persona else EVERYONE
        return Mute(place.guild_id, channel_id, persona_id, interaction.user.id, time.time())

    def _mute_words(self, mute: Mute) -> str:
        persona = self.bot.house.conversations.personas.get(mute.persona_id, mute.guild_id)
        whom = persona.name if persona else mute.persona_id or "all personas"
        return f"{whom} in {f'<#{mute.channel_id}>' if mute.channel_id else 'the whole server'}"

    async def _delete_said(self, interaction: Interaction, mute: Mute, since: float, words: str) -> None:
        replies = self._said(interaction, mute, since)
        done, kept = 0, 0
        async for gone in self.bot.house.answerer.delete(replies, self.bot):
            done, kept = done + gone, kept + (not gone)
            if (done + kept) % REPORT_EVERY == 0 or done + kept == len(replies):
                left = f" {kept} could not be deleted: I lack Manage Messages there." if kept else ""
                how_far = f"Deleted {done} of {len(replies)} replies.{left}"
                await interaction.edit_original_response(content=f"{words}\n{how_far}")
        if not replies:
            await interaction.edit_original_response(content=f"{words}\nThere was nothing to delete.")

    def _said(self, interaction: Interaction, mute: Mute, since: float) -> list[StoredReply]:
        threads = interaction.guild.threads if interaction.guild else []
        within = [mute.channel_id, *(thread.id for thread in threads if thread.parent_id == mute.channel_id)]
        return self.bot.house.store.replies.said(
            mute.guild_id,
            channel_ids=within if mute.channel_id else None,
            persona_id=mute.persona_id or None,
            since=since,
        )

    # ------------------------------------------------------------------------------------------ where it was asked

    def _channel(self, interaction: Interaction, *, changing: bool = False) -> SpeakChannel:
        """The channel, if personas can live there and this member may do this."""
        channel = interaction.channel
        if not isinstance(channel, SpeakChannel):
            raise RefusedError("Personas live in text channels, threads and direct messages.", "Try it there.")
        if changing and not isinstance(channel, discord.DMChannel):
            require_moderator(interaction)
        return channel

    def _set_words(self, persona: Persona, answers: str, channel: SpeakChannel) -> str:
        hears = "every message here" if answers == "everything" else "messages that mention me"
        words = [f"**{persona.name}** lives here now, and answers {hears}, replies to it, and `/chat`."]
        if isinstance(channel, discord.DMChannel):
            return f"**{persona.name}** lives here now."
        if answers == "everything" and not self.bot.intents.message_content:
            need = permissions.MESSAGE_CONTENT
            words.append(f"The bot may not {need.why}: {need.cost}. The operator can set MESSAGE_CONTENT_INTENT.")
        for lack in permissions.missing(channel.permissions_for(channel.guild.me)):
            words.append(f"I lack the permission {lack.permission.replace('_', ' ').title()} here: {lack.cost}.")
        return "\n".join(words)
