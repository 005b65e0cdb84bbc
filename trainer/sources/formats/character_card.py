"""Character cards (V1, V2, V3, YAML, TOML): example dialogues, greetings and the character book."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from personas.card.card_book import book_entries
from personas.card.card_reader import parse_card
from personas.card.other_spellings import looks_like_yaml, with_v1_names
from personas.card.spec_card import V1_TEXT_FIELDS, Card
from personas.card.toml_card import normalise_examples, stated_id, to_persona
from personas.errors import CardError, MaterialError
from personas.ids import readable_id
from personas.lore.lorebook_entry import LorebookEntry
from personas.prompt.macros import settle_macros
from personas.prompt.renderer import EXAMPLE_LINE_PATTERN, EXAMPLE_USER, fill_macros, system_text
from personas.schemas.chat import Persona, fold_name
from trainer.sources.conversation import Conversation, RejectedRecord, SourceMessage, SourceSpeaker
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

MAX_BYTES = 64 << 20
GREETING_PROMPT = "Hello."  # prompt that a greeting answers; cards have none
GREETINGS = ("alternate_greetings", "group_only_greetings")
TOML_CARD = re.compile(r"^id *= *[\"'].*?^name *= *[\"']", re.MULTILINE | re.DOTALL)
YAML_KEY = re.compile(r"^(\w+)[ \t]*:(?=\s)", re.MULTILINE)
MAX_YAML_HEAD = 1 << 12
JSON_CARD = re.compile(
    r'"spec"\s*:\s*"chara_card|"(?:first_mes|mes_example|char_persona|char_greeting)"\s*:'
)
USER = SourceSpeaker("user", (EXAMPLE_USER,))


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the card's character's lines as conversations. Raises `MaterialError` for an unreadable
    card.
    """
    try:
        card = parse_card(file.read(MAX_BYTES), file.name)
        persona = to_persona(card, file.name, readable_id(card.name))
    except CardError as error:
        raise MaterialError(error.message, error.advice) from None
    converter = _CardConverter(card, persona, options, options.source or file.name)
    records = [
        *converter.examples(),
        *converter.greetings(),
        *map(converter.entry, book_entries(card)),
    ]
    if not records:
        message = f"{file.name} is a card without examples, greetings or a character book."
        raise MaterialError(message, "Nothing can be learned from it.")
    yield from (RejectedRecord(remark.what, remark.why, rows=0) for remark in card.remarks)
    yield from records


class _CardConverter:
    """Converts the parts of a card to conversations."""

    def __init__(self, card: Card, persona: Persona, options: ReadOptions, source: str) -> None:
        self._card = card
        self._persona = persona
        self._options = options
        self._source = source
        self._speaker = SourceSpeaker(
            persona.id, (persona.name,), is_persona=_is_requested_persona(card, persona, options)
        )

    def examples(self) -> Iterator[Conversation | RejectedRecord]:
        """Yield the example dialogues. Prose examples describe the character and are rejected."""
        examples = self._settled(self._card.text("mes_example"))
        examples = normalise_examples(examples, self._persona.name, self._persona.nickname)
        dialogues = [dialogue.strip() for dialogue in examples.split("<START>") if dialogue.strip()]
        for number, dialogue in enumerate(dialogues, start=1):
            row = f"mes_example {number}"
            before, *parts = EXAMPLE_LINE_PATTERN.split(dialogue)
            sides = [side.lower() == "char" for side in parts[::2]]
            turns = list(zip(sides, parts[1::2], strict=True))
            if before.strip() or not turns:
                yield RejectedRecord(row, "prose, not a dialogue of {{user}} and {{char}}")
            else:
                yield self._conversation(row, turns)

    def greetings(self) -> Iterator[Conversation | RejectedRecord]:
        """Yield the greetings, each as the answer to somebody who arrives."""
        texts = [("first_mes", self._card.text("first_mes"))]
        for key in GREETINGS:
            for number, text in enumerate(self._card.texts(key), start=1):
                texts.append((f"{key} {number}", text))
        for row, text in texts:
            settled = self._settled(text)
            if settled.strip():
                yield self._conversation(row, [(False, GREETING_PROMPT), (True, settled)])
            elif row != "first_mes":  # that one is always there
                yield RejectedRecord(row, "no text")

    def entry(self, entry: LorebookEntry) -> Conversation | RejectedRecord:
        """Convert a book entry to an answer of the character; entries about the character itself
        remain lore.
        """
        row = f"book {entry.number + 1}"
        if entry.unused:
            return RejectedRecord(row, entry.unused)
        if not entry.topic:
            return RejectedRecord(row, "no topic to ask about")
        names = filter(None, (self._persona.name, self._persona.nickname))
        if any(name in entry.text for name in names):
            return RejectedRecord(row, "about the character, not in its words: use it as lore")
        return self._conversation(row, [(False, f"{entry.topic}?"), (True, entry.text)])

    def _settled(self, text: str) -> str:
        """Give macros the values that they have in the card's prompt."""
        return settle_macros(text, self._persona.name).text

    def _conversation(self, row: str, turns: list[tuple[bool, str]]) -> Conversation:
        messages = []
        for by_persona, text in turns:
            filled = fill_macros(text.strip(), self._persona, EXAMPLE_USER)
            speaker = self._speaker if by_persona else USER
            messages.append(SourceMessage(speaker, filled, row))
        facts = system_text(self._persona, EXAMPLE_USER)
        options = self._options
        return Conversation.of(
            messages, self._source, options.right, system=facts, arrived=options.arrived
        )


