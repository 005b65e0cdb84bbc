"""Character book (lorebook) of a card, and its conversion to markdown lore."""

import re
from dataclasses import dataclass

from personas.card.spec_card import Card, JsonObject, replace_surrogates
from personas.card.toml_card import normalise_macros
from personas.prompt import EXAMPLE_USER

DECORATORS_PATTERN = re.compile(r"\A(?:\s*@@[^\n]*(?:\n|\Z))+")
"""Decorator lines at the head of a V3 entry, which configure when and where programs use it."""


@dataclass(frozen=True)
class BookEntry:
    """One entry. `topic` is its name or its first keyword; `unused` is the reason why it is not used, if any."""

    number: int
    topic: str
    text: str
    unused: str = ""


def book_entries(card: Card) -> list[BookEntry]:
    """Return the entries of the card's book in order, with names filled in."""
    return [_entry(card, number, entry) for number, entry in enumerate(card.book)]


def book_as_lore(card: Card, max_bytes: int = 2**30) -> list[str]:
    """Convert the book to markdown files of at most `max_bytes`, a section per usable entry; longer entries are cut."""
    title, files = f"# {_line(replace_surrogates(card.name))}\n", list[str]()
    for entry in (entry for entry in book_entries(card) if not entry.unused):
        text = re.sub(r"^#{1,6}\s*", "", entry.text, flags=re.MULTILINE)  # headings would divide the markdown
        section = f"\n## {entry.topic or _line(replace_surrogates(card.name))}\n\n{text}\n"
        section = section.encode()[: max_bytes - len(title.encode())].decode(errors="ignore")
        if files and len((files[-1] + section).encode()) <= max_bytes:
            files[-1] += section
        else:
            files.append(title + section)
    return files


def _entry(card: Card, number: int, entry: JsonObject) -> BookEntry:
    text = _fill_names(card, DECORATORS_PATTERN.sub("", entry.get("content") or ""))
    keys = [] if entry.get("use_regex") else entry.get("keys") or []
    topics = [entry.get("name"), entry.get("comment"), *(keys if isinstance(keys, list) else [])]
    topic = next((_line(_fill_names(card, one)) for one in topics if isinstance(one, str) and one.strip()), "")
    is_disabled = entry.get("enabled") is False or entry.get("disable") is True
    return BookEntry(number, topic, text, "disabled in the card" if is_disabled else "" if text else "no text")


def _fill_names(card: Card, text: str) -> str:
    name = card.text("nickname").strip() or card.name.strip()
    return (
        replace_surrogates(normalise_macros(text))
        .replace("{{char}}", replace_surrogates(name))
        .replace("{{user}}", EXAMPLE_USER)
        .strip()
    )


def _line(text: str) -> str:
    return " ".join(text.split())
