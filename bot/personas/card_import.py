"""Imports and exports character cards with their lore."""

import asyncio
import hashlib
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bot.personas.base_model_compat import CardTokenCount, count_card_tokens, require_token_budget
from bot.personas.guild_lore import (
    LORE_PART,
    MAX_FILE_BYTES,
    GuildLore,
    lore_file_name,
    lore_parts,
)
from bot.personas.registry import ImportedPersona, PersonaRegistry
from bot.platform.errors import RefusedError, error_text
from bot.platform.localisation import LocalisableText, gettext_lazy, join_texts, ngettext_lazy
from bot.platform.messages import markdown_name
from bot.platform.request_origin import RequestOrigin
from bot.platform.trash import require_entry
from bot.store import CARD_CONTRIBUTION, Contribution, MemberRecords, Store
from personas.card.card_book import card_book
from personas.card.card_reader import parse_card
from personas.card.card_writer import CardExport, CardForm, write_card
from personas.card.spec_card import Card
from personas.card.toml_card import to_persona
from personas.errors import CardError, UnderstudyError
from personas.home.external_files import record_export
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.home.trash import TrashEntry, entry_folder
from personas.lore.lorebook_markdown import count_uses, lorebook_as_markdown
from personas.lore.lorebooks import Lorebook
from personas.schemas.chat import Persona
from personas.schemas.import_report import ImportReport, not_taken

MAX_CARD_BYTES = 25 * 2**20
MAX_UNPACKED_BYTES = 64 * 2**20
"""An adapter of rank 16 for the embedded model, inside a card, has 19 MiB."""
BOOK_LORE_NAME = "character-book"
"""Prefix of the lore files made from a card's character book."""
FILE_SUFFIXES: dict[CardForm, str] = {
    "png": "png",
    "v2": "json",
    "v3": "json",
    "charx": "charx",
    "toml": "toml",
}


@dataclass(frozen=True)
class CardImport:
    """An imported card: the persona, the original card, and its token count."""

    brought: ImportedPersona
    card: Card
    room: CardTokenCount

    @property
    def change(self) -> str:
        """What the import changed, for the audit channel."""
        name = f"**{markdown_name(self.brought.persona)}**"
        if self.brought.is_new:
            return gettext_lazy("imported {persona}", persona=name)
        return gettext_lazy("replaced the card of {persona}", persona=name)


async def import_card(
    personas: PersonaRegistry,
    store: Store,
    base_model: str,
    origin: RequestOrigin,
    data: bytes,
    file: str,
    *,
    context_tokens: int,
    wanted_id: str = "",
    replacing: Persona | None = None,
) -> CardImport:
    """Import a card file as a new persona of the origin's guild (0: of all), or in place of the card
    of the persona that is named as the one to replace. Prompts with their replies have
    `context_tokens`. A member is recorded as the card's contributor from before it is on the disk.

    Raises `CardError` and `RefusedError` as `PersonaRegistry.bring_in` does, and for a card over the
    token budget; `PersonaExistsError` where the card would replace another.
    """
    guild_id = origin.guild_id

    def read() -> tuple[Card, CardTokenCount]:
        card = parse_card(data, file, MAX_UNPACKED_BYTES)
        persona = to_persona(card, file)
        room = count_card_tokens(persona, base_model, context_tokens)
        require_token_budget(persona, file, room)
        return card, room

    card, room = await asyncio.to_thread(read)
    if replacing is None:
        brought = await store_new_card(
            personas, store, origin, card=card, where=file, wanted_id=wanted_id
        )
        return CardImport(brought, card, room)
    with recording_contributor(store.people, personas, origin, replacing.id):
        brought = await asyncio.to_thread(
            personas.replace,
            card,
            file,
            entry=_card_entry(guild_id, replacing),
            parts=lore_parts(personas.home, guild_id, replacing.id),
        )
    return CardImport(brought, card, room)


async def store_new_card(
    personas: PersonaRegistry,
    store: Store,
    origin: RequestOrigin,
    card: Card,
    where: str,
    *,
    wanted_id: str = "",
) -> ImportedPersona:
    """Store a card as a new persona of the origin's guild, under an id that nothing else gets
    meanwhile, with a member as its contributor. Raises as `PersonaRegistry.new_id` and `bring_in`.
    """
    guild_id = origin.guild_id
    async with personas.arriving:
        trained = store.versions.persona_ids()
        name = to_persona(card, where).name
        full_id = await asyncio.to_thread(
            personas.new_id, guild_id, name, wanted_id=wanted_id, reserved=trained
        )
        with recording_contributor(store.people, personas, origin, full_id):
            return await asyncio.to_thread(
                personas.bring_in, guild_id, card, where=where, full_id=full_id
            )


def same_name_notes(personas: PersonaRegistry, guild_id: int, persona: Persona) -> list[str]:
    """Say that servers have a persona of their own with the name of a new one of all servers."""
    count = personas.guilds_with_name(persona.name) if guild_id == OPERATOR_GUILD_ID else 0
    if not count:
        return []
    return [
        ngettext_lazy(
            "{count} server has a persona of its own with this name; its menus show both with "
            "their ids.",
            "{count} servers have a persona of their own with this name; their menus show both "
            "with their ids.",
            count,
        )
    ]


def _card_entry(guild_id: int, persona: Persona) -> TrashEntry:
    """Return the entry of a persona's present card, which is about to be replaced."""
    return TrashEntry(
        guild_id=guild_id, kind="card", id=persona.id, name=persona.name, at=time.time()
    )


