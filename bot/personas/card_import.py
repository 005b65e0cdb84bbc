"""Imports and exports character cards with their lore."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bot.personas.base_model_compat import CardTokenCount, count_card_tokens, require_token_budget
from bot.personas.guild_lore import MAX_FILE_BYTES, GuildLore, lore_file_name
from bot.personas.registry import ImportedPersona, PersonaRegistry, imported_persona_id
from bot.platform.errors import RefusedError, error_text
from bot.platform.localisation import LocalisableText, gettext_lazy, join_texts, ngettext_lazy
from bot.platform.messages import markdown_name
from bot.platform.request_origin import RequestOrigin
from bot.store import CARD_CONTRIBUTION, Contribution, MemberRecords, Store
from personas.card.card_book import card_book
from personas.card.card_reader import parse_card
from personas.card.card_writer import CardExport, CardForm, write_card
from personas.card.spec_card import Card
from personas.card.toml_card import to_persona
from personas.errors import CardError, UnderstudyError
from personas.home.external_files import record_export
from personas.home.lore_sets import LoreSets
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.home.shared_personas import OPERATOR_GUILD_ID
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
    base_model: str,
    guild_id: int,
    data: bytes,
    file: str,
    wanted_id: str = "",
    *,
    context_tokens: int,
    keeping: bool = False,
    contributing: Callable[[str], AbstractContextManager[None]] = lambda persona_id: nullcontext(),
) -> CardImport:
    """Import a card file as a persona of a guild, 0 for all; with `keeping` a revision of the
    replaced card is kept. Prompts with their replies have `context_tokens`.

    The card is stored within `contributing`, which is called with the persona's id. Raises
    `CardError` and `RefusedError` as `PersonaRegistry.bring_in` does, and for a card over the token
    budget.
    """

    def read() -> tuple[Card, CardTokenCount, str]:
        card = parse_card(data, file, MAX_UNPACKED_BYTES)
        persona = to_persona(card, file)
        room = count_card_tokens(persona, base_model, context_tokens)
        require_token_budget(persona, file, room)
        return card, room, imported_persona_id(guild_id, card, file, wanted_id)

    card, room, persona_id = await asyncio.to_thread(read)
    with contributing(persona_id):
        brought = await asyncio.to_thread(
            personas.bring_in, guild_id, card, where=file, wanted_id=wanted_id, keeping=keeping
        )
    return CardImport(brought, card, room)


async def contribute_card(
    personas: PersonaRegistry,
    people: MemberRecords,
    base_model: str,
    origin: RequestOrigin,
    data: bytes,
    file: str,
    wanted_id: str,
    *,
    context_tokens: int,
) -> CardImport:
    """Import a moderator's card, recorded as theirs from before it is on the disk. Raises as
    `import_card` does.
    """
    guild_id = origin.guild_id
    return await import_card(
        personas,
        base_model,
        guild_id=guild_id,
        data=data,
        file=file,
        wanted_id=wanted_id,
        context_tokens=context_tokens,
        contributing=partial(recording_contributor, people, personas, origin),
    )


def recording_contributor(
    people: MemberRecords, personas: PersonaRegistry, origin: RequestOrigin, persona_id: str
) -> AbstractContextManager[None]:
    """Record the card that the block stores as the origin's member's, from before it is on the
    disk.
    """
    guild_id = origin.guild_id
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
    earlier = [file for file in lore.files(guild_id, persona.id) if file.startswith(BOOK_LORE_NAME)]
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
            _, added = await lore.add(guild_id, persona.id, file, content)
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


async def remove_persona(
    personas: PersonaRegistry, store: Store, lore: GuildLore, guild_id: int, persona: Persona
) -> None:
    """Remove a guild's persona (0: a shared one) with its lore, memories and channels.

    Raises `RefusedError` for a bundled one.
    """
    is_shared = guild_id == OPERATOR_GUILD_ID
    with store.atomic(shared=is_shared):  # other processes reload the cards when they learn of it
        if is_shared:
            store.guilds.record_persona_removal(persona.id, time.time())
        store.guilds.forget_persona(persona.id)
        personas.remove(guild_id, persona)
    store.people.remove_contribution(guild_id, persona.id, CARD_CONTRIBUTION)
    for file in lore.files(guild_id, persona.id):
        await lore.remove(guild_id, persona.id, file)
        store.people.remove_contribution(guild_id, persona.id, file)
    lore.delete_revisions(guild_id, persona.id)
    LoreSets(lore.shipped or Path(), lore.home).forget(persona.id)


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
