"""The one place where an error of a command becomes words for the one who typed it."""

from __future__ import annotations

import logging
import secrets
from typing import Any

import discord
from discord import app_commands

from personas.errors import UnderstudyError

log = logging.getLogger(__name__)


class RefusedError(UnderstudyError):
    """What was asked may not be done, by this person or here."""


class Tree(app_commands.CommandTree[Any]):
    """The command tree, which answers every failed command."""

    async def on_error(self, interaction: discord.Interaction[Any], error: app_commands.AppCommandError, /) -> None:
        await tell(interaction, words_for(error))


def words_for(error: Exception) -> str:
    """What to tell a member. Unexpected errors get a code that is in the log too, and none of their insides."""
    cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
    if isinstance(cause, UnderstudyError):
        return str(cause)
    if isinstance(cause, app_commands.CheckFailure):
        return "You may not use this command here."
    if isinstance(cause, app_commands.TransformerError):
        return f"{cause.value!r} is not a valid value here."
    if isinstance(cause, discord.Forbidden):
        return f"Discord does not let me do that here: {cause.text} Ask a moderator to check my permissions."
    code = secrets.token_hex(4)
    log.error("error %s", code, exc_info=cause)
    return f"That went wrong on my side. The operator finds the reason in the log under {code}."


async def tell(interaction: discord.Interaction[Any], words: str) -> None:
    """Answer an interaction for its author's eyes only, whatever state it is in."""
    try:
        if interaction.response.is_done():
            await interaction.followup.send(words, ephemeral=True)
        else:
            await interaction.response.send_message(words, ephemeral=True)
    except discord.HTTPException:  # the interaction is gone: nobody is left to be told
        log.warning("could not tell %s: %s", interaction.user, words)
