"""Renders the dashboard's Jinja templates, with navigation, form errors and flash messages."""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bot.web.app_context import Route
from bot.web.auth import is_signed_in
from bot.web.problems import Problem
from bot.web.template_filters import FILTERS

DASHBOARD = "/dashboard"
TEMPLATES_FOLDER, STATIC_FOLDER = (Path(__file__).with_name(name) for name in ("templates", "static"))
ASSET_PATTERN = re.compile(r"[a-z0-9_-]+\.(css|js|svg|png)")
FLASH_COOKIE, FLASH_COOKIE_AGE_S, MAX_FLASH_MESSAGES = "understudy_said", 60, 100
PAGE_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Scripts and styles come in files of the bot's own; nothing in the page itself is run."""


@dataclass(frozen=True)
class NavigationItem:
    """A part of the dashboard as the navigation shows it."""

    name: str
    label: str
    path: str


NAVIGATION = (
    NavigationItem("overview", "Overview", DASHBOARD),
    NavigationItem("personas", "Personas", f"{DASHBOARD}/personas"),
    NavigationItem("data", "Data", f"{DASHBOARD}/data"),
    NavigationItem("training", "Training", f"{DASHBOARD}/training"),
    NavigationItem("cards", "Score cards", f"{DASHBOARD}/cards"),
    NavigationItem("play", "Playground", f"{DASHBOARD}/play"),
    NavigationItem("system", "System", f"{DASHBOARD}/system"),
)


@dataclass(frozen=True)
class FormError:
    """An error in a form. `field` is the id of the element to correct, "" for the whole form."""

    said: str
    field: str = ""
    label: str = ""


def form_errors(problem: Problem | None, ids: Mapping[str, str] | None = None) -> list[FormError]:
    """A problem as what is wrong with a form; `ids` are those of fields that have others than their names."""
    if problem is None or not problem.errors:
        return [FormError(str(problem))] if problem else []
    named = ((one["field"].partition(".")[0], one["detail"]) for one in problem.errors)
    return [FormError(said, (ids or {}).get(name, name), name.replace("_", " ").capitalize()) for name, said in named]


class FlashMessages:
    """Messages to show once, on the next page. They stay on the server; the cookie holds a number."""

    def __init__(self) -> None:
        self._words: OrderedDict[str, str] = OrderedDict()

    def keep(self, words: str) -> str:
        """Keep the words; gives the number under which they are taken."""
        number = secrets.token_urlsafe(12)
        self._words[number] = words
        if len(self._words) > MAX_FLASH_MESSAGES:
            self._words.popitem(last=False)
        return number

    def take(self, number: str) -> str:
        """The words, once; empty where there are none."""
        return self._words.pop(number, "")


FLASH_MESSAGES = web.AppKey("said", FlashMessages)
HAS_SANDBOX_PAGE = web.AppKey("has town", bool)
"""Whether the sandbox's page is at `/`."""

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES_FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(FILTERS)


def render_page(
    request: web.Request,
    template: str,
    *,
    title: str,
    section: str | None,
    status: int = 200,
    faults: Sequence[FormError] = (),
    **context: Any,
) -> web.Response:
    """A template below `templates/`, filled and in the frame.

    `section` is marked in the navigation: "" for none of it; with None there is no navigation. `faults` are told at the
    top, each with a link to its field, and in the title.
    Raises what jinja2 raises for a template that cannot be filled: a slip of ours, never of the visitor.
    """
    number = request.cookies.get(FLASH_COOKIE, "")
    text = _ENVIRONMENT.get_template(template).render(
        context
        | {
            "title": title,
            "section": section,
            "faults": faults,
            "sections": NAVIGATION,
            "said": request.app[FLASH_MESSAGES].take(number) if number else "",
            "has_town": request.app[HAS_SANDBOX_PAGE],
            "signed_in": is_signed_in(request),
        }
    )
    answer = web.Response(text=text, status=status, content_type="text/html", charset="utf-8")
    answer.headers["Content-Security-Policy"] = PAGE_CONTENT_SECURITY_POLICY
    if number:
        answer.del_cookie(FLASH_COOKIE, path=DASHBOARD)
    return answer


def redirect_to(request: web.Request, path: str, said: str = "") -> web.Response:
    """Redirect to a page (303) after a form, with the message `said` shown once."""
    answer = web.Response(status=303, headers={"Location": path})
    if said:
        number = request.app[FLASH_MESSAGES].keep(said)
        answer.set_cookie(
            FLASH_COOKIE, number, max_age=FLASH_COOKIE_AGE_S, path=DASHBOARD, httponly=True, samesite="Strict"
        )
    return answer


def problem_page(request: web.Request, problem: Problem) -> web.Response:
    """Render a problem as a page."""
    answer = render_page(
        request, "problem.html", title=problem.title, section="", status=problem.status, problem=problem
    )
    answer.headers.update(problem.headers)
    return answer


def accepts_html(request: web.Request) -> bool:
    """True if the client is a browser that expects a page."""
    return is_dashboard_path(request) and "text/html" in request.headers.get("Accept", "")


def is_dashboard_path(request: web.Request) -> bool:
    """True for paths of the dashboard."""
    return request.path == DASHBOARD or request.path.startswith(f"{DASHBOARD}/")


async def static_file(request: web.Request) -> web.FileResponse:
    """A style sheet, script or picture of the pages."""
    name = request.match_info["name"]
    if not ASSET_PATTERN.fullmatch(name) or not (STATIC_FOLDER / name).is_file():
        raise Problem("not-found", f"There is no file {name!r} here.")
    # Asked for each time, and sent only when it has changed: pages and scripts of two versions never meet.
    return web.FileResponse(STATIC_FOLDER / name, headers={"Cache-Control": "no-cache"})


async def redirect_to_dashboard(request: web.Request) -> web.Response:
    """Redirect `/` to the dashboard if no other page is there."""
    return web.Response(status=302, headers={"Location": DASHBOARD})


ROUTES: tuple[Route, ...] = (("GET", "/dashboard/static/{name}", static_file),)
