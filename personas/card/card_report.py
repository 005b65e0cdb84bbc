"""Lists the parts of a character card that are used here, have another meaning, or have no effect."""

from collections.abc import Iterator
from typing import Any

from personas.card.card_book import card_book
from personas.card.spec_card import ADAPTER_ASSET_TYPE, Card
from personas.card.toml_card import (
    EXTENSION_KEY,
    PROMPT_FIELDS,
    has_example_dialogue,
    normalise_examples,
)
from personas.prompt.macros import report_macros
from personas.schemas.import_report import ImportItem, ImportReport, as_is, not_taken, other_meaning

FOR_PEOPLE = ("creator_notes", "creator", "character_version")
KNOWN_FIELDS = {
    *PROMPT_FIELDS,
    *FOR_PEOPLE,
    "name",
    "nickname",
    "first_mes",
    "tags",
    "alternate_greetings",
    "group_only_greetings",
    "character_book",
    "extensions",
    "assets",
}
KEPT = "kept in the card for other programs"
EXTENSION_REASONS = {
    "depth_prompt": "no text is put between messages; post_history_instructions end each prompt",
    "regex_scripts": "replies are not rewritten by scripts",
    "world": "it names a lorebook that is not in the card: add that file as lore",
}


def report_card(card: Card) -> ImportReport:
    """List the outcome of a card's fields, greetings, macros, extensions and book entries."""
    return report_fields(card) + card_book(card).report()


def report_fields(card: Card) -> ImportReport:
    """List the outcome of a card without its book."""
    return ImportReport.of(_items(card))


def _items(card: Card) -> Iterator[ImportItem]:
    yield from card.remarks
    yield as_is("name")
    for key in ("nickname", *FOR_PEOPLE):
        if _is_set(card.data.get(key)):
            yield as_is(key)
    if card.tags:
        yield as_is("tags")
    yield from _prompt_items(card)
    yield from _greeting_items(card)
    yield from _asset_items(card)
    yield from _extension_items(card)
    for key in sorted(set(card.data) - KNOWN_FIELDS):
        if _is_set(card.data[key]):
            yield not_taken(key, KEPT)


def _prompt_items(card: Card) -> Iterator[ImportItem]:
    for key in PROMPT_FIELDS:
        text = card.text(key)
        if not text.strip():
            continue
        if key == "mes_example" and not has_example_dialogue(card):
            yield other_meaning(
                key, "no lines of {{user}}: and {{char}}: in it, so it describes how they speak"
            )
        else:
            yield as_is(key)
        if key == "mes_example":
            text = normalise_examples(text, card.name)
        if "{{original}}" in text.lower():
            yield not_taken(
                f"{{{{original}}}} in {key}",
                "there are no other instructions that it could stand for",
            )
        yield from report_macros(key, text)


def _greeting_items(card: Card) -> Iterator[ImportItem]:
    if greeting := card.text("first_mes"):
        yield as_is("first_mes")
        yield from report_macros("first_mes", greeting, is_greeting=True)
    for key in ("alternate_greetings", "group_only_greetings"):
        if any(text.strip() for text in card.texts(key)):
            yield not_taken(key, "kept in the card, but a channel is greeted with first_mes")


def _asset_items(card: Card) -> Iterator[ImportItem]:
    assets = [asset for asset in card.assets if asset.get("type") != ADAPTER_ASSET_TYPE]
    others = len(assets)
    if any(asset.get("type") == "icon" for asset in assets):
        others -= 1
    if others:
        yield not_taken(
            f"{others} of {len(assets)} assets", "kept in the card; only its picture is shown"
        )


def _extension_items(card: Card) -> Iterator[ImportItem]:
    extensions = card.data.get("extensions")
    if not isinstance(extensions, dict):
        return
    for name, value in sorted(extensions.items()):
        if name == EXTENSION_KEY or not _has_content(value):
            continue
        yield not_taken(f"extension {name[:60]}", EXTENSION_REASONS.get(name, KEPT))


def _has_content(value: Any) -> bool:
    """Report whether an extension says anything: SillyTavern writes an empty `depth_prompt` into
    every card.
    """
    if isinstance(value, dict) and "prompt" in value:
        return _is_set(value["prompt"])
    return _is_set(value)


def _is_set(value: Any) -> bool:
    return value not in (None, False, "", [], {})
