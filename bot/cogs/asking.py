"""Who may ask for something, and which persona they mean."""

from __future__ import annotations

import discord
from discord import app_commands

from bot import permissions
from bot.errors import RefusedError
from bot.house import HouseBot
from bot.personas import short_id
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
    """The persona with this id or name that there is here. Raises `RequestError` that names those there are."""
    personas, guild_id = interaction.client.house.conversations.personas, interaction.guild_id or 0
    persona = personas.find(wanted, guild_id)
    if persona is None:
        names = ", ".join(f"{p.name} (`{short_id(p, guild_id)}`)" for p in personas.of(guild_id).values())
        raise RequestError(f"There is no persona {wanted!r}.", f"Known: {names}.")
    return persona


async def persona_choices(interaction: Interaction, current: str) -> Choices:
    """Autocomplete for personas."""
    personas = interaction.client.house.conversations.personas.of(interaction.guild_id or 0)
    wanted = current.casefold()
    found = [p for p in personas.values() if wanted in p.name.casefold() or wanted in p.id]
    return [app_commands.Choice(name=p.name, value=p.id) for p in found[:MAX_CHOICES]]
