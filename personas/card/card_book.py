"""The character book (lorebook) of a card, and its conversion to markdown lore."""

from personas.card.spec_card import Card, replace_surrogates
from personas.lore.lorebook_entry import LorebookEntry
from personas.lore.lorebook_markdown import lorebook_as_markdown
from personas.lore.lorebooks import Lorebook, read_book
from personas.prompt.renderer import EXAMPLE_USER


def card_book(card: Card) -> Lorebook:
    """Read the card's book, with names filled in; it has no entries if the card has no book."""
    name = card.text("nickname").strip() or card.name.strip()
    book = card.data.get("character_book")
    settings = book if isinstance(book, dict) else {}
    return read_book(card.book, settings, "card", name=replace_surrogates(name), guest=EXAMPLE_USER)


def book_entries(card: Card) -> list[LorebookEntry]:
    """Return the entries of the card's book in order, with names filled in."""
    return list(card_book(card).entries)


def book_as_lore(card: Card, max_bytes: int = 2**30) -> list[str]:
    """Convert the book to markdown files of at most `max_bytes`, a section per usable entry; longer
    entries are cut.
    """
    return lorebook_as_markdown(book_entries(card), replace_surrogates(card.name), max_bytes)
