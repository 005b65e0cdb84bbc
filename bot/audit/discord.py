"""`/moderation audit`: the channel that says who changed what, and the word to those whose change it
could not say.
"""

import secrets

import discord
from discord import app_commands
from discord.ext import commands

from bot.audit.actions import REMOVED_TEXT, AuditChannel, missing_permission
from bot.chat.delivery import DELIVERY_ERRORS
from bot.platform.discord_kit.transformers import MODERATION, Interaction
from bot.platform.discord_kit.ui import defer, respond, respond_privately
from bot.platform.errors import RefusedError
from bot.platform.messages import NO_MENTIONS
from bot.services import Bot

FIRST_LINE = (
    "From now on, this channel says who changes what of the personas of this server: where they "
    "live, trainings, versions, blocks, limits and the settings of `/moderation`. It never says "
    "what somebody wrote."
)


@MODERATION.command(description="Show, set or turn off the channel that says who changed what.")
@app_commands.describe(
    channel="Where changes are listed. Left out, what holds is shown",
    off="Turn it off",
)
async def audit(
    interaction: Interaction,
    channel: discord.TextChannel | discord.Thread | None = None,
    off: bool = False,
) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    channels = services.store.audit_channels
    if channel and off:
        raise RefusedError("A channel is named, and `off`.", "Choose one of the two.")
    before = channels.get(guild_id)
    if channel:
        await defer(interaction, ephemeral=True)
        found = await _require_channel(interaction, channel.id)
        if before not in (None, channel.id):
            services.audit.record(
                guild_id, interaction.user.id, f"moved the audit to {found.mention}"
            )
        channels.set(guild_id, channel.id)
        services.audit.record(guild_id, interaction.user.id, "made this the audit channel")
        await respond(interaction, f"{found.mention} lists changes from now on.")
    elif off:
        services.audit.record(guild_id, interaction.user.id, "turned the audit off")
        channels.set(guild_id, None)
        await respond(interaction, "Changes are no longer listed.")
    else:
        await respond(interaction, _shown(interaction, before))


async def _require_channel(interaction: Interaction, channel_id: int) -> AuditChannel:
    """Return the channel, once its first line stands there. Raises `RefusedError`."""
    channel = interaction.client.get_channel(channel_id)
    if not isinstance(channel, AuditChannel):
        raise RefusedError("I may not see this channel.", "Allow me to, or choose another one.")
    if problem := missing_permission(channel):
        raise RefusedError(problem)
    try:
        await channel.send(FIRST_LINE, allowed_mentions=NO_MENTIONS, nonce=secrets.token_hex(8))
    except DELIVERY_ERRORS as error:
        raise RefusedError(
            f"I cannot write in {channel.mention}: {error}.", "Choose another channel."
        ) from error
    return channel


def _shown(interaction: Interaction, channel_id: int | None) -> str:
    if channel_id is None:
        return "Changes are listed nowhere. `/moderation audit channel` sets a channel for them."
    channel = interaction.client.get_channel(channel_id)
    if not isinstance(channel, AuditChannel):
        return REMOVED_TEXT
    return missing_permission(channel) or f"Changes are listed in {channel.mention}."


class AuditCog(commands.Cog):
    """Tells members, for their eyes only, that a change of theirs is missing in the audit channel."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot

    @commands.Cog.listener()
    async def on_app_command_completion(self, interaction: Interaction, _: object) -> None:
        await self.on_item_completion(interaction)

    @commands.Cog.listener()
    async def on_item_completion(self, interaction: Interaction) -> None:
        """A button, a menu or a form has done its work."""
        audit = self.bot.services.audit
        if problem := audit.take_problem(interaction.guild_id or 0, interaction.user.id):
            await respond_privately(
                interaction, f"Done, but the audit channel does not list it. {problem}"
            )