def _is_requested_persona(card: Card, persona: Persona, options: ReadOptions) -> bool:
    """Report whether the card's character is the requested persona; true if none is requested.

    An id that was derived from the name is none of its own: another name may have the same.
    """
    nickname = options.persona.nickname if options.persona else ""
    requested = {fold_name(name) for name in (*options.all_persona_names, nickname) if name}
    own = {fold_name(persona.name), fold_name(persona.nickname), stated_id(card)}
    return not requested or not requested.isdisjoint(own)


def _recognises(peek: Peek) -> bool:
    if peek.kind == "JSON object":
        # Halves of a character, which cut texts end with, keep the head from being decoded; then
        # the beginning of the text decides.
        return _is_card(peek.head) if peek.head else bool(JSON_CARD.search(peek.text))
    if peek.kind == "zip":
        return "card.json" in peek.names
    if peek.kind == "PNG":
        return True  # only cards come as pictures
    if peek.kind not in ("text", "CSV", "TSV", "YAML"):
        return False
    return bool(TOML_CARD.search(peek.text)) or _is_yaml_card(peek.text)


def _is_yaml_card(text: str) -> bool:
    if not looks_like_yaml(text[:MAX_YAML_HEAD].encode(errors="replace")):
        return False
    return _has_card_fields(dict.fromkeys(YAML_KEY.findall(text), ""))


def _claims(names: Sequence[str]) -> Sequence[str]:
    """Claim the card, pictures and sounds of a CHARX file; `x_meta` is metadata of other
    programs.
    """
    if "card.json" not in names:
        return []
    files = ("card.json", "module.risum")
    folders = ("assets/", "x_meta/")
    return [name for name in names if name in files or name.startswith(folders)]


def _is_card(head: dict[str, Any]) -> bool:
    if str(head.get("spec", "")).startswith("chara_card"):
        return True
    return _has_card_fields(head) or _has_card_fields(head.get("data"))


def _has_card_fields(fields: object) -> bool:
    if not isinstance(fields, dict):
        return False
    fields = with_v1_names(fields)
    if "name" not in fields:
        return False
    # V1 cards have no mark, and one of their fields alone, such as `description`, is common.
    return sum(key in fields for key in V1_TEXT_FIELDS) >= 2


EXPECTED = (
    "V1, V2 or V3 as JSON, in a PNG picture or a CHARX file, YAML with name and context, or TOML with "
    "id and name"
)
FORMAT = SourceFormat(
    "character-card", "a character card", EXPECTED, matches=_recognises, read=read, claims=_claims
)
