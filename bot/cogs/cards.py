"""Character cards in Discord: `/persona import|export|remove`. What is imported belongs to its server alone."""

from __future__ import annotations

import asyncio
import io
import time
from typing import Literal

import discord
from discord import app_commands
from discord.ext import commands

from bot.card_files import (
    ENDINGS,
    MAX_CARD_BYTES,
    Arrived,
    bring_in_card,
    keep_book,
    note_left,
    remove_persona,
    written_card,
)
from bot.carried import install_carried
from bot.cogs.asking import Interaction, known_persona, persona_choices, require_moderator
from bot.cogs.finetune_actions import buttons
from bot.errors import RefusedError
from bot.house import House
from bot.lore import GuildLore
from bot.personas import short_id
from bot.store import CARD, Gift
from personas.prompt import MAX_CARD_TOKENS


class CardCommands(commands.Cog):
    """Commands of the group `/persona`: a base of its cog."""

    @app_commands.command(
        name="import", description="Bring a character card in as a persona of this server (moderators)."
    )
    @app_commands.describe(
        card="The card: a PNG picture that carries one, JSON, CHARX or TOML; at most 25 MB",
        persona_id="A short name for it (made of its name if left out); one that is here already is replaced",
    )
    @app_commands.rename(persona_id="id")
    async def import_(
        self,
        interaction: Interaction,
        card: discord.Attachment,
        persona_id: app_commands.Range[str, 1, 32] | None = None,
    ) -> None:
        guild_id = _guild(interaction)
        if card.size > MAX_CARD_BYTES:
            raise RefusedError(f"{card.filename} has more than 25 MB.", "Leave its largest pictures out.")
        await interaction.response.defer(ephemeral=True)
        house = interaction.client.house
        arrived = await bring_in_card(house, guild_id, await card.read(), card.filename, persona_id or "")
        brought, read = arrived.brought, arrived.card
        house.store.people.give(Gift(guild_id, brought.persona.id, CARD, interaction.user.id, time.time()))
        kept = await keep_book(_lore(house), guild_id, brought.persona, read)
        words = [*_import_words(arrived, guild_id), *(f"{line} See `/persona lore ask`." for line in kept)]
        asked_in = (guild_id, interaction.channel_id or 0, interaction.user.id)
        said, job = await install_carried(house, asked_in, brought.persona.id, read, card.filename)
        view = buttons(job, house.store.versions.live(brought.persona.id)) if job else None
        await interaction.followup.send("\n".join([*words, *said]), ephemeral=True, view=view or discord.utils.MISSING)

    @app_commands.command(description="Get a persona's character card as a file (moderators).")
    @app_commands.describe(persona="Whose", form="In which form")
    @app_commands.rename(form="format")
    @app_commands.choices(
        form=[
            app_commands.Choice(name="PNG: its picture, which carries the card", value="png"),
            app_commands.Choice(name="JSON, version 2", value="v2"),
            app_commands.Choice(name="JSON, version 3", value="v3"),
            app_commands.Choice(name="CHARX: the card and its pictures", value="charx"),
            app_commands.Choice(name="TOML, as this bot keeps it", value="toml"),
        ]
    )
    @app_commands.autocomplete(persona=persona_choices)
    async def export(
        self, interaction: Interaction, persona: str, form: Literal["png", "v2", "v3", "charx", "toml"] = "png"
    ) -> None:
        guild_id, whose = _guild(interaction), known_persona(interaction, persona)
        await interaction.response.defer(ephemeral=True)
        name, personas = short_id(whose, guild_id), interaction.client.house.conversations.personas
        written = await asyncio.to_thread(lambda: written_card(personas.card(whose, guild_id), form, whose, name))
        files = {f"{name}.{ENDINGS[form]}": written.content, **written.beside}
        if sum(map(len, files.values())) > interaction.filesize_limit:
            raise RefusedError(f"The card of {whose.name} is too large for a message here.", "Choose another format.")
        whither = f"to a moderator of the server {guild_id}"
        note_left(interaction.client.house, guild_id, whose, f"{name}.{ENDINGS[form]}", written.content, whither)
        await interaction.followup.send(
            "\n".join([f"The card of **{whose.name}**.", *written.notes]),
            files=[discord.File(io.BytesIO(content), filename=file) for file, content in files.items()],
            ephemeral=True,
        )

    @app_commands.command(description="Remove a persona that this server has brought in (moderators).")
    @app_commands.describe(persona="Whom")
    @app_commands.autocomplete(persona=persona_choices)
    async def remove(self, interaction: Interaction, persona: str) -> None:
        guild_id, who = _guild(interaction), known_persona(interaction, persona)
        house, lore = interaction.client.house, _lore(interaction.client.house)
        await interaction.response.defer(ephemeral=True)
        await remove_persona(house, lore, guild_id, who)
        await interaction.followup.send(
            f"**{who.name}** is gone, and lives nowhere here any more. Importing the card again brings them back.",
            ephemeral=True,
        )


def _guild(interaction: Interaction) -> int:
    """The server, for its moderators."""
    if interaction.guild_id is None:
        raise RefusedError("Cards belong to a server.", "Try it in one of its channels.")
    require_moderator(interaction)
    return interaction.guild_id


def _lore(house: House) -> GuildLore:
    return GuildLore(house.home, house.conversations.lore)


def _import_words(arrived: Arrived, guild_id: int) -> list[str]:
    brought, persona = arrived.brought, arrived.brought.persona
    tokens = arrived.room.prose + arrived.room.examples
    words = [
        f"**{persona.name}** (`{short_id(persona, guild_id)}`) "
        + ("is a persona of this server now." if brought.is_new else "has a new card."),
        f"It takes about {min(tokens, MAX_CARD_TOKENS)} tokens of every prompt. `/persona set` gives it a channel.",
    ]
    if tokens > MAX_CARD_TOKENS:
        words.append(f"Its examples are long: only the first of them fit, of about {tokens} tokens in all.")
    if persona.speech:
        words.append("Its examples are no talk of `{{user}}:` and `{{char}}:`, so they count as a description.")
    if not persona.avatar:
        words.append("The card came without a picture.")
    return words
