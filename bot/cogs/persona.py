"""Who speaks in which channel: `/persona set|show|list|clear`.

Everyone may ask who is here, so the group is open to all, and `set` and `clear` check for a moderator themselves:
Discord knows default permissions for a whole command only, not for its subcommands.
"""

from __future__ import annotations

import time
from typing import Literal

import discord
from discord import app_commands
from discord.ext import commands

from bot import permissions
from bot.errors import RefusedError
from bot.house import HouseBot
from bot.replies import NO_MENTIONS, SpeakChannel
from bot.store import Channel
from personas.card import find_persona
from personas.contracts import Persona
from personas.errors import RequestError

Interaction = discord.Interaction[HouseBot]
Choices = list[app_commands.Choice[str]]
MAX_CHOICES = 25


def require_moderator(interaction: Interaction) -> None:
    """Refuse whoever may not manage the server."""
    if not permissions.is_moderator(interaction.user):
        raise RefusedError("Only moderators may do this.", "It takes the permission Manage Server.")


def known_persona(interaction: Interaction, wanted: str) -> Persona:
    """The persona with this id or name. Raises `RequestError` that names the known ones."""
    personas = interaction.client.house.conversations.personas
    persona = find_persona(dict(personas), wanted)
    if persona is None:
        names = ", ".join(f"{p.name} (`{p.id}`)" for p in personas.values())
        raise RequestError(f"There is no persona {wanted!r}.", f"Known: {names}.")
    return persona


async def persona_choices(interaction: Interaction, current: str) -> Choices:
    """Autocomplete for personas."""
    personas = interaction.client.house.conversations.personas.values()
    wanted = current.casefold()
    found = [p for p in personas if wanted in p.name.casefold() or wanted in p.id]
    return [app_commands.Choice(name=p.name, value=p.id) for p in found[:MAX_CHOICES]]


@app_commands.guild_only()
class PersonaCommands(commands.GroupCog, group_name="persona", group_description="Who speaks in this channel."):
    """The commands."""

    def __init__(self, bot: HouseBot) -> None:
        self.bot = bot
        super().__init__()

    @app_commands.command(description="Let a persona live in this channel (moderators).")
    @app_commands.describe(persona="Who", answers="Which messages it answers; /chat works always")
    @app_commands.choices(
        answers=[
            app_commands.Choice(name="messages that mention me", value="mentions"),
            app_commands.Choice(name="every message", value="everything"),
        ]
    )
    @app_commands.autocomplete(persona=persona_choices)
    async def set(
        self,
        interaction: Interaction,
        persona: str,
        answers: Literal["mentions", "everything"] = "mentions",
    ) -> None:
        require_moderator(interaction)
        channel = self._channel(interaction)
        chosen = known_persona(interaction, persona)
        await interaction.response.defer(ephemeral=True)
        setting = Channel(channel.guild.id, channel.id, chosen.id, answers, interaction.user.id, time.time())
        self.bot.house.store.channels.assign(setting)
        await interaction.followup.send(self._set_words(chosen, answers, channel), ephemeral=True)
        await self.bot.house.answerer.greet(chosen, channel)

    @app_commands.command(description="Say who lives in this channel.")
    async def show(self, interaction: Interaction) -> None:
        channel = self._channel(interaction)
        parent_id = channel.parent_id if isinstance(channel, discord.Thread) else None
        setting = self.bot.house.store.channels.get(channel.guild.id, channel.id, parent_id)
        persona = self.bot.house.conversations.persona_in(channel.guild.id, channel.id, parent_id)
        if setting is None or persona is None:
            raise RefusedError("No persona lives here.", "A moderator can change that with `/persona set`.")
        live = self.bot.house.store.versions.live(persona.id) or "base model (not trained yet)"
        heard = "every message" if setting.answers == "everything" else "messages that mention me"
        await interaction.response.send_message(
            f"**{persona.name}** (`{persona.id}`): {persona.tagline}\nAnswers {heard}, and /chat. Live: {live}.",
            ephemeral=True,
            allowed_mentions=NO_MENTIONS,
        )

    @app_commands.command(description="List the personas and where they live.")
    async def list(self, interaction: Interaction) -> None:
        house = self.bot.house
        places = house.store.channels.of_guild(interaction.guild_id or 0)
        lines = []
        for persona in house.conversations.personas.values():
            where = " ".join(f"<#{place.channel_id}>" for place in places if place.persona_id == persona.id)
            live = house.store.versions.live(persona.id) or "base model"
            lines.append(f"**{persona.name}** (`{persona.id}`, {live}) {where}\n{persona.tagline}")
        await interaction.response.send_message("\n".join(lines)[:2000] or "No personas.", ephemeral=True)

    @app_commands.command(description="Let no persona live in this channel (moderators).")
    async def clear(self, interaction: Interaction) -> None:
        require_moderator(interaction)
        channel = self._channel(interaction)
        if not self.bot.house.store.channels.clear(channel.guild.id, channel.id):
            raise RefusedError("No persona lives here.")
        await interaction.response.send_message("Nobody lives here now. `/persona set` undoes this.", ephemeral=True)

    def _channel(self, interaction: Interaction) -> SpeakChannel:
        if not isinstance(interaction.channel, SpeakChannel):
            raise RefusedError("Personas live in text channels and threads.", "Try it there.")
        return interaction.channel

    def _set_words(self, persona: Persona, answers: str, channel: SpeakChannel) -> str:
        words = [f"**{persona.name}** lives here now."]
        if answers == "everything" and not self.bot.intents.message_content:
            need = permissions.MESSAGE_CONTENT
            words.append(f"The bot may not {need.why}: {need.cost}. The operator can set MESSAGE_CONTENT_INTENT.")
        for lack in permissions.missing(channel.permissions_for(channel.guild.me)):
            words.append(f"I lack the permission {lack.permission.replace('_', ' ').title()} here: {lack.cost}.")
        return "\n".join(words)
