"""The registry of personas: bundled ones, for every guild, and those that one guild has
imported.
"""

import asyncio
import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from discord.utils import escape_markdown

from bot.personas.revisions import RevisionHistory
from bot.platform.chat_language import is_common_word
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.platform.messages import markdown_name
from personas.card.card_picture import card_picture, with_picture
from personas.card.card_reader import parse_card
from personas.card.card_writer import write_card
from personas.card.spec_card import Card, JsonObject
from personas.card.toml_card import (
    card_from_table,
    read_card,
    read_table,
    to_persona,
)
from personas.errors import CardError
from personas.home.atomic_files import write_file
from personas.home.persona_ids import guild_suffix, match_personas, short_id
from personas.home.shared_personas import CARD_FILE, OPERATOR_GUILD_ID
from personas.home.trash import TrashEntry, entries_of, swap, take_back, throw_away
from personas.ids import free_id, readable_id
from personas.lore.lore_folder import fold_key
from personas.schemas.chat import Persona, fold_name

log = logging.getLogger(__name__)

MAX_GUILD_PERSONAS = 20
"""Own personas of a guild; with the bundled ones they fit into one menu."""
MAX_SHORT_ID_CHARS = 32
CARD_ARCHIVE = "files.charx"
CARD_PART = "card"
"""Name of a card's folder in the trash."""


class ChangedCardError(RefusedError):
    """A card has changed since somebody began to edit it."""

    def __init__(self) -> None:
        super().__init__(
            gettext_lazy("Somebody else has changed this card since you opened the form."),
            gettext_lazy(
                "`/persona show` in its channel has it as it is now. To replace it by what you "
                "typed, press **Try again** and submit the form."
            ),
        )


class PersonaExistsError(RefusedError):
    """There is a persona of the wanted name or id; `persona` is replaced only where that is asked
    for.
    """

    def __init__(self, persona: Persona, guild_id: int) -> None:
        super().__init__(
            gettext_lazy(
                "There is a persona {persona} (`{id}`) already.",
                persona=markdown_name(persona),
                id=short_id(persona, guild_id),
            ),
            gettext_lazy(
                "Give the card another name. On the dashboard, the persona's page replaces its card."
            ),
        )
        self.persona = persona


@dataclass(frozen=True)
class ImportedPersona:
    """A persona that a guild has imported, and the card that it replaced, in the trash."""

    persona: Persona
    replaced: TrashEntry | None = None

    @property
    def is_new(self) -> bool:
        return self.replaced is None


