"""Resolves what a command's arguments mean: personas, forms and autocompletion; requires moderators."""

from __future__ import annotations

from typing import Any

import discord
from discord import app_commands

from bot import permissions
from bot.chat.discord_channels import SpeakChannel, channel_ref
from bot.errors import RefusedError
from bot.personas.registry import short_id
from bot.services import Bot
from personas.errors import RequestError
from personas.schemas.chat import Persona

Interaction = discord.Interaction[Bot]
Choices = list[app_commands.Choice[str]]
MAX_CHOICES = 25


def require_moderator(interaction: Interaction) -> None:
    """Refuse whoever may not manage the server."""
    if not permissions.is_moderator(interaction.user):
        raise RefusedError("Only moderators may do this.", "It takes the permission Manage Server.")


def require_persona(interaction: Interaction, wanted: str) -> Persona:
    """The persona with this id or name that there is here. Raises `RequestError` that names those there are."""
    personas, guild_id = interaction.client.services.personas, interaction.guild_id or 0
    persona = personas.find(wanted, guild_id)
    if persona is None:
        names = ", ".join(f"{p.name} (`{short_id(p, guild_id)}`)" for p in personas.of(guild_id).values())
        raise RequestError(f"There is no persona {wanted!r}.", f"Known: {names}.")
    return persona


def persona_or_channel_default(interaction: Interaction, wanted: str | None) -> Persona:
    """The persona that is named or, where none is, the one that lives in this channel. Raises `RequestError`."""
    if wanted:
        return require_persona(interaction, wanted)
    channel = interaction.channel
    here = None
    if isinstance(channel, SpeakChannel):
        here = interaction.client.services.request_builder.persona_in(channel_ref(channel))
    if here is None:
        raise RequestError("No persona lives in this channel.", "Name one with the option `persona`.")
    return here


def submitted_form(interaction: Interaction, prefix: str) -> tuple[str, dict[str, str]] | None:
    """What follows `prefix` in the custom id of a form that was sent, and its values by custom id; else None.

    Read from the raw interaction, a form counts that was open while the bot was started anew.
    """
    data: Any = interaction.data or {}
    custom_id = str(data.get("custom_id", ""))
    if interaction.type is not discord.InteractionType.modal_submit or not custom_id.startswith(prefix):
        return None
    # Discord puts each field into a row or a label.
    fields = [row["component"] if "component" in row else row["components"][0] for row in data["components"]]
    return custom_id.removeprefix(prefix), {str(field["custom_id"]): str(field["value"]) for field in fields}


async def autocomplete_personas(interaction: Interaction, current: str) -> Choices:
    """Autocomplete for personas."""
    personas = interaction.client.services.personas.of(interaction.guild_id or 0)
    wanted = current.casefold()
    found = [p for p in personas.values() if wanted in p.name.casefold() or wanted in p.id]
    return [app_commands.Choice(name=p.name, value=p.id) for p in found[:MAX_CHOICES]]
