"""Buttons that outlive a restart: their custom id holds all that they need."""

from __future__ import annotations

from typing import Any, Self

import discord

from bot.cogs.asking import Interaction
from bot.cogs.errors import tell
from bot.errors import words_for


class LastingButton(discord.ui.DynamicItem[discord.ui.Button[discord.ui.View]], template=r"never:"):
    """A button made anew of what its custom id says; errors are told to whoever pressed it."""

    @classmethod
    async def from_custom_id(cls, interaction: discord.Interaction[Any], item: Any, match: Any) -> Self:
        return cls(**match.groupdict())

    async def callback(self, interaction: Interaction) -> None:  # type: ignore[override]
        try:
            self.require(interaction)
            await self.pressed(interaction)
        except Exception as error:  # the edge
            await tell(interaction, words_for(error))

    def require(self, interaction: Interaction) -> None:
        """Raise `RefusedError` where this member may not press it; everybody may unless a button says otherwise."""

    async def pressed(self, interaction: Interaction) -> None:
        """What the button does."""
        raise AssertionError("each button says what it does")
