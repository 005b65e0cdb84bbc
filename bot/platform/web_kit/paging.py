"""Cursor pagination, and parsing of query parameters."""

from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

from aiohttp import web

from bot.platform.web_kit.openapi import ParameterSpec, integer_parameter
from bot.platform.web_kit.problems import Problem

Item = TypeVar("Item")
DEFAULT_PAGE_SIZE = 25
MAX_PAGE_SIZE = 100
PAGE_PARAMETERS = {
    "limit": integer_parameter(
        1, MAX_PAGE_SIZE, f"How many at most; {DEFAULT_PAGE_SIZE} if left out."
    ),
    "after": ParameterSpec("The last entry of the page before; `links.next` has it."),
}
"""The query parameters of a list."""


@dataclass(frozen=True)
class PageQuery:
    """A page of a list: at most `limit` entries that follow the entry `after` (None: from the
    start).
    """

    limit: int
    after: str | None = None


def parse_page_query(request: web.Request, *known: str) -> PageQuery:
    """The requested page. Raises `Problem` for an invalid limit, and for a parameter not in
    `known`.
    """
    require_known_parameters(request, "limit", "after", *known)
    return PageQuery(
        integer_query(request, "limit", 1, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE,
        request.query.get("after"),
    )


def page_links(request: web.Request, page: PageQuery, last: str | None) -> dict[str, str]:
    """The links of a list: this page, and the next one if there are entries after `last`."""
    links = {"self": request.path_qs}
    if last is not None:
        query = {
            name: value for name, value in request.query.items() if name not in ("limit", "after")
        }
        links["next"] = f"{request.path}?{urlencode({**query, 'limit': page.limit, 'after': last})}"
    return links


def paginate(
    request: web.Request,
    page: PageQuery,
    items: Sequence[Item],
    key: Callable[[Item], str],
    noun: str = "",
) -> tuple[Sequence[Item], dict[str, str]]:
    """The items of a page, and its links.

    With a noun, `after` must be the key of an item, or a `Problem` is raised; otherwise the items
    are sorted by key.
    """
    keys = [key(item) for item in items]
    if noun and page.after is not None and page.after not in keys:
        raise Problem(
            "not-found", f"There is no {noun} {page.after[:80]!r}.", "Begin without `after`."
        )
    start = (
        0
        if page.after is None
        else keys.index(page.after) + 1
        if noun
        else bisect(keys, page.after)
    )
    end = start + page.limit
    return items[start:end], page_links(request, page, keys[end - 1] if end < len(keys) else None)


def navigation_links(page: PageQuery, links: Mapping[str, str], first: str) -> dict[str, str]:
    """The links below a list on a page, for the macro `pages`: the `next` entries, and the `first`
    ones at their address; each is empty where it leads nowhere else.
    """
    return {"first": "" if page.after is None else first, "next": links.get("next", "")}


def require_known_parameters(request: web.Request, *known: str) -> None:
    """Raise `Problem` for an unknown query parameter, and for one that is given twice."""
    if unknown := sorted(set(request.query) - set(known)):
        names = ", ".join(known) or "none"
        raise Problem(
            "bad-query", f"There is no query parameter {unknown[0]!r}.", f"Known: {names}."
        )
    if len(request.query) > len(set(request.query)):
        raise Problem("bad-query", "The query has a parameter twice.", "Name it once.")


def integer_query(request: web.Request, name: str, low: int, high: int) -> int | None:
    """A whole number in the query; None if it is missing. Raises `Problem` for anything else."""
    text = request.query.get(name)
    if text is None:
        return None
    if not (
        text.isascii()
        and text.isdecimal()
        and len(text) <= len(str(high))
        and low <= int(text) <= high
    ):
        raise Problem(
            "bad-query", f"{name} is {text!r}.", f"It is a whole number from {low} to {high}."
        )
    return int(text)


def flag_query(request: web.Request, name: str) -> bool:
    """A query parameter that is true or false; false if it is missing. Raises `Problem` for another
    value.
    """
    return enum_query(request, name, ("true", "false")) == "true"


def enum_query(request: web.Request, name: str, allowed: Sequence[str]) -> str | None:
    """One of some words in the query; None if it is missing. Raises `Problem` for any other."""
    text = request.query.get(name)
    if text is not None and text not in allowed:
        raise Problem("bad-query", f"{name} is {text!r}.", f"It is one of {', '.join(allowed)}.")
    return text
