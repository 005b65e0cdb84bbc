"""Sections of a markdown text, with tables and lists as lines."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from markdown_it import MarkdownIt
from markdown_it.token import Token

from personas.lore.entry_rules import iter_comments

MARKDOWN_PARSER = (
    MarkdownIt("commonmark").enable("table").disable(["lheading", "reference", "inline"])
)
"""Parser of blocks, without underlined headings (in notes, dashes under text are a rule) and without
link references.
"""

STRONG_PATTERN = re.compile(r"(\*\*\*|\*\*|___|__)(?=\S)(.{1,500}?)(?<=\S)\1")
"""Bounded: many marks that nothing closes would take the square of their number."""
HTML_TAG_PATTERN = re.compile(r"<[^<>]*>")
LABELLED_LINE_PATTERN = re.compile(r"(\*\*\*|\*\*|__)(?=\S).{1,60}?\1")
"""Beginning of a line of a stat block: **Armor Class** 10."""


@dataclass(frozen=True)
class MarkdownSection:
    """Text under one heading. `heading` includes those above it: "Title: Section".

    `comments` are its lore comments (`personas.lore.entry_rules`), as YAML.
    """

    heading: str
    text: str
    comments: tuple[str, ...] = ()


@dataclass
class _SectionBuilder:
    """Section that is being read."""

    titles: dict[int, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    prose_open: bool = False

    def section(self) -> MarkdownSection:
        heading = ": ".join(title for _, title in sorted(self.titles.items()) if title)
        return MarkdownSection(heading, "\n".join(self.lines), tuple(self.comments))

    def begin(self, level: int, title: str) -> None:
        self.titles = {above: name for above, name in self.titles.items() if above < level}
        self.titles[level] = title
        self.lines = []
        self.comments = []
        self.prose_open = False

    def prose(self, text: str) -> None:
        if self.prose_open:
            self.lines[-1] += " " + text
        else:
            self.lines.append(text)
        self.prose_open = True

    def line(self, text: str) -> None:
        self.lines.append(text)
        self.prose_open = False


def parse_sections(text: str) -> Iterator[MarkdownSection]:
    """Yield the sections of a markdown text in order, without empty ones."""
    draft = _SectionBuilder()
    tokens = MARKDOWN_PARSER.parse(text)
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if token.type == "heading_open" and token.level == 0:  # headings in quotations are text
            if draft.lines:
                yield draft.section()
            draft.begin(int(token.tag[1:]), _plain_line(tokens[position + 1].content))
            position += 2
        elif token.type == "table_open":
            end = position
            while tokens[end].type != "table_close":
                end += 1
            for row in _table_rows(tokens[position:end]):
                draft.line(row)
            position = end
        else:
            _add_token(draft, token, before=tokens[max(0, position - 2) : position])
        position += 1
    if draft.lines:
        yield draft.section()


def _add_token(draft: _SectionBuilder, token: Token, before: list[Token]) -> None:
    if token.type == "inline":
        _add_text(draft, token.content.strip(), before)
    elif token.type in ("fence", "code_block"):
        for line in token.content.splitlines():
            if line.strip():
                draft.line(line.strip())
    elif token.type == "html_block":
        draft.comments += iter_comments(token.content)
        if text := _plain_line(token.content):
            draft.line(text)


def _add_text(draft: _SectionBuilder, content: str, before: list[Token]) -> None:
    text = _plain_line(content)
    if not text:
        return
    if len(before) > 1 and before[-2].type == "list_item_open":
        draft.line(f"{_bullet(before[-2])}{text}")
    elif before[-1].type == "heading_open":
        draft.line(text)
    elif LABELLED_LINE_PATTERN.match(content):
        for line in content.splitlines():
            draft.line(_plain_line(line))
    else:
        draft.prose(text)


def _bullet(item: Token) -> str:
    return f"{item.info}{item.markup} " if item.info else "- "


def _table_rows(tokens: list[Token]) -> Iterator[str]:
    """Yield a line per row of a table's body; the header alone if there is no body."""
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(_plain_line(token.content))
    if not rows:
        return
    header, *body = rows
    for row in body:
        cells = []
        for name, cell in zip(header, row, strict=False):
            if cell:
                cells.append(f"{name}: {cell}" if name else cell)
        if cells:
            yield "; ".join(cells)
    if not body and any(header):
        yield "; ".join(cell for cell in header if cell)


def _plain_line(text: str) -> str:
    """Join a text to one line without markers of strong text; those of emphasis stay, since titles
    use them.
    """
    without_tags = HTML_TAG_PATTERN.sub(" ", _without_comments(text))
    return " ".join(STRONG_PATTERN.sub(r"\2", without_tags).split())


def _without_comments(html: str) -> str:
    """Replace each `<!-- … -->` by a space."""
    kept: list[str] = []
    position = 0
    while True:
        begin = html.find("<!--", position)
        end = html.find("-->", begin + 4) if begin >= 0 else -1
        if end < 0:
            return " ".join([*kept, html[position:]])
        kept.append(html[position:begin])
        position = end + 3
