"""Persistent buttons, private responses, and the handler of failed commands."""

from __future__ import annotations

import logging
from typing import Any, Self

import aiohttp
import discord
from discord import app_commands

from bot.cogs.transformers import Interaction
from bot.errors import error_text

log = logging.getLogger(__name__)


class BotCommandTree(app_commands.CommandTree[Any]):
    """The command tree, which answers every failed command."""

    async def on_error(self, interaction: discord.Interaction[Any], error: app_commands.AppCommandError, /) -> None:
        await respond_privately(interaction, error_text(error))


async def respond_privately(interaction: discord.Interaction[Any], words: str) -> None:
    """Answer an interaction for its author's eyes only, whatever state it is in."""
    try:
        if interaction.response.is_done():
            await interaction.followup.send(words, ephemeral=True)
        else:
            await interaction.response.send_message(words, ephemeral=True)
    except (discord.HTTPException, aiohttp.ClientError):  # the interaction is gone, or the network
        log.warning("could not tell %s: %s", interaction.user, words)


class PersistentButton(discord.ui.DynamicItem[discord.ui.Button[discord.ui.View]], template=r"never:"):
    """A button made anew of what its custom id says; errors are told to whoever pressed it."""

    @classmethod
    async def from_custom_id(cls, interaction: discord.Interaction[Any], item: Any, match: Any) -> Self:
        return cls(**match.groupdict())

    async def callback(self, interaction: Interaction) -> None:  # type: ignore[override]
        try:
            self.require(interaction)
            await self.pressed(interaction)
        except Exception as error:  # the edge
            await respond_privately(interaction, error_text(error))

    def require(self, interaction: Interaction) -> None:
        """Raise `RefusedError` where this member may not press it; everybody may unless a button says otherwise."""

    async def pressed(self, interaction: Interaction) -> None:
        """Handle the click."""
        raise AssertionError("each button says what it does")
