"""Parses the documents: fences with marks, links, headings, code spans and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGE_GLOBS = ("*.md", "docs/**/*.md", "examples/**/*.md", "data/**/README.md", "sandbox/README.md")
MARK = re.compile(r"<!-- (run|run: slow|prints|file: \S+) -->")
COMMENT = re.compile(r"\s{2,}.*|\s+#\s.*")
"""An explanation beside a command."""
COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:python -m|python examples/|model_inference|make )"
)


@dataclass(frozen=True)
class Fence:
    """A block of code. `mark` is the comment right before it ("" without one); `line` is its first
    line.
    """

    page: str
    line: int
    language: str
    mark: str
    body: str

    @property
    def runs(self) -> bool:
        return self.mark.startswith("run")

    @property
    def is_slow(self) -> bool:
        return self.mark == "run: slow"


@dataclass(frozen=True)
class Row:
    """A row of a table, with its cells as tokens. `code` returns the code spans of a cell, `links`
    its addresses.
    """

    page: str
    line: int
    cells: tuple[Token, ...]

    def text(self, column: int) -> str:
        return self.cells[column].content

    def code(self, column: int) -> list[str]:
        return [
            child.content
            for child in self.cells[column].children or ()
            if child.type == "code_inline"
        ]

    def links(self, column: int) -> list[str]:
        return _links(self.cells[column])


def pages() -> list[str]:
    """Returns every document as a path from the root."""
    found = {path for place in PAGE_GLOBS for path in ROOT.glob(place)}
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


@cache
def tokens(page: str) -> tuple[Token, ...]:
    """Parses the page with markdown-it."""
    return tuple(MarkdownIt().enable("table").parse((ROOT / page).read_text(encoding="utf-8")))


def fences(page: str) -> Iterator[Fence]:
    """Yields every fenced or indented block of code in the page."""
    before = None
    for token in tokens(page):
        if token.type in ("fence", "code_block"):
            mark = (
                MARK.fullmatch(before.content.strip())
                if before and before.type == "html_block"
                else None
            )
            line = (token.map or [0])[0] + 1
            yield Fence(page, line, token.info.strip(), mark[1] if mark else "", token.content)
        before = token


def commands(page: str) -> Iterator[tuple[int, str]]:
    """Yields every command line of ours in blocks and code spans, with its line number."""
    for fence in fences(page):
        if fence.language in ("", "sh", "console", "bash"):
            for line in fence.body.replace("\\\n", " ").splitlines():
                yield from (
                    (fence.line, command) for command in _own_commands(line.removeprefix("$ "))
                )
    for token in tokens(page):
        for child in token.children or ():
            if child.type == "code_inline":
                yield from (
                    ((token.map or [0])[0] + 1, command) for command in _own_commands(child.content)
                )


def _own_commands(line: str) -> Iterator[str]:
    joined = re.sub(r" {2,}(?=--|\[)", " ", line.strip())  # a line continued with an option
    for part in re.split(r" (?:\||&&) ", joined):
        part = re.sub(r"^\. \S+ && ", "", part)
        if COMMAND.match(part):
            yield COMMENT.sub("", part).strip()


def spans(page: str) -> Iterator[tuple[int, str]]:
    """Yields every code span with its line number."""
    for token in tokens(page):
        for child in token.children or ():
            if child.type == "code_inline":
                yield (token.map or [0])[0] + 1, child.content


def links(page: str) -> Iterator[tuple[int, str]]:
    """Yields every link and picture address with its line number."""
    for token in tokens(page):
        yield from (((token.map or [0])[0] + 1, address) for address in _links(token))


def _links(token: Token) -> list[str]:
    found = [
        str(child.attrs.get("href") or child.attrs.get("src") or "")
        for child in token.children or ()
    ]
    return [address for address in found if address]


def anchors(page: str) -> set[str]:
    """Returns the anchors of the page's headings as GitHub names them."""
    found: set[str] = set()
    for opening, inline in zip(tokens(page), tokens(page)[1:], strict=False):
        if opening.type == "heading_open":
            plain = "".join(child.content for child in inline.children or ())
            slug = re.sub(r"[^\w\- ]", "", plain.casefold()).replace(" ", "-")
            found.add(
                next(
                    name
                    for name in (slug, *(f"{slug}-{i}" for i in range(1, 99)))
                    if name not in found
                )
            )
    return found


def rows(page: str) -> Iterator[Row]:
    """Yields every row of every table's body."""
    cells: list[Token] = []
    is_body = False
    for token, after in zip(tokens(page), tokens(page)[1:], strict=False):
        is_body = {"tbody_open": True, "tbody_close": False}.get(token.type, is_body)
        if is_body and token.type == "td_open":
            cells.append(after)
        elif token.type == "tr_close" and cells:
            yield Row(page, (cells[0].map or [0])[0] + 1, tuple(cells))
            cells = []
