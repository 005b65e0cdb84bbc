"""Cards as files: one that comes in becomes a persona with its book as lore, one that goes out is listed."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

from bot.card_room import Room, require_room, room_of
from bot.errors import RefusedError
from bot.house import House
from bot.lore import MAX_FILE_BYTES, GuildLore
from bot.personas import BroughtIn
from bot.store import CARD
from personas.card import Card, Form, Written, parse_card, to_persona, write
from personas.card.book import book_as_lore
from personas.contracts import Persona
from personas.errors import CardError, UnderstudyError
from personas.exports import note_export
from personas.keys import HomeKey, keyed

MAX_CARD_BYTES = 25 * 2**20
MAX_UNPACKED_BYTES = 64 * 2**20
"""An adapter of rank 16 over the embedded model, inside a card, has 19 MiB."""
BOOK = "character-book"
"""How the files of lore begin that a card's character book becomes."""
ENDINGS: dict[Form, str] = {"png": "png", "v2": "json", "v3": "json", "charx": "charx", "toml": "toml"}


@dataclass(frozen=True)
class Arrived:
    """A card that was brought in: the persona, the card as it came, and what it takes of every prompt."""

    brought: BroughtIn
    card: Card
    room: Room


async def bring_in_card(
    house: House, guild_id: int, data: bytes, file: str, wanted_id: str = "", *, keeping: bool = False
) -> Arrived:
    """Make a card's file a persona of a guild, 0 for all of them; with `keeping` what it replaces is kept.

    Raises `CardError` and `RefusedError` as `Personas.bring_in` does, and for a card that leaves no room to talk.
    """

    def bring_in() -> Arrived:
        card = parse_card(data, file, MAX_UNPACKED_BYTES)
        persona = to_persona(card, file)
        room = room_of(persona, house.base_model)
        require_room(persona, file, room)
        personas = house.conversations.personas
        return Arrived(personas.bring_in(guild_id, card, file, wanted_id, keeping=keeping), card, room)

    return await asyncio.to_thread(bring_in)


async def keep_book(lore: GuildLore, guild_id: int, persona: Persona, card: Card) -> list[str]:
    """Make the card's character book the persona's lore, in place of the one before. Says what became of it."""
    passages = 0
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
    return [f"Its character book is lore now ({count})."] if passages else []


async def remove_persona(house: House, lore: GuildLore, guild_id: int, persona: Persona) -> None:
    """Remove a guild's own persona, 0 for one of all guilds: card, lore, and from where it lives. Its versions stay.

    Raises `RefusedError` for one that came with the bot.
    """
    house.conversations.personas.remove(guild_id, persona)
    house.store.people.take_back(guild_id, persona.id, CARD)
    for file in lore.files(guild_id, persona.id):
        await lore.remove(guild_id, persona.id, file)
        house.store.people.take_back(guild_id, persona.id, file)
    lore.forget_earlier(guild_id, persona.id)
    for where in [guild_id] if guild_id else [0, *sorted(house.store.guilds.known())]:
        for channel in house.store.channels.of_guild(where):
            if channel.persona_id == persona.id:
                house.store.channels.clear(where, channel.channel_id)


def written_card(card: Card, form: Form, persona: Persona, name: str) -> Written:
    """A card as a file. Raises `RefusedError` where the form cannot hold it."""
    try:
        return write(card, form, persona.name, avatar=name, persona_id=name)
    except CardError as error:
        raise RefusedError(error.message, "Choose another format.") from error


def note_left(house: House, guild_id: int, persona: Persona, file: str, content: bytes, whither: str) -> None:
    """List a card that leaves, under whoever gave it; `whither` says where it went."""
    giver = house.store.people.giver(guild_id, persona.id, CARD)
    if giver is not None:
        people = {keyed(HomeKey.of(house.home).people(), str(giver))}
        note_export(house.home, "card", f"{file}, {whither}", people, hashlib.sha256(content).hexdigest())
