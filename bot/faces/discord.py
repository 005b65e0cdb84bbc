"""`/persona face`: the persona whose name and picture the bot itself has in a server."""

import asyncio

import discord
from discord import app_commands
from discord.ext import commands

from bot.faces.texts import face_text
from bot.platform.clock import BackgroundTask
from bot.platform.discord_kit.transformers import (
    PERSONA,
    Interaction,
    PersonaOption,
    guild_moderators_only,
)
from bot.platform.discord_kit.ui import defer, respond
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts
from bot.services import Bot, Services

CHECK_INTERVAL_S = 5.0
NO_FACE_TEXT = gettext_lazy("In this server, the bot has its own name and picture.")
SAME_FACE_TEXT = gettext_lazy(
    "-# Mentions of it, and replies that ping it, arrive without the message content intent. Other "
    "personas speak through webhooks as before. All that the bot has ever said here, its answers to "
    "commands too, shows this face. `/persona face off:True` takes it off."
)


@guild_moderators_only(gettext_lazy("The face of the bot is set for a server."))
@PERSONA.command(
    description=gettext_noop(
        "Give the bot itself a persona's name and picture in this server (moderators)."
    )
)
@app_commands.describe(
    persona=gettext_noop("Which persona. Left out, what holds is shown"),
    off=gettext_noop("Give the bot its own name and picture back"),
)
async def face(
    interaction: Interaction, persona: PersonaOption | None = None, off: bool = False
) -> None:
    services = interaction.client.services
    guild = interaction.guild
    assert guild is not None  # the command is for servers
    if persona and off:
        raise RefusedError(
            gettext_lazy("A persona is named, and `off`."), gettext_lazy("Choose one of the two.")
        )
    if persona is None and not off:
        await respond(interaction, _shown(services, guild.id))
        return
    await defer(interaction, ephemeral=True)
    if persona:
        problem = await services.faces.choose(guild, persona, interaction.user.id)
        text = face_text(services.faces, persona, guild.id)
        if not problem:
            text = join_texts(text, SAME_FACE_TEXT, separator="\n")
    else:
        problem = await services.faces.take_off(guild, interaction.user.id)
        text = NO_FACE_TEXT
        if problem:
            text = gettext_lazy(
                "No persona speaks as the bot any more, but the bot still has the persona's name and "
                "picture. {problem}",
                problem=problem,
            )
    await respond(interaction, text)


def _shown(services: Services, guild_id: int) -> str:
    if chosen := services.faces.chosen(guild_id):
        return face_text(services.faces, chosen, guild_id)
    if problem := services.faces.problem(guild_id):
        return gettext_lazy(
            "The bot is to have its own name and picture in this server. {problem}", problem=problem
        )
    return join_texts(
        NO_FACE_TEXT, gettext_lazy("`/persona face persona` gives it those of a persona.")
    )


class FaceCog(commands.Cog):
    """Follows the cards of the personas whose face the bot has."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self._task = BackgroundTask(
            "faces of the bot", self._follow, lambda: asyncio.sleep(CHECK_INTERVAL_S)
        )

    async def cog_load(self) -> None:
        self.bot.services.background.append(self._task)
        self._task.start()

    async def cog_unload(self) -> None:
        await self._task.stop()

    @commands.Cog.listener()
    async def on_guild_join(self, guild: discord.Guild) -> None:
        """The bot has been invited, perhaps again."""
        self.bot.services.faces.note_join(guild.id)

    async def _follow(self) -> None:
        await self.bot.wait_until_ready()
        await self.bot.services.faces.bring_up_to_date()
