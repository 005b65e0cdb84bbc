"""Personas available on every server: shipped cards and lore, and the operator's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from personas.card import read_card
from personas.home.job_material import (
    PROJECT_STATEMENT,
    ShippedData,
    SourceMaterial,
    shipped_lore_material,
    stated_material,
)
from personas.lore import WORLD, Passage, guild_owner, read_lore, read_lore_file, split_passages
from personas.schemas.chat import Persona

OPERATOR_GUILD_ID = 0
"""The guild of what the operator has written or brought in, for everybody."""
OPERATOR_STATEMENT = "form", "the operator", "Written or brought in on the bot's own pages, for what it does with them."
"""The operator's cards and lore: right, who states it, why."""
CARD_FILE = "card.toml"


def shared_card_files(shipped: Path, home: Path) -> dict[str, Path]:
    """The card of each persona for everybody by its id, those that ship first. Raises `CardError`."""
    ships = {read_card(path).id: path for path in sorted(shipped.glob("*.toml"))}
    operators = sorted((home / "personas" / str(OPERATOR_GUILD_ID)).glob(f"*/{CARD_FILE}"))
    return ships | {path.parent.name: path for path in operators}


def read_shared_personas(shipped: Path, home: Path) -> dict[str, Persona]:
    """The personas for everybody by id. Raises `CardError` for a card that cannot be read."""
    return {persona_id: read_card(path) for persona_id, path in shared_card_files(shipped, home).items()}


def card_material(shipped: ShippedData, home: Path, persona_id: str) -> SourceMaterial:
    """The card to train with. Raises `KeyError` for no persona of everybody's."""
    path = shared_card_files(shipped.cards, home)[persona_id]
    ships = path.is_relative_to(shipped.cards)
    origin, stated = (f"cards/{path.name}", PROJECT_STATEMENT) if ships else ("the operator's card", OPERATOR_STATEMENT)
    return stated_material("card", path.name, origin, stated, (path, path.name))


def lore_material(shipped: ShippedData, home: Path, persona_id: str) -> list[SourceMaterial]:
    """The lore to train on: a persona's and the world's."""
    owners = (persona_id, WORLD)
    written = {f"{owner}/{path.name}": path for owner in owners for path in _operator_lore_files(home, owner)}
    if not written:
        return shipped_lore_material(shipped, persona_id)
    files = {path.relative_to(shipped.lore).as_posix(): path
             for owner in owners for path in sorted((shipped.lore / owner).rglob("*")) if path.is_file()}  # fmt: skip
    there = {name: path for name, path in (files | written).items() if path.stat().st_size}  # empty: left out
    copies = [(path, f"lore/{name}") for name, path in there.items()]
    return (
        [stated_material("lore", "lore", "lore that ships and the operator's", OPERATOR_STATEMENT, *copies)]
        if copies
        else []
    )


def read_shipped_lore(shipped: Path, owners: Iterable[str], home: Path, others: Iterable[str] = ()) -> list[Passage]:
    """What ships of these owners, without the files that the operator has others in place of; `others` are known."""
    replaced = {f"{path.parent.name}/{path.name}" for path in (home / "lore" / str(OPERATOR_GUILD_ID)).glob("*/*.md")}
    return [passage for passage in read_lore(shipped, owners, others) if passage.source not in replaced]


def read_persona_lore(shipped: Path, persona_id: str, home: Path, others: Iterable[str] = ()) -> list[Passage]:
    """What one persona for everybody, and the world, have without what servers have added. Raises `LoreError`."""
    owners = (persona_id, WORLD)
    return read_shipped_lore(shipped, owners, home, others) + [
        passage
        for owner in owners
        for path in _operator_lore_files(home, owner)
        for passage in split_passages(
            guild_owner(OPERATOR_GUILD_ID, owner), f"{owner}/{path.name}", read_lore_file(path)[1]
        )
    ]


def _operator_lore_files(home: Path, owner: str) -> list[Path]:
    return sorted((home / "lore" / str(OPERATOR_GUILD_ID) / owner).glob("*.md"))
