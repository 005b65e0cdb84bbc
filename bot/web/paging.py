"""Lists in pages: how long a page is, after which entry it begins, and where the next one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from aiohttp import web

from bot.web.openapi import Param, whole
from bot.web.problems import Problem

PAGE, LONGEST_PAGE = 25, 100
PAGED = {
    "limit": whole(1, LONGEST_PAGE, f"How many at most; {PAGE} if left out."),
    "after": Param("The last entry of the page before; `links.next` has it."),
}
"""The query of a list, for `described`."""


@dataclass(frozen=True)
class Page:
    """What was asked for: at most `limit` entries, those that follow on `after` (None: from the beginning)."""

    limit: int
    after: str | None = None


def paged(request: web.Request, *known: str) -> Page:
    """The page that the query asks for. Raises `Problem` for a limit that cannot be, and for a name not in `known`."""
    require_known(request, "limit", "after", *known)
    return Page(number(request, "limit", 1, LONGEST_PAGE) or PAGE, request.query.get("after"))


def links(request: web.Request, page: Page, last: str | None) -> dict[str, str]:
    """The links of a list: this page, and the next one where something follows on the entry `last`."""
    found = {"self": request.path_qs}
    if last is not None:
        asked = {name: value for name, value in request.query.items() if name not in ("limit", "after")}
        found["next"] = f"{request.path}?{urlencode({**asked, 'limit': page.limit, 'after': last})}"
    return found


def require_known(request: web.Request, *known: str) -> None:
    """Raise `Problem` when the query asks by what there is not, or by one thing twice."""
    if unknown := sorted(set(request.query) - set(known)):
        asked = ", ".join(known) or "nothing"
        raise Problem("bad-query", f"There is no {unknown[0]!r} to ask by.", f"Known: {asked}.")
    if len(request.query) > len(set(request.query)):
        raise Problem("bad-query", "The query names something twice.", "Name it once.")


def number(request: web.Request, name: str, low: int, high: int) -> int | None:
    """A whole number of the query; None where it is not there. Raises `Problem` for anything else."""
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(high)) and low <= int(text) <= high):
        raise Problem("bad-query", f"{name} is {text!r}.", f"It is a whole number from {low} to {high}.")
    return int(text)


def choice(request: web.Request, name: str, allowed: Sequence[str]) -> str | None:
    """One of some words of the query; None where it is not there. Raises `Problem` for any other."""
    text = request.query.get(name)
    if text is not None and text not in allowed:
        raise Problem("bad-query", f"{name} is {text!r}.", f"It is one of {', '.join(allowed)}.")
    return text
