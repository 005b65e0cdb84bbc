"""Personas available on every server: shipped cards and lore, and the operator's."""

from collections.abc import Iterable, Iterator
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
    """Build the lore material of a persona: its own lore and the world's."""
    owners = (persona_id, WORLD)
    written: dict[str, Path] = {}  # what the operator has edited stands in place of what ships
    for owner in owners:
        for path in _operator_lore_files(home, owner):
            written[f"{owner}/{path.name}"] = path
    copies = []
    for document in list_shipped_lore(shipped.lore, home, [persona_id]):
        own = [owner for owner in owners if owner in document.owners]
        if own and not document.skipped and source_name(own[0], document.source) not in written:
            copies.append((document.path, f"lore/{document.source}"))
    for name, path in written.items():
        if path.stat().st_size:  # an empty file replaces a shipped one with nothing
            copies.append((path, f"lore/{name}"))
    if not copies:
        return []
    origin = shipped.lore.name
    stated = PROJECT_STATEMENT
    if written:
        origin = "lore that ships and the operator's"
        stated = OPERATOR_STATEMENT
    return [stated_material("lore", "lore", origin, stated, copies=copies)]


def list_shipped_lore(shipped: Path, home: Path, also: Iterable[str] = ()) -> list[LoreDocument]:
    """List all files of the shipped lore with their owners (shared personas, and the ids `also`),
    or why not.
    """
    return list(scan_lore(shipped, (*_named_personas(home), *also)))


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
    shipped: Path, persona_id: str, home: Path, others: Iterable[str] = ()
) -> list[Passage]:
    """Read the lore of a shared persona and of the world, without additions by servers. Raises
    `LoreError`.
    """
    owners = (persona_id, WORLD)
    passages = read_shipped_lore(shipped, owners, home, others)
    for owner in owners:
        operators_owner = guild_owner(OPERATOR_GUILD_ID, owner)
        for path in _operator_lore_files(home, owner):
            text = read_lore_file(path)[1]
            passages += split_passages(operators_owner, f"{owner}/{path.name}", text)
    return passages


def _operator_lore_files(home: Path, owner: str) -> list[Path]:
    return sorted((home / "lore" / str(OPERATOR_GUILD_ID) / owner).glob("*.md"))
