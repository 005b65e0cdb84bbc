"""All personas of a home, as its commands name and train them: shared ones, and the guilds' own."""

import difflib
import logging
from dataclasses import dataclass
from pathlib import Path

from personas.card.toml_card import read_card
from personas.errors import CardError, RequestError
from personas.home.job_material import ShippedData, SourceMaterial, stated_material
from personas.home.persona_ids import guild_suffix, match_personas
from personas.home.shared_personas import (
    CARD_FILE,
    OPERATOR_GUILD_ID,
    card_material,
    lore_material,
    lore_set_material,
    shared_card_files,
)
from personas.schemas.base import Right
from personas.schemas.chat import Persona

GUILD_STATEMENT: tuple[Right, str, str] = (
    "form",
    "moderators of a server",
    "Given to the bot on purpose, for what it does with them.",
)
"""Right, author and reason of a guild's own cards and lore."""
MAX_LISTED_PERSONAS = 20
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HomePersona:
    """A persona, its card's file, and the guild that owns it (0: shared by all guilds)."""

    guild_id: int
    persona: Persona
    card: Path

    @property
    def id(self) -> str:
        return self.persona.id


def guild_card_files(home: Path) -> dict[str, tuple[int, Path]]:
    """Return guild and card file of the personas that one guild owns, by id."""
    files = {}
    for path in sorted((home / "personas").glob(f"*/*/{CARD_FILE}")):
        folder, persona_id = path.parts[-3:-1]
        guild_id = int(folder) if folder.isdecimal() else OPERATOR_GUILD_ID
        if guild_id != OPERATOR_GUILD_ID and persona_id.endswith(guild_suffix(guild_id)):
            files[persona_id] = (guild_id, path)
    return files


def read_home_personas(shipped: Path, home: Path) -> dict[str, HomePersona]:
    """Read all personas by id, shared ones first. A guild's card that cannot be read is left out
    with a warning, as the bot leaves it out. Raises `CardError` for a shared one.
    """
    personas = {}
    for persona_id, path in shared_card_files(shipped, home).items():
        personas[persona_id] = HomePersona(OPERATOR_GUILD_ID, read_card(path), path)
    for persona_id, (guild_id, path) in guild_card_files(home).items():
        try:
            personas.setdefault(persona_id, HomePersona(guild_id, read_card(path), path))
        except CardError as error:
            log.warning("a server's persona is left out: %s", error)
    return personas


def find_home_persona(shipped: Path, home: Path, wanted: str, *, or_else: str = "") -> HomePersona:
    """Find a persona by its id, its name, or its id without its guild's suffix.

    Raises `RequestError` for none and for several, whose advice ends with `or_else`, and
    `CardError`.
    """
    personas = read_home_personas(shipped, home)
    matching = match_personas(
        ((owned.guild_id, owned.persona) for owned in personas.values()), wanted
    )
    if len(matching) == 1:
        return personas[matching[0][1].id]
    if matching:
        ids = ", ".join(persona.id for _, persona in matching)
        raise RequestError(
            f"Several personas are called {wanted!r}.", f"Name one by its id: {ids}."
        )
    names = [*personas, *(owned.persona.name for owned in personas.values())]
    near = difflib.get_close_matches(wanted, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    known = [*personas][:MAX_LISTED_PERSONAS]
    if len(personas) > MAX_LISTED_PERSONAS:
        known.append("…")
    raise RequestError(
        f"There is no persona {wanted!r}.{hint}", f"Known: {', '.join(known)}{or_else}."
    )


def home_card_file(shipped: Path, home: Path, persona_id: str) -> Path | None:
    """Return the card file of the persona with this id; None if there is none. Raises
    `CardError`.
    """
    own = guild_card_files(home).get(persona_id)
    return own[1] if own else shared_card_files(shipped, home).get(persona_id)


def persona_card_material(shipped: ShippedData, home: Path, persona_id: str) -> SourceMaterial:
    """Build the card material of any persona of the home. Raises `KeyError` for an unknown one."""
    own = guild_card_files(home).get(persona_id)
    if own is None:
        return card_material(shipped, home, persona_id)
    _, path = own
    copies = [(path, path.name)]
    return stated_material("card", path.name, "an imported card", GUILD_STATEMENT, copies=copies)


def persona_lore_material(
    shipped: ShippedData, home: Path, persona_id: str
) -> list[SourceMaterial]:
    """Build the lore material of any persona of the home: its own lore and the sets that it takes."""
    own = guild_card_files(home).get(persona_id)
    if own is None:
        return lore_material(shipped, home, persona_id)
    guild_id, _ = own
    sets = lore_set_material(shipped, home, persona_id, guild_id)
    folder = home / "lore" / str(guild_id) / persona_id
    if not folder.is_dir():
        return sets
    copies = [(folder, f"lore/{persona_id}")]
    material = stated_material("lore", "lore", "a server's lore", GUILD_STATEMENT, copies=copies)
    return [material, *sets]
