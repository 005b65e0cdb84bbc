"""Cursor pagination, and parsing of query parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from aiohttp import web

from bot.web.api.openapi import ParameterSpec, integer_parameter
from bot.web.problems import Problem

DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 25, 100
PAGE_PARAMETERS = {
    "limit": integer_parameter(1, MAX_PAGE_SIZE, f"How many at most; {DEFAULT_PAGE_SIZE} if left out."),
    "after": ParameterSpec("The last entry of the page before; `links.next` has it."),
}
"""The query of a list, for `described`."""


@dataclass(frozen=True)
class PageQuery:
    """A page of a list: at most `limit` entries that follow the entry `after` (None: from the start)."""

    limit: int
    after: str | None = None


def parse_page_query(request: web.Request, *known: str) -> PageQuery:
    """The page that the query asks for. Raises `Problem` for a limit that cannot be, and for a name not in `known`."""
    require_known_parameters(request, "limit", "after", *known)
    return PageQuery(integer_query(request, "limit", 1, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE, request.query.get("after"))


def page_links(request: web.Request, page: PageQuery, last: str | None) -> dict[str, str]:
    """The links of a list: this page, and the next one where something follows on the entry `last`."""
    found = {"self": request.path_qs}
    if last is not None:
        asked = {name: value for name, value in request.query.items() if name not in ("limit", "after")}
        found["next"] = f"{request.path}?{urlencode({**asked, 'limit': page.limit, 'after': last})}"
    return found


def require_known_parameters(request: web.Request, *known: str) -> None:
    """Raise `Problem` when the query asks by what there is not, or by one thing twice."""
    if unknown := sorted(set(request.query) - set(known)):
        asked = ", ".join(known) or "nothing"
        raise Problem("bad-query", f"There is no {unknown[0]!r} to ask by.", f"Known: {asked}.")
    if len(request.query) > len(set(request.query)):
        raise Problem("bad-query", "The query has a parameter twice.", "Name it once.")


def integer_query(request: web.Request, name: str, low: int, high: int) -> int | None:
    """A whole number of the query; None where it is not there. Raises `Problem` for anything else."""
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(high)) and low <= int(text) <= high):
        raise Problem("bad-query", f"{name} is {text!r}.", f"It is a whole number from {low} to {high}.")
    return int(text)


def enum_query(request: web.Request, name: str, allowed: Sequence[str]) -> str | None:
    """One of some words of the query; None where it is not there. Raises `Problem` for any other."""
    text = request.query.get(name)
    if text is not None and text not in allowed:
        raise Problem("bad-query", f"{name} is {text!r}.", f"It is one of {', '.join(allowed)}.")
    return text
