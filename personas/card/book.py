"""A card's character book: what its author wrote about the character's world, entry by entry.

Format: "CharacterBook" of cards V2, "Lorebook" of V3. Which words call an entry up is left to our own search.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from personas.card.document import Card, Json, readable
from personas.card.macros import canonical
from personas.prompt import EXAMPLE_USER

DECORATORS = re.compile(r"\A(?:\s*@@[^\n]*(?:\n|\Z))+")
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
    title, files = f"# {_line(readable(card.name))}\n", list[str]()
    for entry in (entry for entry in book_entries(card) if not entry.unused):
        section = f"\n## {entry.topic or _line(readable(card.name))}\n\n{_no_headings(entry.text)}\n"
        section = section.encode()[: most_bytes - len(title.encode())].decode(errors="ignore")
        if files and len((files[-1] + section).encode()) <= most_bytes:
            files[-1] += section
        else:
            files.append(title + section)
    return files


def _entry(card: Card, number: int, entry: Json) -> BookEntry:
    text = _filled(card, DECORATORS.sub("", entry.get("content") or ""))
    keys = [] if entry.get("use_regex") else entry.get("keys") or []
    named = [entry.get("name"), entry.get("comment"), *(keys if isinstance(keys, list) else [])]
    topic = next((_line(_filled(card, one)) for one in named if isinstance(one, str) and one.strip()), "")
    switched_off = entry.get("enabled") is False or entry.get("disable") is True
    return BookEntry(number, topic, text, "switched off in the card" if switched_off else "" if text else "no text")


def _filled(card: Card, text: str) -> str:
    name = card.text("nickname").strip() or card.name.strip()
    return readable(canonical(text)).replace("{{char}}", readable(name)).replace("{{user}}", EXAMPLE_USER).strip()


def _line(text: str) -> str:
    return " ".join(text.split())


def _no_headings(text: str) -> str:
    """A text whose lines are no headings of the markdown around it."""
    return re.sub(r"^#{1,6}\s*", "", text, flags=re.MULTILINE)
