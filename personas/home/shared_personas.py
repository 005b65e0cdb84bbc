"""Personas available on every server: shipped cards and lore, and the operator's."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from personas.card.toml_card import SHIPPED_CARDS, read_card
from personas.errors import CardError
from personas.home.job_material import (
    PROJECT_STATEMENT,
    ShippedData,
    SourceMaterial,
    stated_material,
)
from personas.home.lore_sets import LoreSets, find_lore_sets
from personas.home.persona_ids import guild_suffix
from personas.lore.index import guild_owner
from personas.lore.lore_folder import (
    LoreDocument,
    read_lore,
    read_lore_file,
    scan_lore,
    source_name,
)
from personas.lore.passages import WORLD, Passage, split_passages
from personas.schemas.chat import Persona

OPERATOR_GUILD_ID = (
    0  # guild id of the operator's own cards and lore, which are available everywhere
)
OPERATOR_STATEMENT = (
    "form",
    "the operator",
    "Written or brought in on the bot's own pages, for what it does with them.",
)
"""Right, author and reason of the operator's cards and lore."""
CARD_FILE = "card.toml"


def shared_card_files(shipped: Path, home: Path) -> dict[str, Path]:
    """Return the card files of all shared personas by id, shipped ones first. Raises
    `CardError`.
    """
    ships = {read_card(path).id: path for path in sorted(shipped.glob("*.toml"))}
    operators = sorted((home / "personas" / str(OPERATOR_GUILD_ID)).glob(f"*/{CARD_FILE}"))
    return ships | {path.parent.name: path for path in operators}


def read_shared_personas(shipped: Path, home: Path) -> dict[str, Persona]:
    """Read the shared personas by id. Raises `CardError` if a card cannot be read."""
    files = shared_card_files(shipped, home)
    return {persona_id: read_card(path) for persona_id, path in files.items()}


def card_material(shipped: ShippedData, home: Path, persona_id: str) -> SourceMaterial:
    """Build the card material of a shared persona. Raises `KeyError` for an unknown one."""
    path = shared_card_files(shipped.cards, home)[persona_id]
    ships = path.is_relative_to(shipped.cards)
    origin = f"cards/{path.name}" if ships else "the operator's card"
    stated = PROJECT_STATEMENT if ships else OPERATOR_STATEMENT
    return stated_material("card", path.name, origin, stated, copies=[(path, path.name)])


def lore_material(shipped: ShippedData, home: Path, persona_id: str) -> list[SourceMaterial]:
    """Build the lore material of a shared persona: its own lore and the sets that it takes."""
    owners = [persona_id, *LoreSets(shipped.lore, home).taken(persona_id)]
    return _shared_lore_material(shipped, home, owners, "lore")


def lore_set_material(
    shipped: ShippedData, home: Path, persona_id: str, guild_id: int
) -> list[SourceMaterial]:
    """Build the material of the sets of lore that a guild's own persona takes there."""
    owners = LoreSets(shipped.lore, home).taken(persona_id, guild_id)
    return _shared_lore_material(shipped, home, owners, "lore-sets")


def _shared_lore_material(
    shipped: ShippedData, home: Path, owners: Sequence[str], folder: str
) -> list[SourceMaterial]:
    """Build the material of what ships and the operator has written for these owners, in a folder
    of the job.
    """
    written: dict[str, Path] = {}  # what the operator has edited stands in place of what ships
    for owner in owners:
        for path in _written_lore_files(home, OPERATOR_GUILD_ID, owner):
            written[f"{owner}/{path.name}"] = path
    copies = []
    for document in list_shipped_lore(shipped.lore, home, owners):
        own = [owner for owner in owners if owner in document.owners]
        if own and not document.skipped and source_name(own[0], document.source) not in written:
            copies.append((document.path, f"{folder}/{document.source}"))
    for name, path in written.items():
        if path.stat().st_size:  # an empty file replaces a shipped one with nothing
            copies.append((path, f"{folder}/{name}"))
    if not copies:
        return []
    origin = shipped.lore.name
    stated = PROJECT_STATEMENT
    if written:
        origin = "lore that ships and the operator's"
        stated = OPERATOR_STATEMENT
    return [stated_material("lore", folder, origin, stated, copies=copies)]


def list_shipped_lore(shipped: Path, home: Path, also: Iterable[str] = ()) -> list[LoreDocument]:
    """List all files of the shipped lore with their owners (shared personas, sets, and the ids
    `also`), or why not.
    """
    owners: list[str | Persona] = [*_named_personas(home), *find_lore_sets(shipped, home), *also]
    return list(scan_lore(shipped, owners))


def read_shipped_lore(
    shipped: Path, owners: Iterable[str], home: Path, others: Iterable[str] = ()
) -> list[Passage]:
    """Read the owners' shipped lore that the operator has not replaced; files of `others` cause no
    warning.
    """
    operators = (home / "lore" / str(OPERATOR_GUILD_ID)).glob("*/*.md")
    replaced = {f"{path.parent.name}/{path.name}" for path in operators}
    named = {persona.id: persona for persona in _named_personas(home)}
    searched = [named.get(owner, owner) for owner in owners]
    passages = read_lore(shipped, searched, (*named.values(), *others))
    return [passage for passage in passages if passage.source not in replaced]


def _named_personas(home: Path) -> Iterator[Persona]:
    """Yield the shared personas, whose names lore may use; an unreadable card of the operator is
    left out.
    """
    for path in shared_card_files(SHIPPED_CARDS, home).values():
        with suppress(CardError):
            yield read_card(path)


def read_persona_lore(
    shipped: Path, persona_id: str, home: Path, others: Iterable[str] = (), *, guild_id: int = 0
) -> list[Passage]:
    """Read the lore of a persona and of the sets that it takes, without what a guild adds to
    shared ones; `guild_id` is the guild that owns the persona. Raises `LoreError`.
    """
    owners = (persona_id, *LoreSets(shipped, home).taken(persona_id, guild_id))
    passages = read_shipped_lore(shipped, owners, home, others)
    for owner in owners:
        operators_owner = guild_owner(OPERATOR_GUILD_ID, owner)
        passages += _written_passages(home, OPERATOR_GUILD_ID, owner, operators_owner)
    if guild_id:  # a guild's own lore of its world is for all its personas
        for owner in dict.fromkeys((*owners, WORLD)):
            passages += _written_passages(home, guild_id, owner, owner)
    return passages


def _written_passages(home: Path, guild_id: int, folder: str, owner: str) -> list[Passage]:
    """Read what a guild, or the operator, has written into a folder of lore."""
    passages = []
    for path in _written_lore_files(home, guild_id, folder):
        source = f"{folder.removesuffix(guild_suffix(guild_id))}/{path.name}"
        passages += split_passages(owner, source, read_lore_file(path)[1])
    return passages


def _written_lore_files(home: Path, guild_id: int, owner: str) -> list[Path]:
    return sorted((home / "lore" / str(guild_id) / owner).glob("*.md"))
