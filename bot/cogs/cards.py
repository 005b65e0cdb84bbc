"""Character cards in Discord: `/persona import|export|remove`. What is imported belongs to its server alone."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from typing import Literal

import discord
from discord import app_commands
from discord.ext import commands

from bot.card_room import require_room
from bot.carried import install_carried
from bot.cogs.asking import Interaction, known_persona, persona_choices, require_moderator
from bot.cogs.finetune_actions import buttons
from bot.errors import RefusedError
from bot.house import House
from bot.lore import MAX_FILE_BYTES, GuildLore
from bot.personas import BroughtIn, short_id
from bot.store import CARD, Gift
from personas.card import Card, Form, Written, parse_card, to_persona, write
from personas.card.book import book_as_lore
from personas.contracts import Persona
from personas.errors import CardError, UnderstudyError
from personas.exports import note_export
from personas.keys import HomeKey, keyed
from personas.prompt import MAX_CARD_TOKENS

MAX_CARD_BYTES = 25 * 2**20
MAX_UNPACKED_BYTES = 64 * 2**20
"""An adapter of rank 16 over the embedded model, inside a card, has 19 MiB."""
BOOK = "character-book"
"""How the files of lore begin that a card's character book becomes."""
ENDINGS: dict[Form, str] = {"png": "png", "v2": "json", "v3": "json", "charx": "charx", "toml": "toml"}


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
        data, house = await card.read(), interaction.client.house

        def bring_in() -> tuple[BroughtIn, Card, int]:
            read = parse_card(data, card.filename, MAX_UNPACKED_BYTES)
            room = require_room(to_persona(read, card.filename), card.filename, house.base_model)
            tokens = room.prose + room.examples
            brought = house.conversations.personas.bring_in(guild_id, read, card.filename, persona_id or "")
            return brought, read, tokens

        brought, read, tokens = await asyncio.to_thread(bring_in)
        house.store.people.give(Gift(guild_id, brought.persona.id, CARD, interaction.user.id, time.time()))
        words = [*_import_words(brought, tokens, guild_id), *await _keep_book(house, guild_id, brought.persona, read)]
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
        written = await asyncio.to_thread(lambda: _written(personas.card(whose, guild_id), form, whose, name))
        files = {f"{name}.{ENDINGS[form]}": written.content, **written.beside}
        if sum(map(len, files.values())) > interaction.filesize_limit:
            raise RefusedError(f"The card of {whose.name} is too large for a message here.", "Choose another format.")
        _note_left(interaction.client.house, guild_id, whose, f"{name}.{ENDINGS[form]}", written.content)
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
        house.conversations.personas.remove(guild_id, who)
        house.store.people.take_back(guild_id, who.id, CARD)
        for file in lore.files(guild_id, who.id):
            await lore.remove(guild_id, who.id, file)
            house.store.people.take_back(guild_id, who.id, file)
        for channel in house.store.channels.of_guild(guild_id):
            if channel.persona_id == who.id:
                house.store.channels.clear(guild_id, channel.channel_id)
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


def _note_left(house: House, guild_id: int, persona: Persona, file: str, content: bytes) -> None:
    """List a card that leaves, under whoever gave it."""
    giver = house.store.people.giver(guild_id, persona.id, CARD)
    if giver is not None:
        people = {keyed(HomeKey.of(house.home).people(), str(giver))}
        digest = hashlib.sha256(content).hexdigest()
        note_export(house.home, "card", f"{file}, to a moderator of the server {guild_id}", people, digest)


def _written(card: Card, form: Form, persona: Persona, name: str) -> Written:
    try:
        return write(card, form, persona.name, avatar=name, persona_id=name)
    except CardError as error:
        raise RefusedError(error.message, "Choose another format.") from error


async def _keep_book(house: House, guild_id: int, persona: Persona, card: Card) -> list[str]:
    """Make the card's character book the persona's lore, in place of the one before. Says what became of it."""
    lore, passages = _lore(house), 0
    for file in lore.files(guild_id, persona.id):
        if file.startswith(BOOK):
            await lore.remove(guild_id, persona.id, file)
    try:
        for number, text in enumerate(book_as_lore(card, MAX_FILE_BYTES), start=1):
            _, found = await lore.add(guild_id, persona.id, f"{BOOK}-{number}", text.encode())
            passages += found
    except UnderstudyError as error:
        return [f"Not all of its character book could be kept as lore: {error}"]
    count = "1 passage" if passages == 1 else f"{passages} passages"
    return [f"Its character book is lore now ({count}): `/persona lore ask`."] if passages else []


def _lore(house: House) -> GuildLore:
    return GuildLore(house.home, house.conversations.lore)


def _import_words(brought: BroughtIn, tokens: int, guild_id: int) -> list[str]:
    persona = brought.persona
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
