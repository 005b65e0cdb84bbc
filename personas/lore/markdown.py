"""Markdown as plain sections: prose runs on in one line; tables, lists and the lines of stat blocks keep theirs.

A table's row reads "STR: 10 (+0); DEX: 14 (+2)": each row can be read alone, wherever a passage ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from markdown_it import MarkdownIt
from markdown_it.token import Token

PARSER = MarkdownIt("commonmark").enable("table").disable(["lheading", "reference"])
"""Without headings that are underlined: in notes a line of dashes under text is a rule. References stay text."""
STRONG = re.compile(r"(\*\*\*|\*\*|___|__)(?=\S)(.+?)(?<=\S)\1")
TAG = re.compile(r"<!--.*?-->|<[^>]*>", re.DOTALL)
LABELLED = re.compile(r"(\*\*\*|\*\*|__)(?=\S).{1,60}?\1")
"""How a line of a stat block begins: **Armor Class** 10."""


@dataclass(frozen=True)
class Section:
    """What stands under one heading. `heading` names those above it too: "Title: Section"."""

    heading: str
    text: str


@dataclass
class _Draft:
    """A document on its way into sections."""

    titles: dict[int, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    prose_open: bool = False

    def section(self) -> Section:
        heading = ": ".join(title for _, title in sorted(self.titles.items()) if title)
        return Section(heading, "\n".join(self.lines))

    def begin(self, level: int, title: str) -> None:
        self.titles = {above: name for above, name in self.titles.items() if above < level} | {level: title}
        self.lines, self.prose_open = [], False

    def prose(self, text: str) -> None:
        if self.prose_open:
            self.lines[-1] += " " + text
        else:
            self.lines.append(text)
        self.prose_open = True

    def line(self, text: str) -> None:
        self.lines.append(text)
        self.prose_open = False


def sections(text: str) -> Iterator[Section]:
    """The sections of a markdown text in order, those without text left out."""
    draft, tokens = _Draft(), PARSER.parse(text)
    place = 0
    while place < len(tokens):
        token = tokens[place]
        if token.type == "heading_open" and token.level == 0:  # one in a quotation is a line of it
            if draft.lines:
                yield draft.section()
            draft.begin(int(token.tag[1:]), _plain(tokens[place + 1].content))
            place += 2
        elif token.type == "table_open":
            end = next(at for at in range(place, len(tokens)) if tokens[at].type == "table_close")
            for row in _rows(tokens[place:end]):
                draft.line(row)
            place = end
        else:
            _add(draft, token, tokens[:place])
        place += 1
    if draft.lines:
        yield draft.section()


def _add(draft: _Draft, token: Token, before: list[Token]) -> None:
    if token.type == "inline":
        _add_text(draft, token.content.strip(), before)
    elif token.type in ("fence", "code_block"):
        for line in token.content.splitlines():
            if line.strip():
                draft.line(line.strip())
    elif token.type == "html_block" and (text := _plain(token.content)):
        draft.line(text)


def _add_text(draft: _Draft, content: str, before: list[Token]) -> None:
    text = _plain(content)
    if not text:
        return
    if len(before) > 1 and before[-2].type == "list_item_open":
        draft.line(f"{_bullet(before[-2])}{text}")
    elif before[-1].type == "heading_open":
        draft.line(text)
    elif LABELLED.match(content):
        for line in content.splitlines():
            draft.line(_plain(line))
    else:
        draft.prose(text)


def _bullet(item: Token) -> str:
    return f"{item.info}{item.markup} " if item.info else "- "


def _rows(tokens: list[Token]) -> Iterator[str]:
    """A line per row of a table's body; the header alone where there is no body."""
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(_plain(token.content))
    if not rows:
        return
    header, *body = rows
    for row in body:
        cells = [f"{name}: {cell}" if name else cell for name, cell in zip(header, row, strict=False) if cell]
        if cells:
            yield "; ".join(cells)
    if not body and any(header):
        yield "; ".join(cell for cell in header if cell)


def _plain(text: str) -> str:
    """One line, without the marks of strong text; those of emphasis stay, since titles of works are written so."""
    return " ".join(STRONG.sub(r"\2", TAG.sub(" ", text)).split())
