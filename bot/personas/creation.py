"""Creates and edits personas from the fields of a form, without a card file."""

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from typing import Self

from discord.utils import escape_markdown

from bot.personas.base_model_compat import CardTokenCount, count_card_tokens
from bot.personas.card_import import (
    MAX_UNPACKED_BYTES,
    CardImport,
    recording_contributor,
    store_new_card,
)
from bot.personas.registry import (
    ChangedCardError,
    PersonaRegistry,
)
from bot.platform.errors import RefusedError, error_text
from bot.platform.localisation import LocalisableText, gettext_lazy, join_texts
from bot.platform.messages import markdown_name
from bot.platform.request_origin import RequestOrigin
from bot.store import Store
from personas.card.card_picture import card_picture, picture_type, with_picture
from personas.card.card_reader import parse_card
from personas.card.example_lines import (
    InvalidExampleError,
    example_lines,
    format_examples,
    parse_example_lines,
)
from personas.card.png import SIGNATURE, has_card, split
from personas.card.spec_card import Card, JsonObject
from personas.card.toml_card import (
    MAX_NAME_CHARS,
    card_from_table,
    dump_toml,
    table_from_card,
    to_persona,
    visible_name,
)
from personas.errors import CardError
from personas.lore.lore_folder import CONTAINER_KEYS, WORLD_KEYS, fold_key
from personas.schemas.chat import Persona, fold_name

FIELD_LABELS = {
    "name": gettext_lazy("Name"),
    "description": gettext_lazy("Who are they?"),
    "speech": gettext_lazy("How do they talk?"),
    "mes_example": gettext_lazy("Examples"),
    "first_mes": gettext_lazy("First line"),
    "file": gettext_lazy("Picture or card"),
}
"""Labels of the form's fields, on Discord and on the page."""
FIELD_HINTS = {
    "name": gettext_lazy("They speak under this name."),
    "description": gettext_lazy("What they do, where they are, what they care about."),
    "speech": gettext_lazy("Short or long, warm or gruff, words of their own."),
    "mes_example": gettext_lazy("“You: …” and, on the next line, “NAME: …”. Three are good."),
    "first_mes": gettext_lazy("They say it once, when they get a channel."),
}
MAX_FIELD_CHARS = {
    "name": MAX_NAME_CHARS,
    "description": 3000,
    "speech": 1500,
    "mes_example": 3000,
    "first_mes": 1500,
}
"""Characters of each field, unless the card that fills it has more: that text may stay as long."""
STAMP_CHARS = 8
OPENING = "You are {{char}}."
"""Opens the prompt where the description does not say who speaks."""
MAX_PICTURE_BYTES = 8 * 2**20
CARD_BEGINNINGS = (b"{", b"[", b"PK")
"""What JSON and zip files begin with."""
CARD_SUFFIXES = (".json", ".yaml", ".yml", ".charx", ".toml")


@dataclass(frozen=True)
class CardFile:
    """A picture, or a character card, that comes with a form."""

    name: str
    content: bytes

    def card(self) -> Card | None:
        """The card in the file; None in a picture without one. Raises `CardError`."""
        if self.content.startswith(SIGNATURE):
            if not has_card(split(self.content, self.name), self.name):
                return None
        elif picture_type(self.content):
            return None
        elif not self._may_be_card():
            raise CardError(
                gettext_lazy("{file} is not a picture.", file=self.name),
                gettext_lazy("Choose a PNG, JPEG, WebP or GIF, or a character card."),
            )
        return parse_card(self.content, self.name, MAX_UNPACKED_BYTES)

    def _may_be_card(self) -> bool:
        text = self.content.removeprefix(b"\xef\xbb\xbf").lstrip()
        return text.startswith(CARD_BEGINNINGS) or self.name.lower().endswith(CARD_SUFFIXES)


@dataclass(frozen=True)
class PersonaForm:
    """The fields as they were typed; `mes_example` has lines of `You: …` and `NAME: …`."""

    name: str = ""
    description: str = ""
    speech: str = ""
    mes_example: str = ""
    first_mes: str = ""

    @classmethod
    def of_fields(cls, values: Mapping[str, object]) -> Self:
        """The form with these fields; others are left out."""
        return cls(**{key.name: str(values.get(key.name, "")) for key in fields(cls)})

    @classmethod
    def of_table(cls, table: JsonObject, name: str = "") -> Self:
        """The form with the fields of a card's table, under another name if one is given."""
        own = str(table.get("name", ""))
        examples = example_lines(str(table.get("mes_example", "")), own, name)
        return cls.of_fields({**table, "name": name or own, "mes_example": examples})

    def dump(self) -> bytes:
        """Write the fields as TOML."""
        return dump_toml(asdict(self))

    @property
    def stamp(self) -> str:
        """A short hash of the fields, by which a change of them is noticed."""
        return hashlib.sha256(self.dump()).hexdigest()[:STAMP_CHARS]

    def filled_from(self, card: Card) -> Self:
        """Fill empty fields from a card."""
        other = self.of_table(table_from_card(card), self.name.strip())
        typed = {key: value for key, value in asdict(self).items() if value.strip()}
        return replace(other, **typed)

    def card_examples(self, table: JsonObject) -> str:
        """The `mes_example` of the form's card, which takes other fields from a table. Raises
        `InvalidExampleError`.
        """
        # Unchanged ones stay as they are: conversations of several turns are more than exchanges.
        shown = [self.of_table(table, name).mes_example for name in ("", self.name)]
        if self.mes_example.strip() in shown:
            return str(table.get("mes_example", ""))
        return format_examples(parse_example_lines(self.mes_example, visible_name(self.name)))


