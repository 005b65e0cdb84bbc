"""Edits a character card: its fields, their validation and token counts, a preview reply, and
saving.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field as Limit

from bot.chat.filtered_reply import FilteredReply, stream_filtered_reply
from bot.chat.model_names import ChatModel, find_model
from bot.openai_api.web.responses import lore_json
from bot.personas.base_model_compat import (
    MAX_GREETING_CHARS,
    CardTokenCount,
    count_card_tokens,
    load_token_counter,
    require_token_budget,
    token_counter_or_estimate,
)
from bot.personas.web.lookup import OwnedPersona
from bot.platform.localisation import gettext_lazy
from bot.platform.messages import markdown_name
from bot.platform.request_origin import OPERATOR_ORIGIN
from bot.platform.web_kit.problems import Problem, field_error
from bot.platform.web_kit.request_body import errors_as_problems
from bot.safety.human_question import whole_answer
from bot.services import Services
from personas.card.card_report import report_card
from personas.card.spec_card import JsonObject
from personas.card.toml_card import card_from_table, persona_from_table
from personas.errors import CardError
from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.base import FrozenModel
from personas.schemas.chat import ChatRequest, Persona, Turn
from personas.schemas.import_report import ImportReport

FieldValue = str | list[str]
MAX_CARD_BODY_BYTES = 2**20
"""Larger cards would never fit into a prompt; their books belong into lore."""
MAX_GREETINGS = 50
MAX_MESSAGE_CHARS = 4000
REPLY_FIELDS = ("version", "prompt_tokens", "new_tokens", "finish", "shortened", "repeated")
WHOLE_CARD = ""
"""The key of errors that belong to no single field."""


@dataclass(frozen=True)
class CardField:
    """A field of the form. `in_prompt`: the model reads it."""

    name: str
    label: str
    hint: str = ""
    kind: Literal["line", "text", "list", "tags", "json"] = "text"
    rows: int = 4
    in_prompt: bool = False


FIELD_GROUPS: tuple[tuple[str, tuple[CardField, ...]], ...] = (
    (
        "Identity",
        (
            CardField(
                "name",
                "Name",
                "It speaks under this name. 1 to 80 characters.",
                "line",
            ),
            CardField(
                "nickname",
                "Nickname",
                "What {{char}} stands for below, if not the name.",
                "line",
            ),
            CardField(
                "tagline",
                "Tagline",
                "One line for menus and lists, at most 200 characters.",
                "line",
            ),
            CardField("tags", "Tags", "Separated by commas.", "tags"),
        ),
    ),
    (
        "Text for the model",
        (
            CardField(
                "system_prompt",
                "Opening instructions",
                "Begin every prompt.",
                in_prompt=True,
            ),
            CardField(
                "description",
                "Description",
                "Who {{char}} is.",
                rows=8,
                in_prompt=True,
            ),
            CardField("personality", "Personality", in_prompt=True),
            CardField(
                "scenario",
                "Scenario",
                "Where the talk takes place.",
                in_prompt=True,
            ),
            CardField(
                "speech",
                "Manner of speaking",
                "In prose, beside or in place of example talks.",
                in_prompt=True,
            ),
            CardField(
                "mes_example",
                "Example talks",
                (
                    "Lines that begin with {{user}}: or {{char}}:, talks parted by <START>. They "
                    "are shown to the model before the talk, as many as fit."
                ),
                rows=8,
                in_prompt=True,
            ),
            CardField(
                "post_history_instructions",
                "Closing instructions",
                "End every prompt, after the talk.",
                in_prompt=True,
            ),
        ),
    ),
    (
        "Greetings",
        (
            CardField(
                "first_mes",
                "Greeting",
                "Sent when it is assigned to a channel.",
            ),
            CardField(
                "alternate_greetings",
                "Other greetings",
                "Empty ones are left out.",
                "list",
                rows=3,
            ),
            CardField(
                "asked_if_human",
                "Asked whether they are human",
                (
                    "Said to a sincere question whether they are human, in place of a model's "
                    "words. If empty, a fixed line is."
                ),
                rows=3,
            ),
        ),
    ),
    (
        "For people",
        (
            CardField("creator_notes", "Notes", "Never part of a prompt."),
            CardField("license", "Licence", "", "line"),
            CardField(
                "more",
                "Other fields of the card",
                (
                    "JSON of the card formats: creator, character book, extensions. It goes along "
                    "when the card is exported."
                ),
                "json",
                rows=6,
            ),
        ),
    ),
)
FIELDS_BY_NAME = {field.name: field for _, fields in FIELD_GROUPS for field in fields}


class CardFields(FrozenModel):
    """The fields of a card; what is left out stays as it is."""

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
    alternate_greetings: Annotated[list[str], Limit(max_length=MAX_GREETINGS)] | None = None
    asked_if_human: str | None = None
    creator_notes: str | None = None
    license: str | None = None
    more: str | None = None

    def given(self) -> dict[str, FieldValue]:
        return {name: value for name, value in self.model_dump().items() if value is not None}


@dataclass(frozen=True)
class CardCheck:
    """A checked card: its table, and its persona or errors by field; token counts if they are
    known.
    """

    table: JsonObject
    persona: Persona | None
    room: CardTokenCount | None
    wrong: Mapping[str, str]
    tokens: Mapping[str, int]


def replace_fields(table: JsonObject, fields: Mapping[str, FieldValue]) -> JsonObject:
    """A card's table with these fields replaced; empty ones are left out."""
    merged = table | dict(fields)
    for name in ("tags", "alternate_greetings"):
        merged[name] = [text.strip() for text in merged.get(name, []) if text.strip()]
    return {name: value for name, value in merged.items() if value or name in ("id", "name")}