@dataclass(frozen=True)
class UndoneReplacement:
    """A persona whose card was brought back, and the card that was there until then, in the
    trash.
    """

    persona: Persona
    replaced: TrashEntry


async def undo_replacement(
    personas: PersonaRegistry,
    store: Store,
    lore: GuildLore,
    *,
    origin: RequestOrigin,
    persona: Persona,
    stamp: str,
) -> UndoneReplacement:
    """Bring back a card that was replaced, with its picture and the lore of its character book.
    Raises `RefusedError` where it is too late, or another persona has its name by now.
    """
    guild_id = origin.guild_id
    entry = require_entry(lore.home, guild_id, kind="card", id=persona.id, stamp=stamp)
    present = _card_entry(guild_id, persona)
    kept = entry_folder(lore.home, entry) / LORE_PART
    book = {path.name: path.read_bytes() for path in kept.glob(f"{BOOK_LORE_NAME}*.md")}
    with recording_contributor(store.people, personas, origin, persona.id):
        back = await asyncio.to_thread(
            personas.undo_replacement,
            entry,
            present,
            parts=lore_parts(lore.home, guild_id, persona.id),
        )
    for file in _book_files(lore, guild_id, persona.id):
        await lore.remove(guild_id, persona.id, file)
    for file, content in book.items():
        await lore.add(guild_id, persona.id, name=file, content=content)
    return UndoneReplacement(back, present)


def _book_files(lore: GuildLore, guild_id: int, persona_id: str) -> list[str]:
    return [file for file in lore.files(guild_id, persona_id) if file.startswith(BOOK_LORE_NAME)]


def recording_contributor(
    people: MemberRecords, personas: PersonaRegistry, origin: RequestOrigin, persona_id: str
) -> AbstractContextManager[None]:
    """Record the card that the block stores as the origin's member's, from before it is on the
    disk; the operator's are nobody's.
    """
    guild_id = origin.guild_id
    if not origin.user_id:
        return nullcontext()
    contribution = Contribution(
        guild_id=guild_id,
        persona_id=persona_id,
        what=CARD_CONTRIBUTION,
        user_id=origin.user_id,
        at=time.time(),
    )
    return people.contributing(contribution, lambda: personas.card_bytes(guild_id, persona_id))


async def import_character_book(
    lore: GuildLore, guild_id: int, persona: Persona, card: Card
) -> tuple[list[str], ImportReport]:
    """Replace the persona's lore from an earlier character book by this card's.

    Returns notes for the moderator, and what became of each entry. A book for which there is no
    room replaces nothing.
    """
    earlier = _book_files(lore, guild_id, persona.id)
    book = await asyncio.to_thread(card_book, card)
    texts = enumerate(lorebook_as_markdown(book.entries, card.name, MAX_FILE_BYTES), start=1)
    files = {lore_file_name(f"{BOOK_LORE_NAME}-{number}"): text.encode() for number, text in texts}
    try:
        sizes = {file: len(content) for file, content in files.items()}
        await asyncio.to_thread(
            lore.require_room, guild_id, persona.id, sizes=sizes, without=earlier
        )
    except RefusedError as error:
        note = gettext_lazy(
            "Its character book stays in the card, and its lore is as before: {problem}",
            problem=error_text(error),
        )
        return [note], ImportReport((not_taken("character_book", error.message),))
    passages = 0
    for file in earlier:
        await lore.remove(guild_id, persona.id, file)
    try:
        for file, content in files.items():
            _, added = await lore.add(guild_id, persona.id, name=file, content=content)
            passages += added
    except UnderstudyError as error:
        note = gettext_lazy(
            "Not all of its character book could be kept as lore: {problem}",
            problem=error_text(error),
        )
        return [note], ImportReport((not_taken("part of character_book", error.message),))
    notes: list[str] = []
    if passages:
        notes.append(_book_note(book, passages))
    return notes, book.report()


def _book_note(book: Lorebook, passages: int) -> LocalisableText:
    """Say what gives the passages of a book."""
    uses = count_uses(book.entries)
    by_keys = ngettext_lazy(
        "{count} entry by keys and meaning", "{count} entries by keys and meaning", uses.by_keys
    )
    always = ngettext_lazy(
        "{count} entry always given", "{count} entries always given", uses.always
    )
    by_meaning = ngettext_lazy(
        "{count} entry by meaning", "{count} entries by meaning", uses.by_meaning
    )
    texts = [text for text, count in zip((by_keys, always, by_meaning), uses, strict=True) if count]
    return ngettext_lazy(
        "Its character book is lore now ({count} passage): {uses}.",
        "Its character book is lore now ({count} passages): {uses}.",
        passages,
        uses=join_texts(*texts, separator=", "),
    )


def export_card(card: Card, form: CardForm, persona: Persona, name: str) -> CardExport:
    """Write a card as a file. Raises `RefusedError` where the format cannot hold it."""
    try:
        return write_card(card, form, persona.name, avatar=name, persona_id=name)
    except CardError as error:
        raise RefusedError(error.message, "Choose another format.") from error


def log_card_export(
    home: Path,
    store: Store,
    guild_id: int,
    persona: Persona,
    file: str,
    content: bytes,
    recipient: str,
) -> None:
    """Log the export of a card to a recipient, under the member who contributed it."""
    contributor = store.people.contributor(guild_id, persona.id, CARD_CONTRIBUTION)
    if contributor is not None:
        people = {keyed_person(HomeKey.of(home).people(), str(contributor))}
        record_export(
            home,
            "card",
            path=f"{file}, {recipient}",
            people=people,
            sha256=hashlib.sha256(content).hexdigest(),
        )
