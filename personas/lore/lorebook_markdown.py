"""Converts entries of a lorebook to markdown, and says how they are found."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from personas.lore.entry_rules import format_rules
from personas.lore.lorebook_entry import LorebookEntry
from personas.lore.lorebook_json import one_line


def lorebook_as_markdown(
    entries: Iterable[LorebookEntry], title: str, max_bytes: int = 2**30
) -> list[str]:
    """Convert usable entries to markdown files of at most `max_bytes`, a section each; longer
    entries are cut.
    """
    first = f"# {one_line(title)}\n"
    files: list[str] = []
    for entry in entries:
        if entry.unused:
            continue
        head = f"\n## {entry.topic or one_line(title)}\n\n"
        if comment := format_rules(entry.rules):
            head += f"{comment}\n\n"
        room_bytes = max_bytes - len(f"{first}{head}\n".encode())
        section = head + _section_text(entry.text, room_bytes) + "\n"
        if files and len((files[-1] + section).encode()) <= max_bytes:
            files[-1] += section
        else:
            files.append(first + section)
    return files


def _section_text(text: str, max_bytes: int) -> str:
    """Return an entry's text without headings and comments, which would divide the markdown; cut to
    a size.
    """
    plain = re.sub(r"^#{1,6}\s*", "", text, flags=re.MULTILINE).replace("<!--", "<! --")
    return plain.encode()[: max(0, max_bytes)].decode(errors="ignore")


class EntryUses(NamedTuple):
    """How many entries of a lorebook are given by their keys, always, or only by their words and
    meaning.
    """

    by_keys: int
    always: int
    by_meaning: int


def count_uses(entries: Iterable[LorebookEntry]) -> EntryUses:
    """Count the entries that are used, by what gives them."""
    used = [entry for entry in entries if not entry.unused]
    always = sum(entry.rules.always for entry in used)
    by_keys = sum(bool(entry.rules.keys) and not entry.rules.always for entry in used)
    return EntryUses(by_keys, always, by_meaning=len(used) - always - by_keys)
