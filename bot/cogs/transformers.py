"""Transformers and checks of commands: personas by id or name, submitted forms, moderators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import discord
from discord import app_commands

from bot import permissions
from bot.chat.discord_channels import SpeakChannel, channel_ref
from bot.errors import RefusedError
from bot.personas.registry import short_id
from bot.services import Bot
from personas.errors import RequestError
from personas.schemas.chat import Persona

T = TypeVar("T")
Interaction = discord.Interaction[Bot]
Choices = list[app_commands.Choice[str]]
MAX_CHOICES = 25


def require_moderator(interaction: Interaction) -> None:
    """Raise `RefusedError` for members who may not manage the server."""
    if not permissions.is_moderator(interaction.user):
        raise RefusedError("Only moderators may do this.", "It takes the permission Manage Server.")


def require_guild_moderator(interaction: Interaction, dm_text: str) -> int:
    """Return the guild for its moderators. Raises `RefusedError`, in direct messages with `dm_text`."""
    if interaction.guild_id is None:
        raise RefusedError(dm_text, "Try it in one of its channels.")
    require_moderator(interaction)
    return interaction.guild_id


def check_moderator(interaction: Interaction) -> bool:
    """Check for moderators, for discord.py: its checks may raise nothing but `CheckFailure`."""
    return _as_check(lambda: require_moderator(interaction))


def guild_moderators_only(dm_text: str) -> Callable[[T], T]:
    """Decorate a command of a guild's moderators; `dm_text` is the reply in direct messages."""

    def predicate(interaction: Interaction) -> bool:
        return _as_check(lambda: require_guild_moderator(interaction, dm_text))

    return app_commands.check(predicate)


def _as_check(require: Callable[[], object]) -> bool:
    try:
        require()
    except RefusedError as error:
        raise app_commands.CheckFailure(error.message) from error
    return True


def require_persona(interaction: Interaction, wanted: str) -> Persona:
    """Find the guild's persona with this id or name. Raises `RequestError`, which lists the known ones."""
    personas, guild_id = interaction.client.services.personas, interaction.guild_id or 0
    persona = personas.find(wanted, guild_id)
    if persona is None:
        names = ", ".join(f"{p.name} (`{short_id(p, guild_id)}`)" for p in personas.of(guild_id).values())
        raise RequestError(f"There is no persona {wanted!r}.", f"Known: {names}.")
    return persona


def channel_persona(interaction: Interaction) -> Persona:
    """Find the persona of the command's channel. Raises `RequestError` where there is none."""
    channel = interaction.channel
    here = None
    if isinstance(channel, SpeakChannel):
        here = interaction.client.services.request_builder.persona_in(channel_ref(channel))
    if here is None:
        raise RequestError("No persona lives in this channel.", "Name one with the option `persona`.")
    return here


def submitted_form(interaction: Interaction, prefix: str) -> tuple[str, dict[str, str]] | None:
    """Parse a submitted form: the rest of its custom id after `prefix`, and its values by custom id; else None.

    Read from the raw interaction, a form counts that was open while the bot was started anew.
    """
    data: Any = interaction.data or {}
    custom_id = str(data.get("custom_id", ""))
    if interaction.type is not discord.InteractionType.modal_submit or not custom_id.startswith(prefix):
        return None
    # Discord puts each field into a row or a label.
    fields = [row["component"] if "component" in row else row["components"][0] for row in data["components"]]
    return custom_id.removeprefix(prefix), {str(field["custom_id"]): str(field["value"]) for field in fields}


def persona_option(interaction: Interaction) -> Persona:
    """Find the persona typed so far, else the channel's, for autocompletion of other options. Raises `RequestError`."""
    typed = getattr(interaction.namespace, "persona", None)
    return require_persona(interaction, typed) if typed else channel_persona(interaction)


class PersonaTransformer(app_commands.Transformer):
    """Option that takes a persona's id or name, with autocompletion."""

    async def transform(self, interaction: Interaction, value: str, /) -> Persona:  # type: ignore[override]
        return require_persona(interaction, value)

    async def autocomplete(self, interaction: Interaction, value: str, /) -> Choices:  # type: ignore[override]
        personas = interaction.client.services.personas.of(interaction.guild_id or 0)
        wanted = value.casefold()
        found = [p for p in personas.values() if wanted in p.name.casefold() or wanted in p.id]
        return [app_commands.Choice(name=p.name, value=p.id) for p in found[:MAX_CHOICES]]


PersonaOption = app_commands.Transform[Persona, PersonaTransformer]
