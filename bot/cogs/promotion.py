"""`/finetune promotion`: whether a version that the gate would promote goes live by itself."""

from __future__ import annotations

from typing import Literal

from discord import app_commands
from discord.ext import commands

from bot.cogs.asking import Interaction
from bot.house import HouseBot

ASK = "Asked: a new version speaks when a moderator presses Promote, whatever the gate says."
AUTOMATIC = (
    "Automatic: a new version that the gate would promote speaks at once, which is said, with a button that takes it "
    "back. Of all others a moderator is asked."
)


class PromotionCommands(commands.Cog):
    """A command of the group `/finetune`: a base of its cog."""

    bot: HouseBot

    @app_commands.command(description="Whether a new version that is measurably better goes live by itself here.")
    @app_commands.describe(way="ask, which is the default, or automatic (only said if left out)")
    async def promotion(self, interaction: Interaction, way: Literal["ask", "automatic"] | None = None) -> None:
        guilds, guild_id = self.bot.house.store.guilds, interaction.guild_id or 0
        if way:
            guilds.let_promote_by_itself(guild_id, way == "automatic")
        words = AUTOMATIC if guilds.promotes_by_itself(guild_id) else ASK
        await interaction.response.send_message(words, ephemeral=True)
