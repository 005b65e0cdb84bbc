"""The personas there are: those that ship, for everybody, and those that a guild has brought in, for it alone.

A guild's persona lies in `<home>/personas/<guild id>/<persona id>/`: `card.toml`, its picture and, where its card came
with more files, `files.charx`. The card is written last, so that one half brought in is none. Ids are unique: a guild's
own end with its id, so that nothing shows what other guilds have, and adapters of two guilds never meet.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bot.errors import RefusedError
from personas.card import Card, face, find_persona, parse_card, read_card, slug, to_persona, write
from personas.card.own import card_of_table, read_table
from personas.contracts import Persona
from personas.errors import CardError

log = logging.getLogger(__name__)

MAX_OWN = 20
"""How many personas a guild can have of its own; with those that ship they fit into one menu."""
MAX_SHORT_ID = 32
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
CARD, FILES = "card.toml", "files.charx"


@dataclass(frozen=True)
class BroughtIn:
    """A persona that a guild has brought in."""

    persona: Persona
    is_new: bool


class Personas:
    """All personas, asked for by guild; guild 0 stands for direct messages."""

    def __init__(self, shipped: Path, home: Path) -> None:
        """`shipped` holds the cards for everybody. Raises `CardError` for one of them that cannot be read."""
        self._home = home / "personas"
        self._shipped: dict[str, Persona] = {}
        self._cards: dict[str, Path] = {}
        for path in sorted(shipped.glob("*.toml")):
            self._add(self._shipped, read_card(path), path)
        self._own: dict[int, dict[str, Persona]] = {}
        self._changing = threading.Lock()
        for path in sorted(self._home.glob(f"*/*/{CARD}")):
            self._load(path)

    def of(self, guild_id: int) -> Mapping[str, Persona]:
        """The personas that a guild has, by id, those that ship first."""
        return self._shipped | self._own.get(guild_id, {})

    def get(self, persona_id: str, guild_id: int) -> Persona | None:
        """A persona that a guild has, by its id."""
        return self.of(guild_id).get(persona_id)

    def find(self, wanted: str, guild_id: int) -> Persona | None:
        """A persona that a guild has, by its id, its name, or its id without the guild's."""
        there = self.of(guild_id)
        return find_persona(there, wanted) or there.get(_own_id(wanted.strip().casefold(), guild_id))

    def card(self, persona: Persona, guild_id: int) -> Card:
        """A persona's whole card, to be handed out: with all that it came with, and the id that it came with."""
        path = self._cards[persona.id]
        picture = persona.avatar.read_bytes() if persona.avatar and persona.avatar.is_file() else None
        card = card_of_table(read_table(path) | {"id": short_id(persona, guild_id)}, persona.name, picture)
        if (files := path.with_name(FILES)).exists():
            card = replace(card, files=parse_card(files.read_bytes(), FILES).files)
        return card

    def bring_in(self, guild_id: int, card: Card, where: str, wanted_id: str = "") -> BroughtIn:
        """Make a card a persona of a guild; one that it has under the same id is replaced.

        Raises `CardError` for a card that cannot speak on Discord, and `RefusedError` when there is no room for it, or
        the guild has another persona of that name.
        """
        with self._changing:  # reading cards takes long enough to be done in threads
            return self._bring_in(guild_id, card, where, wanted_id)

    def _bring_in(self, guild_id: int, card: Card, where: str, wanted_id: str) -> BroughtIn:
        persona = to_persona(card, where, slug(wanted_id or card.name)[:MAX_SHORT_ID].rstrip("-"))
        full_id = _own_id(persona.id, guild_id)
        own = self._own.get(guild_id, {})
        if full_id not in own and len(own) >= MAX_OWN:
            raise RefusedError(f"This server has {MAX_OWN} personas of its own.", "Remove one: `/persona remove`.")
        for other in self.of(guild_id).values():
            if other.id == persona.id or (other.id != full_id and other.name.casefold() == persona.name.casefold()):
                raise RefusedError(
                    f"There is a persona {other.name} (`{short_id(other, guild_id)}`) already.",
                    "Give the card another name; or with `id` another id, or that of the persona it is to replace.",
                )
        self._keep(guild_id, card, full_id)
        return BroughtIn(self._own[guild_id][full_id], full_id not in own)

    def remove(self, guild_id: int, persona: Persona) -> None:
        """Remove a guild's own persona. Raises `RefusedError` for one that ships."""
        if persona.id not in self._own.get(guild_id, {}):
            raise RefusedError(f"{persona.name} came with the bot.", "Only personas of this server can be removed.")
        self._cards[persona.id].unlink()  # without it the folder is nobody's
        for file in self._cards.pop(persona.id).parent.iterdir():
            if file.is_file():
                file.unlink()
        own = self._own[guild_id]
        self._own[guild_id] = {key: kept for key, kept in own.items() if key != persona.id}

    def reread(self) -> None:
        """Take the guilds' own cards anew from the disk, where they have changed or gone."""
        with self._changing:
            own, self._own = self._own, {}
            for persona_id in [persona_id for personas in own.values() for persona_id in personas]:
                self._cards.pop(persona_id, None)
            for path in sorted(self._home.glob(f"*/*/{CARD}")):
                self._load(path)

    def everybody(self) -> list[tuple[int, Persona]]:
        """All personas with the guild whose they are, 0 for those that ship: for the operator, who sees all."""
        own = ((guild_id, one) for guild_id, ones in sorted(self._own.items()) for one in ones.values())
        return [*((0, one) for one in self._shipped.values()), *own]

    def every_name(self) -> frozenset[str]:
        """All names that personas bear, in any guild."""
        everybody = [*self._shipped.values(), *(one for own in self._own.values() for one in own.values())]
        names = {name for one in everybody for name in (one.id, one.name, one.nickname) if name}
        return frozenset(names | {word for name in names for word in name.split()})

    def drop_guild(self, guild_id: int) -> None:
        """A guild's own personas are no more; their files are deleted elsewhere."""
        for persona_id in self._own.pop(guild_id, {}):
            self._cards.pop(persona_id, None)

    def _keep(self, guild_id: int, card: Card, full_id: str) -> None:
        folder = self._home / str(guild_id) / full_id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if card.files:  # they lie in a file of their own, under the names that they have in it
            files = write(card, "charx", CARD).content
            _put(folder / FILES, files)
            card = parse_card(files, FILES)
        # Another picture has another name: so webhooks notice that the face has changed.
        name = f"face-{hashlib.sha256(face(card) or b'').hexdigest()[:12]}"
        written = write(card, "toml", CARD, avatar=name, persona_id=full_id)
        for beside, content in written.beside.items():
            _put(folder / beside, content)
        _put(folder / CARD, written.content)
        kept = {CARD, *written.beside, *((FILES,) if card.files else ())}
        for file in folder.iterdir():
            if file.is_file() and file.name not in kept:
                file.unlink()
        self._take(folder / CARD)

    def _load(self, path: Path) -> None:
        """Take up a guild's card; one that cannot be read keeps nobody else from speaking."""
        try:
            self._take(path)
        except (CardError, ValueError) as error:
            log.error("a guild's persona is left out: %s", error)

    def _take(self, path: Path) -> None:
        guild_id, persona = _guild_of(path), read_card(path)
        if persona.id != path.parent.name or not persona.id.endswith(_own_id("", guild_id)):
            raise CardError(f"{path} does not belong there.", "Import it again.")
        self._cards[persona.id] = path
        self._own[guild_id] = self._own.get(guild_id, {}) | {persona.id: persona}

    def _add(self, personas: dict[str, Persona], persona: Persona, path: Path) -> None:
        if persona.id in personas:
            raise CardError(
                f"Two cards in {path.parent} have the id {persona.id!r}.", f"Rename one; the second is {path}."
            )
        personas[persona.id], self._cards[persona.id] = persona, path


