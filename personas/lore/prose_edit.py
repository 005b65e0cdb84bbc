"""Edits the prose of lore, and leaves front matter and lore comments as they are."""

import itertools
from collections.abc import Callable

from personas.errors import LoreError
from personas.lore.entry_rules import iter_comments
from personas.lore.lore_folder import parse_lore
from personas.lore.markdown_sections import MARKDOWN_PARSER
from personas.prompt.macros import edit_between_marks

COMMENT_END = "-->"


def edit_lore(text: str, edit: Callable[[str], str]) -> str:
    """Return the text of a lore file, whose lines end with line feeds, with edited headings and prose."""
    try:
        _, below = parse_lore(text, "")
    except LoreError:
        below = text  # nobody reads such a file
    parts = [text.removesuffix(below)]
    line_lengths = (len(line) + 1 for line in below.split("\n"))
    line_starts = list(itertools.accumulate(line_lengths, initial=0))
    position = 0
    for token in MARKDOWN_PARSER.parse(below):
        if token.type != "html_block" or token.map is None:
            continue
        begin = end = line_starts[token.map[0]]
        for _ in iter_comments(token.content):
            end = below.index(COMMENT_END, end) + len(COMMENT_END)
        parts += (edit_between_marks(below[position:begin], edit), below[begin:end])
        position = end
    return "".join([*parts, edit_between_marks(below[position:], edit)])