class PersonaRegistry:
    """All personas by guild; guild 0 stands for direct messages."""

    def __init__(self, shipped: Path, home: Path) -> None:
        """`shipped` is the folder of the bundled cards. Raises `CardError` for an unreadable
        one.
        """
        self.home = home
        self._root = home / "personas"
        self._shipped: dict[str, Persona] = {}
        self._shipped_cards: dict[str, Path] = {}
        for path in sorted(shipped.glob("*.toml")):
            self._add(read_card(path), path)
        self._cards: dict[str, Path] = {}
        self._own: dict[int, dict[str, Persona]] = {}
        self._changing = threading.RLock()
        self.arriving = asyncio.Lock()
        """Held from the choice of a new persona's id until its card is stored under it."""
        self.names_of_bot: Callable[[int], Iterable[str]] = lambda guild_id: ()
        """The bot's own names in a guild, once it has a client; no persona is given one of them."""
        self.reload_guild_cards()

    def of(self, guild_id: int) -> Mapping[str, Persona]:
        """The personas of a guild by id, bundled ones first."""
        return self._shipped | self._own.get(OPERATOR_GUILD_ID, {}) | self._own.get(guild_id, {})

    def own(self, guild_id: int) -> list[Persona]:
        """The personas that a guild has created or imported."""
        return list(self._own.get(guild_id, {}).values())

    def guilds_with_name(self, name: str) -> int:
        """Count the guilds that have a persona of their own with this name."""
        guilds = set[int]()
        for guild_id, persona in self.everybody():
            if guild_id != OPERATOR_GUILD_ID and fold_name(persona.name) == fold_name(name):
                guilds.add(guild_id)
        return len(guilds)

    def require_room(self, guild_id: int) -> None:
        """Raise `RefusedError` for a guild that has as many personas of its own as it may have."""
        if len(self._own.get(guild_id, {})) >= MAX_GUILD_PERSONAS:
            message = gettext_lazy(
                "This server has {count} personas of its own.", count=MAX_GUILD_PERSONAS
            )
            raise RefusedError(message, gettext_lazy("Remove one: `/persona remove`."))

    def everybody(self) -> list[tuple[int, Persona]]:
        """All personas with their guild; shared ones (guild 0) come first."""
        everybody = []
        for persona in self.of(OPERATOR_GUILD_ID).values():
            everybody.append((OPERATOR_GUILD_ID, persona))
        for guild_id in sorted(self._own):
            if guild_id != OPERATOR_GUILD_ID:
                everybody += [(guild_id, persona) for persona in self._own[guild_id].values()]
        return everybody

    def find_owner(self, persona_id: str) -> tuple[int, Persona] | None:
        """The guild and the persona of this id, in any guild, those of all guilds first."""
        if shared := self.get(persona_id, OPERATOR_GUILD_ID):
            return OPERATOR_GUILD_ID, shared
        path = self._cards.get(persona_id)
        guild_id = _guild_of(path) if path else None
        if guild_id is None:
            return None
        persona = self._own.get(guild_id, {}).get(persona_id)
        return (guild_id, persona) if persona else None

    def find_short(self, wanted: str) -> tuple[int, Persona] | None:
        """The guild and the persona whose id without the guild's suffix this is; None where several
        guilds have one.
        """
        matching = []
        for guild_id, persona in self.everybody():
            if short_id(persona, guild_id) == wanted:
                matching.append((guild_id, persona))
        return matching[0] if len(matching) == 1 else None

    def search(self, text: str) -> list[tuple[int, Persona]]:
        """Those of `everybody` whose id or name has this text; all for an empty one."""
        wanted = text.strip().casefold()
        matching = []
        for guild_id, persona in self.everybody():
            if wanted in persona.id.casefold() or wanted in persona.name.casefold():
                matching.append((guild_id, persona))
        return matching

    def ships(self, persona_id: str) -> bool:
        """Report whether a card of this id is bundled; the operator may have replaced it."""
        return persona_id in self._shipped

    def has_copy(self, persona_id: str) -> bool:
        """Report whether the operator has written or imported a card of this id."""
        return persona_id in self._own.get(OPERATOR_GUILD_ID, {})

    def get(self, persona_id: str, guild_id: int) -> Persona | None:
        """A guild's persona by its id."""
        for personas in (self._own.get(guild_id), self._own.get(OPERATOR_GUILD_ID), self._shipped):
            if personas and persona_id in personas:
                return personas[persona_id]
        return None

    def name_of(self, persona_id: str, guild_id: int) -> str:
        """The name of a guild's persona; its id, without the guild's suffix, where it is gone."""
        persona = self.get(persona_id, guild_id)
        return persona.name if persona else persona_id.removesuffix(guild_suffix(guild_id))

    def markdown_name_of(self, persona_id: str, guild_id: int) -> str:
        """The same for a text that Discord reads as Markdown."""
        return escape_markdown(self.name_of(persona_id, guild_id))

    def find(self, wanted: str, guild_id: int) -> Persona | None:
        """A guild's persona by its id, its name, or its id without the guild's suffix."""
        known = [(guild_id, persona) for persona in self.of(guild_id).values()]
        matching = match_personas(known, wanted)
        return matching[0][1] if matching else None

    def card(self, persona: Persona, guild_id: int) -> Card:
        """A persona's complete card for export, with its files and its id without the guild's
        suffix.
        """
        table = read_table(self._cards[persona.id]) | {"id": short_id(persona, guild_id)}
        return self._card_of(table, persona)

    def table(self, persona_id: str) -> JsonObject:
        """The fields of a card's file, before macros are filled in."""
        return read_table(self._cards[persona_id])

    def card_bytes(self, guild_id: int, persona_id: str) -> bytes | None:
        """The file of a guild's own card; None where there is none."""
        path = self._root / str(guild_id) / persona_id / CARD_FILE
        return path.read_bytes() if path.exists() else None

    def earlier(self, persona_id: str) -> RevisionHistory:
        """The revisions of the card's file."""
        owner = self.find_owner(persona_id)
        guild_folder = self._root / str(owner[0] if owner else OPERATOR_GUILD_ID)
        return RevisionHistory.of(self.home, guild_folder / persona_id / CARD_FILE)

    def rewrite(
        self,
        persona_id: str,
        table: JsonObject,
        *,
        picture: bytes | None = None,
        over: JsonObject | None = None,
    ) -> Persona:
        """Replace the fields of a card, and its picture if there is one, and keep a revision; its
        files stay.

        A bundled card is copied for the operator first. Raises `CardError` for an invalid card,
        `ChangedCardError` where the fields are no longer those it was made `over`, `RefusedError`
        where another persona or most messages have its name, `KeyError` for an unknown id.
        """
        with self._changing:
            if over is not None and self.table(persona_id) != over:
                raise ChangedCardError
            guild_id, persona = self.find_owner(persona_id) or (
                OPERATOR_GUILD_ID,
                self._shipped[persona_id],
            )
            card = self._card_of(table | {"id": persona_id}, persona)
            if picture:
                card = with_picture(card, picture, persona.name)
            renamed = to_persona(card, persona.name, persona_id)
            self._require_own_name(guild_id, renamed.name, persona_id)
            self._require_calling_names(guild_id, renamed, persona)
            self.earlier(persona_id).keep(self._cards[persona_id].read_bytes(), time.time())
            self._keep(guild_id, card, persona_id)
            return self._own[guild_id][persona_id]

    def _card_of(self, table: JsonObject, persona: Persona) -> Card:
        picture = None
        if persona.avatar and persona.avatar.is_file():
            picture = persona.avatar.read_bytes()
        card = card_from_table(table, persona.name, picture)
        files = self._cards[persona.id].with_name(CARD_ARCHIVE)
        if files.exists():
            card = replace(card, files=parse_card(files.read_bytes(), CARD_ARCHIVE).files)
        return card

    def new_id(
        self, guild_id: int, name: str, wanted_id: str = "", *, reserved: Container[str] = ()
    ) -> str:
        """Return the id of a new persona of a guild: the short one that is wanted, or else one made
        from the name that nothing else has, and that is not `reserved`.

        Raises `PersonaExistsError` where a persona of the guild has the wanted id or the name, and
        `RefusedError` where one was removed that can be brought back.
        """
        suffix = guild_suffix(guild_id)
        personas = self.of(guild_id)
        if wanted_id:
            short = readable_id(wanted_id, MAX_SHORT_ID_CHARS)
            for full_id in (short, short + suffix):
                if full_id in personas:
                    raise PersonaExistsError(personas[full_id], guild_id)
            self._require_own_name(guild_id, short)
            self._require_not_removed(guild_id, short + suffix)
        self._require_own_name(guild_id, name)
        if wanted_id:
            return short + suffix

        names = {fold_name(other.name) for other in personas.values()}

        def is_taken(short: str) -> bool:
            full_id = short + suffix
            if short in personas or full_id in personas or short in names:
                return True
            return full_id in reserved or bool(self._removed(guild_id, full_id))

        return free_id(name, is_taken, MAX_SHORT_ID_CHARS) + suffix

    def _require_not_removed(self, guild_id: int, full_id: str) -> None:
        """Raise `RefusedError` for the id of a removed persona that can be brought back."""
        if removed := self._removed(guild_id, full_id):
            raise RefusedError(
                gettext_lazy(
                    "`{id}` is the id of {persona}, who was removed and can be brought back.",
                    id=full_id.removesuffix(guild_suffix(guild_id)),
                    persona=escape_markdown(removed[0].name),
                ),
                gettext_lazy(
                    "Press **Undo** below the message of the removal, or choose another id."
                ),
            )

    def _removed(self, guild_id: int, full_id: str) -> list[TrashEntry]:
        return entries_of(self.home, guild_id, "persona", full_id)

    def bring_in(self, guild_id: int, card: Card, *, where: str, full_id: str) -> ImportedPersona:
        """Import a card as a new persona of a guild, with an id of `new_id`; it replaces none.

        Raises `CardError` for a card that cannot be used on Discord, `PersonaExistsError` where
        another persona has its name or id, and `RefusedError` when the guild has too many personas,
        or most messages have the name.
        """
        with self._changing:  # cards are read in threads
            persona = to_persona(card, where, full_id)
            self.require_room(guild_id)
            if existing := self.of(guild_id).get(full_id):
                raise PersonaExistsError(existing, guild_id)
            self._require_own_name(guild_id, persona.name)
            self._require_calling_names(guild_id, persona, None)
            self._keep(guild_id, card, full_id)
            return ImportedPersona(self._own[guild_id][full_id])

    def replace(
        self, card: Card, where: str, entry: TrashEntry, parts: Mapping[str, Path]
    ) -> ImportedPersona:
        """Replace the card of a guild's own persona, or copy a bundled one's for the operator. The
        trash keeps a copy of the card and of these files, the revisions its text.

        Raises `CardError` and `RefusedError` as `bring_in` does, `KeyError` for an unknown id, and
        `OSError`.
        """
        guild_id = entry.guild_id
        full_id = entry.id
        with self._changing:
            before = self.of(guild_id)[full_id]
            persona = to_persona(card, where, full_id)
            self._require_own_name(guild_id, persona.name, full_id)
            self._require_calling_names(guild_id, persona, before)
            self.earlier(full_id).keep(self._cards[full_id].read_bytes(), time.time())
            folder = self._folder(guild_id, full_id)
            throw_away(self.home, entry, {}, copies={CARD_PART: folder, **parts})
            self._keep(guild_id, card, full_id)
            return ImportedPersona(self._own[guild_id][full_id], replaced=entry)

    def _require_own_name(self, guild_id: int, name: str, full_id: str = "") -> None:
        """Raise `PersonaExistsError` where another persona than this one has the name in a guild, or
        has it as its id: what is typed could mean either.
        """
        for other in self.of(guild_id).values():
            is_id = name.strip() in (other.id, short_id(other, guild_id))
            is_alike = is_id or fold_name(other.name) == fold_name(name)
            if is_alike and other.id != full_id:
                raise PersonaExistsError(other, guild_id)

    def calling_name_problem(self, guild_id: int, name: str) -> str:
        """Say that a name is the bot's own, or that most messages have it, which would call its
        bearer in all of them; else empty.
        """
        if any(_is_alike(name, own) for own in self.names_of_bot(guild_id)):
            return gettext_lazy(
                "The bot itself is called “{name}” here, and nobody could tell the two apart. Choose "
                "another name.",
                name=name,
            )
        if is_common_word(name):
            return gettext_lazy(
                "Many messages have “{name}”, whoever they are for. Choose another name.", name=name
            )
        return ""

    def _require_calling_names(
        self, guild_id: int, persona: Persona, before: Persona | None
    ) -> None:
        """Raise `RefusedError` for a name or nickname that calls others, too, and that a persona did
        not have `before`.
        """
        had = {before.name, before.nickname} if before else set()
        for name in filter(None, (persona.name, persona.nickname)):
            if name not in had and (problem := self.calling_name_problem(guild_id, name)):
                raise RefusedError(problem)

    def require_removable(self, guild_id: int, persona: Persona) -> None:
        """Raise `RefusedError` for a persona that is not the guild's own."""
        if persona.id not in self._own.get(guild_id, {}):
            raise RefusedError(
                gettext_lazy("{persona} came with the bot.", persona=markdown_name(persona)),
                gettext_lazy("Only personas of this server can be removed."),
            )

    def remove(
        self, guild_id: int, persona: Persona, entry: TrashEntry, parts: Mapping[str, Path]
    ) -> None:
        """Move a guild's own persona into the trash, with these files and folders beside its card.
        Its revisions stay. Raises `RefusedError` for a bundled persona, and `OSError`.
        """
        with self._changing:
            self.require_removable(guild_id, persona)
            folder = self._folder(guild_id, persona.id)
            throw_away(self.home, entry, {CARD_PART: folder, **parts})
            self._drop_card(persona.id)
            self._forget_own(guild_id, persona.id)

    def bring_back(self, entry: TrashEntry, parts: Mapping[str, Path]) -> Persona:
        """Bring a removed persona back from the trash, with what was removed beside its card.

        Raises `PersonaExistsError` where another persona has its name by now, `RefusedError` where
        the guild has too many, and `OSError`.
        """
        with self._changing:
            self.require_room(entry.guild_id)
            self._require_own_name(entry.guild_id, entry.name)
            self._require_own_name(
                entry.guild_id, entry.id.removesuffix(guild_suffix(entry.guild_id))
            )
            folder = self._folder(entry.guild_id, entry.id)
            take_back(self.home, entry, {CARD_PART: folder, **parts})
            self._take(folder / CARD_FILE)
            return self._own[entry.guild_id][entry.id]

    def undo_replacement(
        self, entry: TrashEntry, present: TrashEntry, parts: Mapping[str, Path]
    ) -> Persona:
        """Bring a replaced card back; the `present` one goes into the trash, with a copy of these
        files, and becomes a revision. Raises `PersonaExistsError` where another persona has its name
        by now, `KeyError` for a persona that is gone, and `OSError`.
        """
        with self._changing:
            persona = self.of(entry.guild_id)[entry.id]
            self._require_own_name(entry.guild_id, entry.name, persona.id)
            folder = self._folder(entry.guild_id, entry.id)
            self.earlier(entry.id).keep(self._cards[entry.id].read_bytes(), time.time())
            swap(self.home, entry, present, {CARD_PART: folder}, copies=parts)
            self._drop_card(entry.id)
            self._forget_own(entry.guild_id, entry.id)
            if (folder / CARD_FILE).exists():
                self._take(folder / CARD_FILE)
            return self.of(entry.guild_id)[entry.id]

    def restore_shipped(self, persona: Persona) -> Persona:
        """Use the bundled card again in place of the operator's copy, which becomes a revision.
        Raises `RefusedError` where there is no copy, and `OSError`.
        """
        with self._changing:
            self.require_removable(OPERATOR_GUILD_ID, persona)
            self.earlier(persona.id).keep(self._cards[persona.id].read_bytes(), time.time())
            shutil.rmtree(self._folder(OPERATOR_GUILD_ID, persona.id))
            self._drop_card(persona.id)
            self._forget_own(OPERATOR_GUILD_ID, persona.id)
            return self._shipped[persona.id]

    def _folder(self, guild_id: int, persona_id: str) -> Path:
        return self._root / str(guild_id) / persona_id

    def _forget_own(self, guild_id: int, persona_id: str) -> None:
        own = dict(self._own.get(guild_id, {}))
        own.pop(persona_id, None)  # a reload meanwhile does not find the card any more
        self._own[guild_id] = own  # a new one: others may be reading the old one

    def reload_guild_cards(self) -> None:
        """Reload the guilds' own cards from the disk; those read before speak until all have been
        read.
        """
        with self._changing:
            own: dict[int, dict[str, Persona]] = {}
            cards = dict(self._shipped_cards)
            for path in sorted(self._root.glob(f"*/*/{CARD_FILE}")):
                try:
                    guild_id, persona = _read_guild_card(path)
                except (CardError, ValueError) as error:
                    log.error("a guild's persona is left out: %s", error)
                    continue
                own.setdefault(guild_id, {})[persona.id] = persona
                cards[persona.id] = path
            self._own = own
            self._cards = cards

    def all_names(self) -> frozenset[str]:
        """All names of personas in any guild, and the words in them."""
        names = set[str]()
        for personas in (self._shipped, *self._own.values()):
            for persona in personas.values():
                names.update(filter(None, (persona.id, persona.name, persona.nickname)))
        words = {word for name in names for word in name.split()}
        return frozenset(names | words)

    def remove_guild(self, guild_id: int) -> None:
        """Unregister a guild's own personas; their files are deleted elsewhere."""
        for persona_id in self._own.pop(guild_id, {}):
            self._drop_card(persona_id)

    def _keep(self, guild_id: int, card: Card, full_id: str) -> None:
        folder = self._folder(guild_id, full_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if card.files:  # they are stored in an archive, under their names in it
            files = write_card(card, "charx", CARD_FILE).content
            write_file(folder / CARD_ARCHIVE, files)
            card = parse_card(files, CARD_ARCHIVE)
        # The name depends on the picture, so that webhooks notice a change.
        name = f"face-{hashlib.sha256(card_picture(card) or b'').hexdigest()[:12]}"
        written = write_card(card, "toml", CARD_FILE, avatar=name, persona_id=full_id)
        for beside, content in written.beside.items():
            write_file(folder / beside, content)
        write_file(folder / CARD_FILE, written.content)
        current = {CARD_FILE, *written.beside}
        if card.files:
            current.add(CARD_ARCHIVE)
        for file in folder.iterdir():
            if file.is_file() and file.name not in current:
                file.unlink()
        self._take(folder / CARD_FILE)

    def _drop_card(self, persona_id: str) -> None:
        """Unregister a guild's card; the bundled one of this id, if any, is used again."""
        self._cards.pop(persona_id, None)
        if persona_id in self._shipped_cards:
            self._cards[persona_id] = self._shipped_cards[persona_id]

    def _take(self, path: Path) -> None:
        guild_id, persona = _read_guild_card(path)
        self._cards[persona.id] = path
        self._own[guild_id] = self._own.get(guild_id, {}) | {persona.id: persona}

    def _add(self, persona: Persona, path: Path) -> None:
        if persona.id in self._shipped:
            message = f"Two cards in {path.parent} have the id {persona.id!r}."
            raise CardError(message, f"Rename one; the second is {path}.")
        self._shipped[persona.id] = persona
        self._shipped_cards[persona.id] = path


def _read_guild_card(path: Path) -> tuple[int, Persona]:
    """Read a guild's own card. Raises `CardError`, and `ValueError`."""
    guild_id = _guild_of(path)
    persona = read_card(path)
    if (
        guild_id is None
        or persona.id != path.parent.name
        or not persona.id.endswith(guild_suffix(guild_id))
    ):
        raise CardError(f"{path} does not belong there.", "Import it again.")
    return guild_id, persona


def guild_card_path(home: Path, persona_id: str) -> Path | None:
    """The card of a guild's own persona, in any guild."""
    for path in (home / "personas").glob(f"*/{persona_id}/{CARD_FILE}"):
        guild_id = _guild_of(path)
        if guild_id is not None and persona_id.endswith(guild_suffix(guild_id)):
            return path
    return None


def is_operator_card(card: Path) -> bool:
    """Report whether a card that `guild_card_path` found is the operator's, not a server's."""
    return _guild_of(card) == OPERATOR_GUILD_ID


def _guild_of(card: Path) -> int | None:
    """The guild of a card's folder; None for other folders."""
    name = card.parent.parent.name
    return int(name) if name.isdecimal() else None


def _is_alike(name: str, other: str) -> bool:
    """Compare names without case, diacritics, spaces at their ends and signs between words."""
    key = fold_key(name)
    return fold_name(name) == fold_name(other) or (key != "" and key == fold_key(other))
