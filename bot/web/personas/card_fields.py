"""A card's fields as they are edited: what each is for, what is wrong with it, and how many tokens it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict
from pydantic import Field as Limit

from bot.card_room import MAX_GREETING, Room, count_of, require_room, room_of
from personas.card.document import Json
from personas.card.own import card_of_table, persona_of
from personas.contracts import Persona
from personas.errors import CardError

Value = str | list[str]
LARGEST_CARD_BYTES = 2**20
"""Of a card that is sent as JSON. What is longer would never fit into a prompt; its book belongs into lore."""
MOST_GREETINGS = 50
WHOLE = ""
"""The name under which stands what is wrong with no field alone."""


@dataclass(frozen=True)
class Field:
    """One field of the form. `in_prompt` says whether the model reads it."""

    name: str
    label: str
    hint: str = ""
    kind: Literal["line", "text", "list", "tags", "json"] = "text"
    rows: int = 4
    in_prompt: bool = False


PARTS: tuple[tuple[str, tuple[Field, ...]], ...] = (
    (
        "Who it is",
        (
            Field("name", "Name", "It speaks under this name. 1 to 80 characters.", "line"),
            Field("nickname", "Nickname", "What {{char}} stands for below, if not the name.", "line"),
            Field("tagline", "Tagline", "One line for menus and lists, at most 200 characters.", "line"),
            Field("tags", "Tags", "Parted by commas.", "tags"),
        ),
    ),
    (
        "What the model reads",
        (
            Field("system_prompt", "Opening instructions", "Begin every prompt.", in_prompt=True),
            Field("description", "Description", "Who {{char}} is.", rows=8, in_prompt=True),
            Field("personality", "Personality", in_prompt=True),
            Field("scenario", "Scenario", "Where the talk takes place.", in_prompt=True),
            Field("speech", "Manner of speaking", "In prose, where examples are no talk.", in_prompt=True),
            Field(
                "mes_example",
                "Example talks",
                "Lines that begin with {{user}}: or {{char}}:, talks parted by <START>. They are shown to the model "
                "before the talk, as many as fit.",
                rows=8,
                in_prompt=True,
            ),
            Field("post_history_instructions", "Closing instructions", "End every prompt, after the talk.",
                  in_prompt=True),
        ),
    ),
    (
        "What it says first",
        (
            Field("first_mes", "Greeting", "Said when it moves into a channel."),
            Field("alternate_greetings", "Other greetings", "Empty ones are left out.", "list", rows=3),
        ),
    ),
    (
        "For people",
        (
            Field("creator_notes", "Notes", "Never part of a prompt."),
            Field("license", "Licence", "", "line"),
            Field("more", "All else that the card holds", "JSON of the card formats: creator, character book, "
                  "extensions. It goes along when the card is exported.", "json", rows=6),
        ),
    ),
)  # fmt: skip
FIELDS = {field.name: field for _, fields in PARTS for field in fields}


class CardFields(BaseModel):
    """The fields of a card; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")
    name: str | None = None
    nickname: str | None = None
    tagline: str | None = None
    tags: Annotated[list[str], Limit(max_length=200)] | None = None
    system_prompt: str | None = None
    description: str | None = None
    personality: str | None = None
    scenario: str | None = None
    speech: str | None = None
    mes_example: str | None = None
    post_history_instructions: str | None = None
    first_mes: str | None = None
    alternate_greetings: Annotated[list[str], Limit(max_length=MOST_GREETINGS)] | None = None
    creator_notes: str | None = None
    license: str | None = None
    more: str | None = None

    def given(self) -> dict[str, Value]:
        """What was sent of them."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


@dataclass(frozen=True)
class Checked:
    """A card as it would be: its table, and its persona or what is wrong, by field; its room where that can be told."""

    table: Json
    persona: Persona | None
    room: Room | None
    wrong: Mapping[str, str]
    tokens: Mapping[str, int]


def with_fields(table: Json, fields: Mapping[str, Value]) -> Json:
    """A card's table with other texts in these fields; empty ones are left out of it."""
    merged = table | dict(fields)
    for name in ("tags", "alternate_greetings"):
        merged[name] = [text.strip() for text in merged.get(name, []) if text.strip()]
    return {name: value for name, value in merged.items() if value or name in ("id", "name")}


def checked(table: Json, base_model: str) -> Checked:
    """Look at a table: to be done in a thread, the first time reads the tokenizer."""
    count = count_of(base_model)
    tokens = {name: sum(map(count, _texts(table.get(name)))) for name in FIELDS}
    where = str(table["id"])
    for name in FIELDS:
        if any("\0" in text for text in _texts(table.get(name))):
            return Checked(
                table, None, None, {name: "It holds a NUL, which is no sign of a text. Take it out."}, tokens
            )
    room = None
    try:
        persona = persona_of(table, where)
        card_of_table(table, where)
        room = room_of(persona, base_model)
        require_room(persona, where, room)
    except CardError as error:
        return Checked(table, None, room, {_at_fault(table): str(error)}, tokens)
    return Checked(table, persona, room, {}, tokens)


def _texts(value: object) -> list[str]:
    return [value] if isinstance(value, str) else list(value) if isinstance(value, list) else []


def _at_fault(table: Json) -> str:
    """The first field that would be refused in a card of its own; `WHOLE` where it takes several."""
    if len(table.get("first_mes", "")) > MAX_GREETING:
        return "first_mes"
    for name in filter(table.__contains__, FIELDS):  # in their order: examples are read with a name that was found good
        alone = {"id": "probe", "name": "Probe", name: table[name]}
        if name == "mes_example":  # lines that begin with the name are the character's
            alone |= {key: table[key] for key in ("name", "nickname") if table.get(key)}
        try:
            persona_of(alone, "probe")
            if name == "more":
                card_of_table(alone, "probe")
        except CardError:
            return name
    return WHOLE
