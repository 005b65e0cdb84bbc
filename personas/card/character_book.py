"""The character book (lorebook) of a card, and its conversion to markdown lore."""

from __future__ import annotations

import re
from dataclasses import dataclass

from personas.card.spec_card import Card, JsonObject, replace_surrogates
from personas.card.toml_card import normalise_macros
from personas.prompt import EXAMPLE_USER

DECORATORS_PATTERN = re.compile(r"\A(?:\s*@@[^\n]*(?:\n|\Z))+")
"""Lines at the head of an entry that tell programs when and where to use it (V3)."""


@dataclass(frozen=True)
class BookEntry:
    """One entry. `topic` is its name or the first word that calls it up; `unused` says why it is not to be used."""

    number: int
    topic: str
    text: str
    unused: str = ""


def book_entries(card: Card) -> list[BookEntry]:
    """The entries of the card's book, in its order, with names filled in."""
    return [_entry(card, number, entry) for number, entry in enumerate(card.book)]


def book_as_lore(card: Card, most_bytes: int = 2**30) -> list[str]:
    """The book as markdown files of at most so many bytes, a section for each entry that is to be used.

    An entry that is longer than a file may be is cut at that length.
    """
    title, files = f"# {_line(replace_surrogates(card.name))}\n", list[str]()
    for entry in (entry for entry in book_entries(card) if not entry.unused):
        section = f"\n## {entry.topic or _line(replace_surrogates(card.name))}\n\n{_strip_headings(entry.text)}\n"
        section = section.encode()[: most_bytes - len(title.encode())].decode(errors="ignore")
        if files and len((files[-1] + section).encode()) <= most_bytes:
            files[-1] += section
        else:
            files.append(title + section)
    return files


def _entry(card: Card, number: int, entry: JsonObject) -> BookEntry:
    text = _fill_names(card, DECORATORS_PATTERN.sub("", entry.get("content") or ""))
    keys = [] if entry.get("use_regex") else entry.get("keys") or []
    named = [entry.get("name"), entry.get("comment"), *(keys if isinstance(keys, list) else [])]
    topic = next((_line(_fill_names(card, one)) for one in named if isinstance(one, str) and one.strip()), "")
    switched_off = entry.get("enabled") is False or entry.get("disable") is True
    return BookEntry(number, topic, text, "switched off in the card" if switched_off else "" if text else "no text")


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


def _strip_headings(text: str) -> str:
    """A text whose lines are no headings of the markdown around it."""
    return re.sub(r"^#{1,6}\s*", "", text, flags=re.MULTILINE)