class InvalidFormError(RefusedError):
    """A form has faults, by field; `""` stands for the form as a whole."""

    def __init__(self, wrong: Mapping[str, str]) -> None:
        super().__init__(join_texts(*wrong.values()))
        self.wrong = dict(wrong)


@dataclass(frozen=True)
class FormCheck:
    """A form with its faults by field, and the card that it makes if it has none."""

    wrong: Mapping[str, str]
    card: Card | None = None
    persona: Persona | None = None
    room: CardTokenCount | None = None

    def require(self) -> tuple[Card, Persona, CardTokenCount]:
        """The card, its persona and its tokens. Raises `InvalidFormError`."""
        if self.card is None or self.persona is None or self.room is None:
            raise InvalidFormError(self.wrong)
        return self.card, self.persona, self.room


@dataclass(frozen=True)
class AddedFile:
    """A persona after a picture or `card` was added to it, and what that has changed."""

    persona: Persona
    card: Card | None
    has_new_picture: bool = False
    has_new_fields: bool = False


@dataclass(frozen=True)
class PersonaCreation:
    """Makes personas of forms, for slash commands, pages and the API alike."""

    personas: PersonaRegistry
    store: Store
    base_model: str
    context_tokens: int

    async def create(
        self, origin: RequestOrigin, form: PersonaForm, file: CardFile | None = None
    ) -> CardImport:
        """Create a persona of the origin's guild (0: of all servers). Raises `InvalidFormError`,
        and `RefusedError` where the guild has too many personas.
        """
        check = await self.check(origin.guild_id, form, file)
        card, persona, room = check.require()
        brought = await store_new_card(
            self.personas, self.store, origin, card=card, where=persona.name
        )
        return CardImport(brought, card, room)

    async def edit(
        self, origin: RequestOrigin, persona: Persona, form: PersonaForm, *, stamp: str = ""
    ) -> Persona:
        """Replace the form's fields in the card of a guild's own persona; `stamp` is that of the
        form when it was opened.

        Raises `InvalidFormError`, `ChangedCardError` where the card has changed since, and
        `RefusedError` for a persona of all servers.
        """
        self._require_own(origin, persona)
        table = self.personas.table(persona.id)
        now = PersonaForm.of_table(table)
        if stamp and now.stamp != stamp and now != form:
            raise ChangedCardError
        check = await self.check(origin.guild_id, form, base=table, persona_id=persona.id)
        card, _, _ = check.require()
        edited = table_from_card(card, persona.id)
        with self._recording(origin, persona.id):
            return await asyncio.to_thread(self.personas.rewrite, persona.id, edited, over=table)

    async def add_file(self, origin: RequestOrigin, persona: Persona, file: CardFile) -> AddedFile:
        """Give a guild's own persona a picture, or what its card lacks from another card. Raises
        `CardError`, and as `edit`.
        """
        self._require_own(origin, persona)
        card = await asyncio.to_thread(file.card)
        table = self.personas.table(persona.id)
        stored = table_from_card(card_from_table(table, persona.name), persona.id)
        filled_table = stored
        picture: bytes | None = file.content
        if card:
            picture = card_picture(card)
            own = {key: value for key, value in table.items() if value}
            form = PersonaForm.of_table(table).filled_from(card)
            base = {**table_from_card(card), **own}
            check = await self.check(origin.guild_id, form, base=base, persona_id=persona.id)
            filled, _, _ = check.require()
            filled_table = table_from_card(filled, persona.id)
        before = await asyncio.to_thread(persona.avatar.read_bytes) if persona.avatar else None
        has_new_picture = picture is not None and picture != before
        if filled_table == stored and not has_new_picture:
            return AddedFile(persona, card)
        with self._recording(origin, persona.id):
            changed = await asyncio.to_thread(
                self.personas.rewrite, persona.id, filled_table, picture=picture, over=table
            )
        return AddedFile(
            changed,
            card,
            has_new_picture=has_new_picture,
            has_new_fields=filled_table != stored,
        )

    def _require_own(self, origin: RequestOrigin, persona: Persona) -> None:
        """Raise `RefusedError` for a persona that does not belong to the origin's guild."""
        owner = self.personas.find_owner(persona.id)
        if owner is None or owner[0] != origin.guild_id:
            raise RefusedError(
                gettext_lazy(
                    "{persona} does not belong to this server.", persona=markdown_name(persona)
                ),
                gettext_lazy("The operator can change it on the dashboard."),
            )

    def _recording(self, origin: RequestOrigin, persona_id: str) -> AbstractContextManager[None]:
        """Record a member as the contributor of the card that the block stores."""
        return recording_contributor(self.store.people, self.personas, origin, persona_id)

    async def check(
        self,
        guild_id: int,
        form: PersonaForm,
        file: CardFile | None = None,
        *,
        base: JsonObject | None = None,
        persona_id: str = "",
    ) -> FormCheck:
        """Check a form, for a new persona of a guild or for the one with this id, whose card's
        table is `base`.

        Fields that are left empty are filled from the file, if it is a card.
        """
        trained = self.store.versions.persona_ids()

        def work() -> FormCheck:
            faults: dict[str, str] = {}
            card = None
            try:
                card = file.card() if file else None
            except CardError as error:
                faults["file"] = error_text(error)
            filled = form.filled_from(card) if card else form
            fields = table_from_card(card) if card else base or {}
            faults.update(self._wrong_fields(guild_id, filled, fields, persona_id=persona_id))
            if faults:
                return FormCheck(faults)
            name = visible_name(filled.name)
            full_id = persona_id or self.personas.new_id(guild_id, name, reserved=trained)
            return self._build(filled, file, card, fields=fields, full_id=full_id)

        return await asyncio.to_thread(work)

    def _wrong_fields(
        self, guild_id: int, form: PersonaForm, table: JsonObject, *, persona_id: str
    ) -> dict[str, str]:
        wrong: dict[str, str] = {}
        for key, text in asdict(form).items():
            most = _max_chars(key, form, table)
            if "\0" in text:
                wrong[key] = gettext_lazy("It holds a NUL character. Remove it.")
            elif len(text) > most:
                wrong[key] = gettext_lazy(
                    "It has {count:,} characters; {most:,} is the most.", count=len(text), most=most
                )
        name = visible_name(form.name)
        if problem := self._name_problem(guild_id, name, persona_id):
            wrong.setdefault("name", problem)
        if not form.description.strip():
            wrong["description"] = gettext_lazy("Say in a sentence or two who they are.")
        try:
            form.card_examples(table)
        except InvalidExampleError as error:
            values = {name: escape_markdown(text) for name, text in error.values.items()}
            wrong.setdefault("mes_example", LocalisableText(error.source, values=values))
        return wrong

    def _name_problem(self, guild_id: int, name: str, persona_id: str) -> str:
        """Say what is wrong with a name; empty for a good one."""
        if not name:
            return gettext_lazy("Give them a name with at least one visible character.")
        if "discord" in name.casefold() or "clyde" in name.casefold():
            return gettext_lazy(
                "Discord allows no names with “discord” or “clyde” in them. Choose another name."
            )
        if fold_key(name) in WORLD_KEYS | CONTAINER_KEYS:
            return gettext_lazy("This name is reserved. Choose another name.")
        before = self.personas.of(guild_id).get(persona_id)
        if before is None or before.name != name:
            problem = self.personas.calling_name_problem(guild_id, name)
            if problem:
                return problem
        for other in self.personas.of(guild_id).values():
            names = filter(None, (other.name, other.nickname))
            if other.id != persona_id and fold_name(name) in map(fold_name, names):
                return gettext_lazy(
                    "There is a persona {persona} already. Choose another name.",
                    persona=markdown_name(other),
                )
        return ""

    def _build(
        self,
        form: PersonaForm,
        file: CardFile | None,
        card: Card | None,
        *,
        fields: JsonObject,
        full_id: str,
    ) -> FormCheck:
        """Make the card of a form without faults; `fields` are those that the form does not
        have.
        """
        name = visible_name(form.name)
        examples = form.card_examples(fields)
        table = {**fields, **asdict(form), "id": full_id, "name": name, "mes_example": examples}
        if not table.get("system_prompt") and not _says_who(form.description, name):
            table["system_prompt"] = OPENING
        try:
            built = card_from_table(table, name, card.picture if card else None)
            if card:
                built = replace(built, files=card.files)
            elif file and file.content:
                built = with_picture(built, file.content, file.name)
            persona = to_persona(built, name, full_id)
        except CardError as error:
            return FormCheck({"": error_text(error)})
        room = count_card_tokens(persona, self.base_model, self.context_tokens)
        if room.prose > room.most:
            text = gettext_lazy(
                "With how they talk it takes about {count:,} tokens of every prompt; at most "
                "{most:,} leave room to talk. Shorten it, or keep facts for lore.",
                count=room.prose,
                most=room.most,
            )
            return FormCheck({"description": text})
        return FormCheck({}, built, persona, room)


def _max_chars(key: str, form: PersonaForm, table: JsonObject) -> int:
    """The characters that a field of a form may have, whose other fields are those of a table."""
    if key == "name":
        return MAX_NAME_CHARS
    own = [getattr(PersonaForm.of_table(table, name), key) for name in ("", form.name)]
    return max(MAX_FIELD_CHARS[key], *map(len, own))


def _says_who(description: str, name: str) -> bool:
    return any(word in description.casefold() for word in ("{{char}}", name.casefold()))
