"""`/moderation minors`: what changes where minors are."""

from discord import app_commands

from bot.guild_settings.definitions import HAS_MINORS
from bot.platform.discord_kit.transformers import MODERATION, Interaction
from bot.platform.discord_kit.ui import respond
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts

WITH_MINORS = gettext_lazy(
    "**Minors are here.** At the start of a talk, and every three hours of it, the line that says "
    "that a persona is an AI is in plain size, and a long talk is asked to pause."
)
WITHOUT_MINORS = gettext_lazy(
    "**No minors are said to be here.** That a persona is an AI stands in small print below its "
    "reply, at the start of a talk and every three hours of it."
)
SAME_FOR_ALL = gettext_lazy(
    "Messages that speak of self-harm get a fixed text with helplines in any server. What a "
    "persona says depends on its card: this switch does not change it."
)


@MODERATION.command(
    description=gettext_noop("Say whether minors are in this server, and see what that changes.")
)
@app_commands.describe(here=gettext_noop("Whether minors are here. Left out, what holds is shown"))
async def minors(interaction: Interaction, here: bool | None = None) -> None:
    guild_id = interaction.guild_id or 0
    store = interaction.client.services.store
    if here is not None:
        HAS_MINORS.write(store, here, guild_id)
        said = gettext_lazy("said that no minors are here")
        if here:
            said = gettext_lazy("said that minors are here")
        interaction.client.services.audit.record(guild_id, interaction.user.id, said)
    text = WITH_MINORS if HAS_MINORS.held(store, guild_id) else WITHOUT_MINORS
    await respond(interaction, join_texts(text, SAME_FOR_ALL))
