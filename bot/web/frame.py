"""The pages' frame: templates in one layout, a word that is shown once after a form, and the files that pages load."""

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

from bot.web.formats import FILTERS
from bot.web.here import Route
from bot.web.problems import Problem
from bot.web.sessions import is_signed_in

HOME = "/dashboard"
TEMPLATES, STATIC = (Path(__file__).with_name(name) for name in ("templates", "static"))
ASSET = re.compile(r"[a-z0-9_-]+\.(css|js|svg|png)")
SAID_COOKIE, SAID_S, MOST_SAID = "understudy_said", 60, 100
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Scripts and styles come in files of the bot's own; nothing in the page itself is run."""


@dataclass(frozen=True)
class Section:
    """A part of the dashboard as the navigation shows it."""

    name: str
    label: str
    path: str


SECTIONS = (
    Section("overview", "Overview", HOME),
    Section("personas", "Personas", f"{HOME}/personas"),
    Section("data", "Data", f"{HOME}/data"),
    Section("training", "Training", f"{HOME}/training"),
    Section("cards", "Score cards", f"{HOME}/cards"),
    Section("play", "Playground", f"{HOME}/play"),
    Section("system", "System", f"{HOME}/system"),
)


@dataclass(frozen=True)
class Fault:
    """What is wrong with a form that comes again. `field` is the id of the element that mends it, "" for none alone."""

    said: str
    field: str = ""
    label: str = ""


def faults_in(problem: Problem | None, ids: Mapping[str, str] | None = None) -> list[Fault]:
    """A problem as what is wrong with a form; `ids` are those of fields that have others than their names."""
    if problem is None or not problem.errors:
        return [Fault(str(problem))] if problem else []
    named = ((one["field"].partition(".")[0], one["detail"]) for one in problem.errors)
    return [Fault(said, (ids or {}).get(name, name), name.replace("_", " ").capitalize()) for name, said in named]


class Said:
    """What a form's answer says on the next page. It stays here: the cookie holds a number only."""

    def __init__(self) -> None:
        self._words: OrderedDict[str, str] = OrderedDict()

    def keep(self, words: str) -> str:
        """Keep the words; gives the number under which they are taken."""
        number = secrets.token_urlsafe(12)
        self._words[number] = words
        if len(self._words) > MOST_SAID:
            self._words.popitem(last=False)
        return number

    def take(self, number: str) -> str:
        """The words, once; empty where there are none."""
        return self._words.pop(number, "")


SAID = web.AppKey("said", Said)
HAS_TOWN = web.AppKey("has town", bool)
"""Whether the sandbox's page is at `/`."""

_TEMPLATES = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.filters.update(FILTERS)


def page(
    request: web.Request,
    template: str,
    *,
    title: str,
    section: str | None,
    status: int = 200,
    faults: Sequence[Fault] = (),
    **context: Any,
) -> web.Response:
    """A template below `templates/`, filled and in the frame.

    `section` is marked in the navigation: "" for none of it; with None there is no navigation. `faults` are told at the
    top, each with a link to its field, and in the title.
    Raises what jinja2 raises for a template that cannot be filled: a slip of ours, never of the visitor.
    """
    number = request.cookies.get(SAID_COOKIE, "")
    text = _TEMPLATES.get_template(template).render(
        context
        | {
            "title": title,
            "section": section,
            "faults": faults,
            "sections": SECTIONS,
            "said": request.app[SAID].take(number) if number else "",
            "has_town": request.app[HAS_TOWN],
            "signed_in": is_signed_in(request),
        }
    )
    answer = web.Response(text=text, status=status, content_type="text/html", charset="utf-8")
    answer.headers["Content-Security-Policy"] = POLICY
    if number:
        answer.del_cookie(SAID_COOKIE, path=HOME)
    return answer


def back_to(request: web.Request, path: str, said: str = "") -> web.Response:
    """After a form was done: go to a page of ours (303), which says `said` once."""
    answer = web.Response(status=303, headers={"Location": path})
    if said:
        number = request.app[SAID].keep(said)
        answer.set_cookie(SAID_COOKIE, number, max_age=SAID_S, path=HOME, httponly=True, samesite="Strict")
    return answer


def problem_page(request: web.Request, problem: Problem) -> web.Response:
    """A problem as a page, for whoever asked for one."""
    answer = page(request, "problem.html", title=problem.title, section="", status=problem.status, problem=problem)
    answer.headers.update(problem.headers)
    return answer


def wants_page(request: web.Request) -> bool:
    """Whether a browser is to show the answer: scripts and programs ask for other types."""
    return is_dashboard(request) and "text/html" in request.headers.get("Accept", "")


def is_dashboard(request: web.Request) -> bool:
    """Whether the address is a page's, or what a page's form is sent to."""
    return request.path == HOME or request.path.startswith(f"{HOME}/")


async def static_file(request: web.Request) -> web.FileResponse:
    """A style sheet, script or picture of the pages."""
    name = request.match_info["name"]
    if not ASSET.fullmatch(name) or not (STATIC / name).is_file():
        raise Problem("not-found", f"There is no file {name!r} here.")
    # Asked for each time, and sent only when it has changed: pages and scripts of two versions never meet.
    return web.FileResponse(STATIC / name, headers={"Cache-Control": "no-cache"})


async def to_dashboard(request: web.Request) -> web.Response:
    """Where no other page is at `/`."""
    return web.Response(status=302, headers={"Location": HOME})


ROUTES: tuple[Route, ...] = (("GET", "/dashboard/static/{name}", static_file),)