def check_card_table(
    table: JsonObject, base_model: str, context_tokens: int, where: str
) -> CardCheck:
    """Check a card's table; `where` names it in errors. To be called in a thread, as the first call
    loads the tokenizer.
    """
    count = token_counter_or_estimate(base_model)
    texts = {name: _list_texts(table.get(name)) for name in FIELDS_BY_NAME}
    tokens = {name: sum(map(count, texts[name])) for name in texts}
    for name in texts:
        if any("\0" in text for text in texts[name]):
            return CardCheck(
                table,
                persona=None,
                room=None,
                wrong={name: "It holds a NUL character. Remove it."},
                tokens=tokens,
            )
    room = None
    try:
        persona = persona_from_table(table, where)
        card_from_table(table, where)
        room = count_card_tokens(persona, base_model, context_tokens)
        require_token_budget(persona, where, room)
    except CardError as error:
        return CardCheck(
            table,
            persona=None,
            room=room,
            wrong={_first_invalid_field(table): str(error)},
            tokens=tokens,
        )
    return CardCheck(table, persona, room=room, wrong={}, tokens=tokens)


def report_table(table: JsonObject) -> ImportReport:
    """List what is used of a stored card. To be called in a thread."""
    return report_card(card_from_table(table, str(table["id"])))


def _list_texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, list) else []


def _first_invalid_field(table: JsonObject) -> str:
    """The first field that is invalid on its own; `WHOLE_CARD` if only several together are."""
    if len(table.get("first_mes", "")) > MAX_GREETING_CHARS:
        return "first_mes"
    # In the order of the form: when examples are parsed, the name is valid.
    for name in filter(table.__contains__, FIELDS_BY_NAME):
        alone = {"id": "probe", "name": "Probe", name: table[name]}
        if name == "mes_example":  # lines that begin with the name are the character's
            alone |= {key: table[key] for key in ("name", "nickname") if table.get(key)}
        try:
            persona_from_table(alone, "probe")
            if name == "more":
                card_from_table(alone, "probe")
        except CardError:
            return name
    return WHOLE_CARD


def preview_model(owned: OwnedPersona, version: str, card: CardCheck) -> ChatModel:
    """Find a version (`live`: the current one, `base`: none) and give it this card. Raises
    `Problem`.
    """
    require_valid_card(card)
    with errors_as_problems("not-found"):
        services = owned.services
        name = f"{owned.id}@{version}"
        speaker = find_model(services.personas, services.served_versions, name)
    return replace(speaker, persona=card.persona)


