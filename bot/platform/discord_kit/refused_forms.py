"""A refused form is offered again, with what was typed: a file of the answer keeps it.

Nothing is stored for it, and it outlives a restart.
"""

import asyncio
import io
import tomllib
from collections.abc import Mapping
from typing import Any

import discord

from bot.chat.delivery import UNCERTAIN_ERRORS
from bot.platform.discord_kit.transformers import Interaction
from bot.platform.discord_kit.ui import (
    PersistentButton,
    button_view,
    defer,
    is_acknowledged,
    respond,
    send_form,
)
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, join_texts
from personas.card.toml_card import dump_texts

TYPED_FILE = "what-you-typed.toml"
"""The file on a refused form's answer from which it is opened again."""
READ_TIMEOUT_S = 1.5
"""Time to read a file before a form opens, which Discord wants within three seconds."""
NOTHING_LOST_TEXT = gettext_lazy(
    "-# Nothing you typed is lost: **Try again** opens the form with it."
)


async def _typed_before(attachment: discord.Attachment) -> dict[str, str]:
    """What was typed into a refused form, by field. Raises `RefusedError` where it comes too late:
    an empty form would lose it.
    """
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            typed = await attachment.read()
        table = tomllib.loads(typed.decode())
    except (discord.HTTPException, *UNCERTAIN_ERRORS):
        raise RefusedError(
            gettext_lazy("Discord does not deliver what you typed."),
            gettext_lazy("Press **Try again** once more."),
        ) from None
    return {key: str(value) for key, value in table.items()}


class TryAgainButton(PersistentButton, template=r"never again:"):
    """Opens a refused form with what was typed. Forms have buttons of their own."""

    label = gettext_lazy("Try again")
    style = discord.ButtonStyle.primary

    async def pressed(self, interaction: Interaction) -> None:
        typed: dict[str, str] = {}
        for attachment in interaction.message.attachments if interaction.message else []:
            if attachment.filename == TYPED_FILE:
                typed = await _typed_before(attachment)
        await send_form(interaction, self.form_with(interaction, typed))

    def form_with(self, interaction: Interaction, typed: Mapping[str, str]) -> discord.ui.Modal:
        """The form, filled with these texts by field."""
        raise NotImplementedError


async def offer_again(
    interaction: discord.Interaction[Any],
    text: str,
    button: TryAgainButton,
    typed: Mapping[str, str],
) -> None:
    """Say privately what is wrong with a form, with a button that opens it with what was typed."""
    if not is_acknowledged(interaction):
        await defer(interaction, ephemeral=True, thinking=True)  # a first response has no files
    file = discord.File(io.BytesIO(dump_texts(typed)), TYPED_FILE)
    text = join_texts(text, NOTHING_LOST_TEXT, separator="\n")
    await respond(interaction, text, button_view(button), files=[file])