def own_card(home: Path, persona_id: str) -> Path | None:
    """The card of a guild's own persona, whichever guild's it is. In its folder lies nothing of another's."""
    found = (home / "personas").glob(f"*/{persona_id}/{CARD}")
    return next((path for path in found if persona_id.endswith(_own_id("", _guild_of(path)))), None)


def _guild_of(card: Path) -> int:
    """The guild in whose folder a card lies; 0 where that is no guild's."""
    name = card.parent.parent.name
    return int(name) if name.isdecimal() else 0


def short_id(persona: Persona, guild_id: int) -> str:
    """A persona's id as it is shown and exported: without the guild's."""
    return persona.id.removesuffix(_own_id("", guild_id))


def own_suffix(guild_id: int) -> str:
    """How the ids of a guild's own personas end, and no others."""
    return _own_id("", guild_id)


def _own_id(short: str, guild_id: int) -> str:
    digits, rest = "", guild_id  # no persona's id ends as that of guild 0 would
    while rest:
        rest, digit = divmod(rest, len(DIGITS))
        digits = DIGITS[digit] + digits
    return f"{short}-{digits}"


def _put(path: Path, content: bytes) -> None:
    aside = path.with_name(f"{path.name}.part")
    aside.write_bytes(content)
    aside.replace(path)
