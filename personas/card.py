"""Character cards, one TOML file each: `id` and `name`, prose for the prompt, and notes for people."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from personas.contracts import Persona
from personas.errors import CardError
from personas.prompt import example_turns

SHIPPED_CARDS = Path(__file__).parent / "cards"
MAX_CARD_BYTES = 256 * 1024
ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
PROSE = ("tagline", "description", "personality", "scenario", "first_mes", "mes_example", "creator_notes", "license")


def read_card(path: Path) -> Persona:
    """Read a card. Raises `CardError` naming the file and what is wrong with it."""
    return _persona(_table(path), path)


def read_cards(folder: Path) -> dict[str, Persona]:
    """All cards of a folder by persona id, in file order. One unreadable card is an error, not a missing persona."""
    cards = {}
    for path in sorted(folder.glob("*.toml")):
        persona = read_card(path)
        if persona.id in cards:
            raise CardError(f"Two cards in {folder} have the id {persona.id!r}.", f"Rename one; the second is {path}.")
        cards[persona.id] = persona
    return cards


def find_persona(personas: dict[str, Persona], wanted: str) -> Persona | None:
    """The persona with this id or display name, whatever the case."""
    key = wanted.strip().casefold()
    return next((p for p in personas.values() if key in (p.id.casefold(), p.name.casefold())), None)


def _table(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise CardError(f"The card {path} exceeds {MAX_CARD_BYTES // 1024} KiB.", "Move lore into lore files.")
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise CardError(f"There is no card at {path}.", "Check the path.") from None
    except UnicodeDecodeError as error:
        raise CardError(f"The card {path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise CardError(f"The card {path} is not valid TOML: {error}.", "Correct the named line.") from None
    except OSError as error:
        raise CardError(f"The card {path} cannot be read: {error.strerror}.", "Check its rights.") from None


def _persona(table: dict[str, Any], path: Path) -> Persona:
    known = {"id", "name", "avatar", "tags", *PROSE}
    if unknown := sorted(set(table) - known):
        raise CardError(f"The card {path} has unknown fields: {', '.join(unknown)}.", f"Known: {sorted(known)}.")
    fields = {key: _text(table, key, path) for key in ("id", "name", "avatar", *PROSE)}
    if not ID_PATTERN.fullmatch(fields["id"]):
        raise CardError(
            f"The card {path} needs an id of small letters, digits, '-' and '_'.", 'For instance id = "ballast".'
        )
    if not 1 <= len(fields["name"]) <= 80 or re.search("discord|clyde", fields["name"], re.IGNORECASE):
        raise CardError(
            f"The card {path} needs a name of 1 to 80 characters without 'discord' or 'clyde'.",
            "Discord refuses such webhook names.",
        )
    tags = table.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise CardError(f"The card {path}: tags must be a list of texts.", 'For instance tags = ["harbour"].')
    persona = Persona(
        id=fields["id"],
        name=fields["name"],
        tags=tuple(tags),
        avatar=path.parent / fields["avatar"] if fields["avatar"] else None,
        **{key: fields[key] for key in PROSE},
    )
    try:
        example_turns(persona)
    except ValueError as error:
        raise CardError(f"The card {path}: {error}.", "Begin each line of it with {{user}}: or {{char}}:.") from None
    return persona


def _text(table: dict[str, Any], key: str, path: Path) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise CardError(f"The card {path}: {key} must be text.", f'Write {key} = "…".')
    return value.strip()
