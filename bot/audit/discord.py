"""`/moderation audit` sets the channel that lists changes; who makes a change that is not listed
there is told so.
"""

import secrets

import discord
from discord import app_commands
from discord.ext import commands

from bot.audit.actions import REMOVED_TEXT, missing_permission
from bot.chat.delivery import DELIVERY_ERRORS
from bot.guild_settings.definitions import AUDIT_CHANNEL
from bot.platform.discord_kit.transformers import MODERATION, Interaction
from bot.platform.discord_kit.ui import defer, respond, respond_privately
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop, language_of, localise, override
from bot.platform.messages import NO_MENTIONS
from bot.services import Bot

FIRST_LINE = gettext_lazy(
    "From now on, this channel says who changes what of the personas of this server: where they "
    "live, how they reply, their lore, trainings, versions, blocks, limits and the settings of "
    "`/moderation`. It never says what somebody wrote."
)


@MODERATION.command(
    description=gettext_noop("Show, set or turn off the channel that says who changed what.")
)
@app_commands.describe(
    channel=gettext_noop("Where changes are listed. Left out, what holds is shown"),
    off=gettext_noop("Turn it off"),
)
async def audit(
    interaction: Interaction,
    channel: discord.TextChannel | None = None,
    off: bool = False,
) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    if channel and off:
        raise RefusedError(
            gettext_lazy("A channel is named, and `off`."), gettext_lazy("Choose one of the two.")
        )
    user_id = interaction.user.id
    before = AUDIT_CHANNEL.read(services.store, guild_id)
    if channel:
        await defer(interaction, ephemeral=True)
        await _post_first_line(channel)
        if before not in (None, channel.id):
            moved = gettext_lazy("moved the audit to {channel}", channel=channel.mention)
            services.audit.record(guild_id, user_id, moved)
        AUDIT_CHANNEL.write(services.store, channel.id, guild_id)
        services.audit.record(guild_id, user_id, gettext_lazy("made this the audit channel"))
        await respond(
            interaction,
            gettext_lazy("{channel} lists changes from now on.", channel=channel.mention),
        )
    elif off:
        services.audit.record(guild_id, user_id, gettext_lazy("turned the audit off"))
        services.audit.take_problem(guild_id, user_id)  # perhaps why it is turned off
        AUDIT_CHANNEL.write(services.store, None, guild_id)
        await respond(interaction, gettext_lazy("Changes are no longer listed."))
    else:
        await respond(interaction, _shown(interaction, before))


async def _post_first_line(channel: discord.TextChannel) -> None:
    """Say in a channel what it is for. Raises `RefusedError` where that is not possible."""
    if problem := missing_permission(channel):
        raise RefusedError(problem)
    try:
        with override(language_of(channel.guild.preferred_locale)):
            text = localise(FIRST_LINE)
        await channel.send(text, allowed_mentions=NO_MENTIONS, nonce=secrets.token_hex(8))
    except DELIVERY_ERRORS as error:
        raise RefusedError(
            gettext_lazy(
                "I cannot write in {channel}: {error}.", channel=channel.mention, error=error
            ),
            gettext_lazy("Choose another channel."),
        ) from error


def _shown(interaction: Interaction, channel_id: int | None) -> str:
    if channel_id is None:
        return gettext_lazy(
            "Changes are listed nowhere. `/moderation audit channel` sets a channel for them."
        )
    channel = interaction.client.get_channel(channel_id)
    if not isinstance(channel, discord.TextChannel):
        return REMOVED_TEXT
    return missing_permission(channel) or gettext_lazy(
        "Changes are listed in {channel}.", channel=channel.mention
    )


class AuditCog(commands.Cog):
    """Tells members in private that the audit channel does not list a change of theirs."""

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
                interaction,
                gettext_lazy(
                    "Done, but the audit channel does not list it. {problem}", problem=problem
                ),
            )
