"""Renders Markdown for pages: nothing that is HTML in it becomes HTML of the page."""

from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt


def markdown_renderer() -> MarkdownIt:
    """Create a renderer of CommonMark with tables; its links lead nowhere that a script runs."""
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    for opening in ("th_open", "td_open"):
        renderer.add_render_rule(opening, _render_cell)
    return renderer


def _render_cell(renderer: Any, tokens: Sequence[Any], at: int, options: Any, env: Any) -> str:
    """Render a table cell aligned by a class, as inline styles are forbidden."""
    if "right" in str(tokens[at].attrs.pop("style", "")):
        tokens[at].attrJoin("class", "number")
    return str(renderer.renderToken(tokens, at, options, env))
