"""Markdown lore: split at headings, indexed by words and by meaning, found again with its source.

The index is a cache: one file that can be deleted at any time and is rebuilt from the markdown.
"""

from personas.lore.index import FOUND, LORE_PASSAGES, LoreIndex, Match, Weighed, guild_owner
from personas.lore.passages import (
    MAX_PASSAGE_WORDS,
    WORLD,
    Passage,
    parse_lore,
    passages_of,
    read_lore,
    read_lore_file,
    split_markdown,
)

__all__ = [
    "FOUND",
    "LORE_PASSAGES",
    "MAX_PASSAGE_WORDS",
    "WORLD",
    "LoreIndex",
    "Match",
    "Passage",
    "Weighed",
    "guild_owner",
    "parse_lore",
    "passages_of",
    "read_lore",
    "read_lore_file",
    "split_markdown",
]
