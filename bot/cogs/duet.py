"""`/persona duet`: this channel's persona and another one talk with each other, because a moderator asks for it."""

from __future__ import annotations

import time
from contextlib import suppress

import discord
from discord import app_commands
from discord.ext import commands

from bot.asked import Asked
from bot.cogs.asking import Interaction, known_persona, persona_choices, persona_meant, require_moderator
from bot.cogs.lasting import LastingButton
from bot.cogs.reply_buttons import quoted
from bot.duet import FEWEST, MOST, USUAL, Duet
from bot.duets import Talk
from bot.errors import RefusedError
from bot.house import House, HouseBot
from bot.place import GuildChannel, place_of
from bot.voices import NO_MENTIONS
from personas.contracts import Persona, Turn

MAX_OPENING = 1000


class DuetCommands(commands.Cog):
    """A command of the group `/persona`: a base of its cog."""

    @app_commands.command(description="Let this channel's persona and another talk with each other (moderators).")
    @app_commands.describe(
        other="With whom",
        opening="What you say to both: a question, or what they are to talk about",
        turns=f"How many lines at most ({USUAL} if left out)",
    )
    @app_commands.autocomplete(other=persona_choices)
    async def duet(
        self,
        interaction: Interaction,
        other: str,
        opening: app_commands.Range[str, 1, MAX_OPENING],
        turns: app_commands.Range[int, FEWEST, MOST] = USUAL,
    ) -> None:
        channel = interaction.channel
        if not isinstance(channel, GuildChannel):
            raise RefusedError("Personas talk with each other in text channels and threads of a server.")
        require_moderator(interaction)
        pair = persona_meant(interaction, None), known_persona(interaction, other)
        _require_possible(interaction.client.house, pair, channel)
        await _perform(interaction, channel, pair, opening, turns)


class DuetEnd(commands.Cog):
    """Ends the duets that are under way with the bot."""

    def __init__(self, bot: HouseBot) -> None:
        self.bot = bot

    async def cog_unload(self) -> None:
        await self.bot.house.duets.close()


class DuetStopButton(LastingButton, template=r"duet-stop:(?P<begun_at>[0-9]+)"):
    """Stops the duet that began with this stored message; one that is over loses its button."""

    def __init__(self, begun_at: str) -> None:
        self.begun_at = int(begun_at)
        super().__init__(discord.ui.Button(label="Stop", custom_id=f"duet-stop:{begun_at}"))

    async def pressed(self, interaction: Interaction) -> None:
        house = interaction.client.house
        talk = house.duets.of_guild(interaction.guild_id or 0)
        if talk is None or talk.begun_at != self.begun_at:
            await interaction.response.edit_message(view=None)
            return
        house.answerer.rules.require_owner(talk.asked_by, interaction.user, "stop this duet")
        talk.stop()
        await interaction.response.defer()


def _require_possible(house: House, pair: tuple[Persona, Persona], channel: GuildChannel) -> None:
    """Raise `RefusedError` where these two cannot talk here now."""
    if pair[0].id == pair[1].id:
        raise RefusedError(f"{pair[0].name} cannot talk with itself.", "Name another persona.")
    for persona in pair:
        house.answerer.rules.require_unmuted(persona, place_of(channel))
    if under_way := house.duets.of_guild(channel.guild.id):
        raise RefusedError(f"A duet is under way in {under_way.channel.mention}.", "Stop it, or wait for its end.")


async def _perform(
    interaction: Interaction, channel: GuildChannel, pair: tuple[Persona, Persona], opening: str, turns: int
) -> None:
    house, author = interaction.client.house, interaction.user
    asked = Asked(interaction.id, author.id, author.display_name, opening.strip())
    begun_at = _kept(house, channel, asked)
    names = pair[0].name, pair[1].name
    head, both = quoted(asked.author_name, asked.text), " and ".join(names)
    duet = Duet(names, Turn(asked.author_name, asked.text), turns)

    def buttons() -> discord.ui.View:
        view = discord.ui.View(timeout=None)
        view.add_item(DuetStopButton(str(begun_at)))
        return view

    async def over(why: str) -> None:
        count = "1 line" if len(duet.lines) == 1 else f"{len(duet.lines)} lines"
        ended = f"{head}\n-# {both} have talked, {count}: {why}"
        with suppress(discord.HTTPException):  # it may have been deleted
            await channel.get_partial_message(first.id).edit(content=ended, view=None, allowed_mentions=NO_MENTIONS)

    talk = Talk(channel, pair, duet, author.id, begun_at, buttons, over)
    asks = f"{both} talk with each other, up to {turns} lines. Stop ends it; so does whoever speaks to one of them."
    with house.duets.begun(talk):
        await interaction.response.send_message(
            f"{head}\n-# {asks}", view=buttons(), allowed_mentions=NO_MENTIONS, suppress_embeds=True
        )
        first = await interaction.original_response()
        await house.duets.perform(talk, house.answerer)


def _kept(house: House, channel: GuildChannel, asked: Asked) -> int:
    """Keep the opening as something that was said here; gives its `seq`."""
    place = place_of(channel)
    return house.store.messages.append(
        guild_id=place.guild_id,
        channel_id=place.channel_id,
        author_id=asked.author_id,
        author_name=asked.author_name,
        text=asked.text,
        at=time.time(),
        discord_message_id=asked.event_id,
    )
