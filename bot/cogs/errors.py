"""The one handler of failed commands, and how an interaction is told."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
import discord
from discord import app_commands

from bot.errors import words_for

log = logging.getLogger(__name__)


class Tree(app_commands.CommandTree[Any]):
    """The command tree, which answers every failed command."""

    async def on_error(self, interaction: discord.Interaction[Any], error: app_commands.AppCommandError, /) -> None:
        await tell(interaction, words_for(error))


async def tell(interaction: discord.Interaction[Any], words: str) -> None:
    """Answer an interaction for its author's eyes only, whatever state it is in."""
    try:
        if interaction.response.is_done():
            await interaction.followup.send(words, ephemeral=True)
        else:
            await interaction.response.send_message(words, ephemeral=True)
    except (discord.HTTPException, aiohttp.ClientError):  # the interaction is gone, or the network
        log.warning("could not tell %s: %s", interaction.user, words)
