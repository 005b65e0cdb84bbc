"""The documents that ship, as HTML for the dashboard."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from markdown_it.token import Token
from markupsafe import Markup, escape

from bot.platform.web_kit.markdown import markdown_renderer
from bot.platform.web_kit.templating import DOCUMENTS_PATH
from personas.shipped_folders import SHIPPED_DOCS

INDEX = "README"
NAME_PATTERN = re.compile(r"(howto/)?[A-Za-z0-9-]+")
PICTURE_PATTERN = re.compile(r"[a-z0-9-]+\.(png|svg|webp)")
COMMENT_PATTERN = re.compile(r"<!--.*?-->", re.DOTALL)
TAG_PATTERN = re.compile(r"</?(details|summary|code)>")
PICTURES_FOLDER = "pictures"


@dataclass(frozen=True)
class Document:
    """A document: its heading, and the HTML of the rest."""

    title: str
    body: Markup


def document_file(name: str) -> Path | None:
    """Return the file of a document such as `howto/vllm`; None if there is no such document."""
    file = SHIPPED_DOCS / f"{name}.md"
    return file if NAME_PATTERN.fullmatch(name) and file.is_file() else None


def picture_file(name: str) -> Path | None:
    """Return the file of a document's picture; None if it is not here, as in a package."""
    file = SHIPPED_DOCS / PICTURES_FOLDER / name
    return file if PICTURE_PATTERN.fullmatch(name) and file.is_file() else None


@cache
def read_document(name: str) -> Document:
    """Read and render a document. Takes some tenths of a second: call it in a thread. Raises
    `FileNotFoundError` if there is no such document, or none at all, as in an image without `docs`.
    """
    file = document_file(name)
    if file is None:
        raise FileNotFoundError(f"There is no document {name!r} in {SHIPPED_DOCS}.")
    tokens = _RENDERER.parse(file.read_text(encoding="utf-8"))
    title = name
    if tokens[0].tag == "h1":
        title = _plain_text(tokens[1])
        tokens = tokens[3:]
    _name_headings(tokens)
    for token in tokens:
        _rewrite_targets(token.children or (), PurePosixPath(name).parent)
    html = _RENDERER.renderer.render(tokens, _RENDERER.options, {})
    return Document(title, Markup(html))  # nosec B704  # of this project's own pages


def _plain_text(token: Token) -> str:
    return "".join(child.content for child in token.children or ())


def _name_headings(tokens: Sequence[Token]) -> None:
    """Give headings the ids that links to them have, as GitHub forms them."""
    used: set[str] = set()
    for opening, content in pairwise(tokens):
        if opening.type == "heading_open":
            plain = re.sub(r"[^\w\- ]", "", _plain_text(content).casefold()).replace(" ", "-")
            id = next(id for id in _numbered(plain) if id not in used)
            used.add(id)
            opening.attrSet("id", id)


def _numbered(id: str) -> Iterator[str]:
    yield id
    number = 0
    while True:
        number += 1
        yield f"{id}-{number}"


def _rewrite_targets(tokens: Sequence[Token], folder: PurePosixPath) -> None:
    """Let links lead to pages of documents, and pictures to theirs; what is not here is text."""
    is_text = False
    for token in tokens:
        if token.type == "link_open":
            target = _page_of(str(token.attrGet("href")), folder)
            is_text = target is None
            token.attrs = {} if target is None else {"href": target}
        if token.type in ("link_open", "link_close") and is_text:
            token.tag = "span"
        if token.type == "image":
            name = PurePosixPath(str(token.attrGet("src"))).name
            if picture_file(name):
                token.attrSet("src", f"{DOCUMENTS_PATH}/{PICTURES_FOLDER}/{name}")
            else:
                token.type = "text"
                token.content = f"[{token.content}]"


def _page_of(target: str, folder: PurePosixPath) -> str | None:
    """Return the address of what a document links to; None for a file that is no document."""
    if target.startswith(("https://", "http://", "#")):
        return target
    path, hash_sign, heading = target.partition("#")
    parts: list[str] = []
    for part in (folder / path).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    name = "/".join(parts).removesuffix(".md")
    if not path.endswith(".md") or document_file(name) is None:
        return None
    return f"{document_path(name)}{hash_sign}{heading}"


def document_path(name: str) -> str:
    """Return the address of a document's page."""
    return DOCUMENTS_PATH if name == INDEX else f"{DOCUMENTS_PATH}/{name}"


def _render_html(_: Any, tokens: Sequence[Token], at: int, *__: Any) -> str:
    """Render HTML of a document as text, without comments and the tags around what is folded."""
    text = TAG_PATTERN.sub("", COMMENT_PATTERN.sub("", tokens[at].content)).strip()
    if tokens[at].type == "html_inline":
        return escape(text)
    return f"<p><strong>{escape(text)}</strong></p>\n" if text else ""


def _render_code(_: Any, tokens: Sequence[Token], at: int, *__: Any) -> str:
    """Render a block of code that can be scrolled by keyboard."""
    return f'<pre tabindex="0"><code>{escape(tokens[at].content)}</code></pre>\n'


def _render_table(_: Any, __: Sequence[Token], ___: int, ____: Any, env: dict[str, int]) -> str:
    """Render a table that can be scrolled on a phone; each has a name of its own."""
    env["tables"] = env.get("tables", 0) + 1
    label = f"Table {env['tables']}"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>\n'


_RENDERER = markdown_renderer()
_RENDERER.options["html"] = True  # its tokens, which are rendered as text below
for rule in ("html_block", "html_inline"):
    _RENDERER.add_render_rule(rule, _render_html)
for rule in ("fence", "code_block"):
    _RENDERER.add_render_rule(rule, _render_code)
_RENDERER.add_render_rule("table_open", _render_table)
_RENDERER.add_render_rule("table_close", lambda *_: "</table></div>\n")
