"""`/persona duet`: a moderator lets two personas talk with each other."""

from __future__ import annotations

from contextlib import suppress

import discord
from discord import app_commands
from discord.ext import commands

from bot.chat.dialogue import DEFAULT_TURNS, MAX_TURNS, MIN_TURNS, ChannelDialogue, Dialogue
from bot.chat.discord_channels import NO_MENTIONS, GuildChannel, channel_ref
from bot.chat.reply_service import IncomingMessage
from bot.cogs.reply_buttons import quote_member
from bot.cogs.transformers import Interaction, PersonaOption, channel_persona, require_moderator
from bot.cogs.ui import PersistentButton
from bot.errors import RefusedError
from bot.services import Bot, Services
from personas.schemas.chat import Persona, Turn

MAX_OPENING_CHARS = 1000


class DialogueCommands(commands.Cog):
    """A command of the group `/persona`: a base of its cog."""

    @app_commands.command(description="Let this channel's persona and another talk with each other (moderators).")
    @app_commands.describe(
        other="With whom",
        opening="What you say to both: a question, or what they are to talk about",
        turns=f"How many lines at most ({DEFAULT_TURNS} if left out)",
    )
    async def duet(
        self,
        interaction: Interaction,
        other: PersonaOption,
        opening: app_commands.Range[str, 1, MAX_OPENING_CHARS],
        turns: app_commands.Range[int, MIN_TURNS, MAX_TURNS] = DEFAULT_TURNS,
    ) -> None:
        channel = interaction.channel
        if not isinstance(channel, GuildChannel):
            raise RefusedError("Personas talk with each other in text channels and threads of a server.")
        require_moderator(interaction)
        pair = channel_persona(interaction), other
        _require_possible(interaction.client.services, pair, channel)
        await _run_dialogue(interaction, channel, pair, opening, turns)


class DialogueShutdown(commands.Cog):
    """Ends the duets that are under way with the bot."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot

    async def cog_unload(self) -> None:
        await self.bot.services.dialogue_runner.close()


class DialogueStopButton(PersistentButton, template=r"duet-stop:(?P<begun_at>[0-9]+)"):
    """Stops the duet that began with this stored message; one that is over loses its button."""

    def __init__(self, begun_at: str) -> None:
        self.begun_at = int(begun_at)
        super().__init__(discord.ui.Button(label="Stop", custom_id=f"duet-stop:{begun_at}"))

    async def pressed(self, interaction: Interaction) -> None:
        services = interaction.client.services
        talk = services.dialogue_runner.of_guild(interaction.guild_id or 0)
        if talk is None or talk.begun_at != self.begun_at:
            await interaction.response.edit_message(view=None)
            return
        services.reply_service.rules.require_owner(talk.asked_by, interaction.user, "stop this duet")
        talk.stop()
        await interaction.response.defer()


def _require_possible(services: Services, pair: tuple[Persona, Persona], channel: GuildChannel) -> None:
    """Raise `RefusedError` where these two cannot talk here now."""
    if pair[0].id == pair[1].id:
        raise RefusedError(f"{pair[0].name} cannot talk with itself.", "Name another persona.")
    for persona in pair:
        services.reply_service.rules.require_unmuted(persona, channel_ref(channel))
    if under_way := services.dialogue_runner.of_guild(channel.guild.id):
        raise RefusedError(f"A duet is under way in {under_way.channel.mention}.", "Stop it, or wait for its end.")


async def _run_dialogue(
    interaction: Interaction, channel: GuildChannel, pair: tuple[Persona, Persona], opening: str, turns: int
) -> None:
    services, author = interaction.client.services, interaction.user
    asked = IncomingMessage(interaction.id, author.id, author.display_name, opening.strip())
    begun_at = services.reply_service.store_message(asked, channel_ref(channel))
    names = pair[0].name, pair[1].name
    head, both = quote_member(asked.author_name, asked.text), " and ".join(names)
    duet = Dialogue(names, Turn(asked.author_name, asked.text), turns)

    def buttons() -> discord.ui.View:
        view = discord.ui.View(timeout=None)
        view.add_item(DialogueStopButton(str(begun_at)))
        return view

    async def over(why: str) -> None:
        count = "1 line" if len(duet.lines) == 1 else f"{len(duet.lines)} lines"
        ended = f"{head}\n-# {both} have talked, {count}: {why}"
        with suppress(discord.HTTPException):  # it may have been deleted
            await channel.get_partial_message(first.id).edit(content=ended, view=None, allowed_mentions=NO_MENTIONS)

    talk = ChannelDialogue(channel, pair, duet, author.id, begun_at, buttons, over)
    asks = f"{both} talk with each other, up to {turns} lines. Stop ends it; so does whoever speaks to one of them."
    with services.dialogue_runner.begun(talk):
        await interaction.response.send_message(
            f"{head}\n-# {asks}", view=buttons(), allowed_mentions=NO_MENTIONS, suppress_embeds=True
        )
        first = await interaction.original_response()
        await services.dialogue_runner.perform(talk, services.reply_service)
