"""Personas for everybody as they are on this machine: cards and lore that ship, and the operator's, which win.

The operator's lie in the bot's home, as guild 0's: `<home>/personas/0/<persona id>/card.toml` in place of the card that
ships with this id, `<home>/lore/0/<owner>/<file>.md` in place of the file that ships under this name. An empty file of
theirs leaves out what ships. Bot and command line train and answer from the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from personas.card import read_card
from personas.contracts import Persona
from personas.job_material import PROJECT, ShippedData, SourceMaterial, given, shipped_lore
from personas.lore import WORLD, Passage, guild_owner, passages_of, read_lore, read_lore_file

OPERATOR = 0
"""The guild of what the operator has written or brought in, for everybody."""
OPERATORS = "form", "the operator", "Written or brought in on the bot's own pages, for what it does with them."
"""The operator's cards and lore: right, who states it, why."""
CARD = "card.toml"


def card_files(shipped: Path, home: Path) -> dict[str, Path]:
    """The card of each persona for everybody by its id, those that ship first. Raises `CardError`."""
    ships = {read_card(path).id: path for path in sorted(shipped.glob("*.toml"))}
    operators = sorted((home / "personas" / str(OPERATOR)).glob(f"*/{CARD}"))
    return ships | {path.parent.name: path for path in operators}


def read_personas(shipped: Path, home: Path) -> dict[str, Persona]:
    """The personas for everybody by id. Raises `CardError` for a card that cannot be read."""
    return {persona_id: read_card(path) for persona_id, path in card_files(shipped, home).items()}


def card_material(shipped: ShippedData, home: Path, persona_id: str) -> SourceMaterial:
    """The card to train with. Raises `KeyError` for no persona of everybody's."""
    path = card_files(shipped.cards, home)[persona_id]
    ships = path.is_relative_to(shipped.cards)
    origin, stated = (f"cards/{path.name}", PROJECT) if ships else ("the operator's card", OPERATORS)
    return given("card", path.name, origin, stated, (path, path.name))


def lore_material(shipped: ShippedData, home: Path, persona_id: str) -> list[SourceMaterial]:
    """The lore to train on: a persona's and the world's."""
    owners = (persona_id, WORLD)
    written = {f"{owner}/{path.name}": path for owner in owners for path in _operators_files(home, owner)}
    if not written:
        return shipped_lore(shipped, persona_id)
    files = {path.relative_to(shipped.lore).as_posix(): path
             for owner in owners for path in sorted((shipped.lore / owner).rglob("*")) if path.is_file()}  # fmt: skip
    there = {name: path for name, path in (files | written).items() if path.stat().st_size}  # empty: left out
    copies = [(path, f"lore/{name}") for name, path in there.items()]
    return [given("lore", "lore", "lore that ships and the operator's", OPERATORS, *copies)] if copies else []


def read_shipped(shipped: Path, owners: Iterable[str], home: Path, others: Iterable[str] = ()) -> list[Passage]:
    """What ships of these owners, without the files that the operator has others in place of; `others` are known."""
    replaced = {f"{path.parent.name}/{path.name}" for path in (home / "lore" / str(OPERATOR)).glob("*/*.md")}
    return [passage for passage in read_lore(shipped, owners, others) if passage.source not in replaced]


def read_lore_of(shipped: Path, persona_id: str, home: Path, others: Iterable[str] = ()) -> list[Passage]:
    """What one persona for everybody, and the world, have without what servers have added. Raises `LoreError`."""
    owners = (persona_id, WORLD)
    return read_shipped(shipped, owners, home, others) + [
        passage
        for owner in owners
        for path in _operators_files(home, owner)
        for passage in passages_of(guild_owner(OPERATOR, owner), f"{owner}/{path.name}", read_lore_file(path)[1])
    ]


def _operators_files(home: Path, owner: str) -> list[Path]:
    return sorted((home / "lore" / str(OPERATOR) / owner).glob("*.md"))
