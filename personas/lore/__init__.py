"""Markdown lore: split into passages, indexed by words and embeddings, retrieved with its source.

The index is a cache: one file that can be deleted at any time and is rebuilt from the markdown.
"""

from personas.lore.index import MAX_LORE_PASSAGES, MIN_SCORE, LoreIndex, LoreRanking, PassageMatch, guild_owner
from personas.lore.passages import (
    MAX_PASSAGE_WORDS,
    WORLD,
    Passage,
    parse_lore,
    read_lore,
    read_lore_file,
    split_markdown,
    split_passages,
)

__all__ = [
    "MAX_LORE_PASSAGES",
    "MAX_PASSAGE_WORDS",
    "MIN_SCORE",
    "WORLD",
    "LoreIndex",
    "LoreRanking",
    "Passage",
    "PassageMatch",
    "guild_owner",
    "parse_lore",
    "read_lore",
    "read_lore_file",
    "split_markdown",
    "split_passages",
]