def require_valid_card(card: CardCheck) -> None:
    """Raise `Problem` for an invalid card, naming its fields."""
    if card.wrong:
        errors = [field_error(name, detail) for name, detail in card.wrong.items()]
        message = f"The card is invalid: {'; '.join(card.wrong.values())}"
        raise Problem("invalid-request", message, "Correct what `errors` names.", errors=errors)


async def preview_request(owned: OwnedPersona, speaker: ChatModel, message: str) -> ChatRequest:
    return await request_to(owned.services, speaker, message)


async def request_to(services: Services, speaker: ChatModel, message: str) -> ChatRequest:
    """The request for a model's first reply to a guest."""
    turns = [Turn(EXAMPLE_USER, message)]
    builder = services.request_builder
    return await builder.request_to_model(speaker, turns, builder.sampling_of(speaker))


def reply_json(speech: FilteredReply) -> dict[str, Any]:
    reply = speech.reply
    return {
        "text": speech.text,
        **{name: getattr(reply, name) for name in REPLY_FIELDS},
        "seed": reply.used_seed,
        "lore": lore_json(reply.lore),
    }


async def preview_reply(owned: OwnedPersona, request: ChatRequest) -> dict[str, Any]:
    """Generate the whole reply, for pages without scripts. Raises `Problem`."""
    return await reply_of(owned.services, request)


def fixed_reply(services: Services, request: ChatRequest) -> str | None:
    """Return the line of a card to the question whether it is human; None for other messages."""
    now = services.time_zones.now(request.guild_id)
    return whole_answer(request.persona, request.turns[-1].text, now)


async def reply_of(services: Services, request: ChatRequest) -> dict[str, Any]:
    """Generate a whole reply. Raises `Problem`."""
    with errors_as_problems("busy"):
        async with stream_filtered_reply(
            services.reply_guard, request, fixed=fixed_reply(services, request)
        ) as speech:
            async for _ in speech:
                pass
            return reply_json(speech)


def check_owned_table(owned: OwnedPersona, table: JsonObject) -> CardCheck:
    """Check a card's table for the served base model. To be called in a thread."""
    services = owned.services
    return check_card_table(
        table,
        services.base_model,
        services.engine.context_tokens,
        where=owned.persona.name,
    )


async def check_edited_card(owned: OwnedPersona, fields: CardFields) -> CardCheck:

    def look() -> CardCheck:
        table = owned.services.personas.table(owned.id)
        return check_owned_table(owned, replace_fields(table, fields.given()))

    return await asyncio.to_thread(look)


@dataclass(frozen=True)
class CardTokens:
    """Token counts of a card: by field, `prose` in every prompt, and `examples` as far as they fit.

    `share` is of what prompt and reply hold together, `context_tokens`.
    """

    fields: dict[str, int]
    prose: int | None
    examples: int | None
    examples_used: int | None
    tokens: int | None
    context_tokens: int
    share: float | None
    exact: bool


def card_tokens(card: CardCheck, services: Services) -> CardTokens:
    names = ("prose", "examples", "examples_used", "tokens", "share")
    return CardTokens(
        fields=dict(card.tokens),
        **{name: getattr(card.room, name, None) for name in names},
        context_tokens=services.engine.context_tokens,
        exact=load_token_counter(services.base_model) is not None,
    )


async def replace_card(owned: OwnedPersona, card: CardCheck) -> Persona:
    require_valid_card(card)
    return await replace_card_table(owned, card.table)


async def replace_card_table(owned: OwnedPersona, table: JsonObject) -> Persona:
    """Save a card's table. Raises `Problem` if another persona has its name."""
    personas = owned.services.personas
    with errors_as_problems("conflict"):
        persona = await asyncio.to_thread(personas.rewrite, owned.id, table)
    edited = gettext_lazy("edited the card of {persona}", persona=f"**{markdown_name(persona)}**")
    owned.services.audit.record(owned.guild_id, OPERATOR_ORIGIN.user_id, edited)
    warm_up_prompt(owned, persona)
    return persona


def warm_up_prompt(owned: OwnedPersona, persona: Persona) -> None:
    """Warm the prefix cache with the persona's new prompt."""
    adapter = owned.services.served_versions.speaking_adapter(owned.id, owned.guild_id)
    owned.services.engine.prepare(persona, adapter)
