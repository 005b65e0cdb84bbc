"""Edits the prose of cards, and leaves their other fields as they are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from personas.card.toml_card import (
    MAX_TAGLINE,
    PROMPT_FIELDS,
    dump_toml,
    normalise_examples,
    parse_table,
)
from personas.prompt.macros import edit_between_marks
from personas.schemas.chat import Persona

READ_FIELDS = (*PROMPT_FIELDS, "speech", "tagline", "first_mes")
"""Text fields that somebody may read who talks to the persona, or who writes as it."""
GREETINGS = "alternate_greetings"


def edit_card(text: str, where: Path, edit: Callable[[str], str]) -> str:
    """Return the text of a TOML card with edited prose. Raises `CardError`."""
    table = parse_table(text.encode(), where)
    if examples := table.get("mes_example"):
        nickname = table.get("nickname", "")
        table["mes_example"] = normalise_examples(examples, table["name"], nickname)
    prose = _edited({field: table.get(field, "") for field in READ_FIELDS}, edit)
    prose["tagline"] = prose["tagline"][:MAX_TAGLINE]
    greetings = [edit_between_marks(text, edit) for text in table.get(GREETINGS, ())]
    return dump_toml(table | prose | {GREETINGS: greetings}).decode()


def edit_persona(persona: Persona, edit: Callable[[str], str]) -> Persona:
    """Return a persona with edited prose."""
    prose: dict[str, Any] = {}
    prose |= _edited({field: getattr(persona, field) for field in READ_FIELDS}, edit)
    greetings = (edit_between_marks(text, edit) for text in persona.alternate_greetings)
    return replace(persona, alternate_greetings=tuple(greetings), **prose)


def _edited(prose: dict[str, str], edit: Callable[[str], str]) -> dict[str, str]:
    return {field: edit_between_marks(text, edit) for field, text in prose.items()}
