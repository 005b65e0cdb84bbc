"""`/dashboard/sign-in` and `…/sign-out`: a session in exchange for the token."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from aiohttp import web

from bot.web.bodies import form_of
from bot.web.frame import HOME, back_to, page
from bot.web.here import Route
from bot.web.problems import Problem
from bot.web.sessions import COOKIE, DOOR, address_of

SIGN_IN, SIGN_OUT = f"{HOME}/sign-in", f"{HOME}/sign-out"
OWN_PAGE = re.compile(rf"{HOME}(?:[/?][\w\-.~%/?&=+:,@!]*)?")


async def sign_in_page(request: web.Request) -> web.Response:
    """The form; whoever is let in already goes on."""
    to = _own_page(request.query.get("to", HOME))
    if request.app[DOOR].lets_in(request):
        return back_to(request, to)
    return _form(request, to)


async def sign_in(request: web.Request) -> web.Response:
    """A session for the right token."""
    door, fields = request.app[DOOR], await form_of(request)
    to = _own_page(fields.get("to", HOME))
    try:
        is_right = not door.demands_token or door.is_right(fields.get("token", "").strip(), address_of(request))
    except Problem as problem:
        form = _form(request, to, str(problem), problem.status)
        form.headers.update(problem.headers)
        return form
    if not is_right:
        return _form(request, to, "That is not the token.", 401)
    answer = back_to(request, to)
    answer.set_cookie(COOKIE, door.begin(), path="/", httponly=True, samesite="Strict", secure=_is_over_https(request))
    return answer


async def sign_out(request: web.Request) -> web.Response:
    """The session is over, here and in the browser."""
    request.app[DOOR].end(request)
    answer = back_to(request, SIGN_IN, said="You are signed out.")
    answer.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
    return answer


def to_sign_in(request: web.Request) -> web.Response:
    """Where a page is asked for by somebody who has not signed in."""
    to = f"?to={quote(request.path_qs, safe='')}" if request.path != HOME and request.method == "GET" else ""
    return web.Response(status=303, headers={"Location": SIGN_IN + to})


def _form(request: web.Request, to: str, error: str = "", status: int = 200) -> web.Response:
    return page(request, "sign_in.html", title="Sign in", section=None, status=status, to=to, error=error)


def _own_page(path: str) -> str:
    """The path, if it leads to a page of ours; else the first page's."""
    return path if OWN_PAGE.fullmatch(path) else HOME


def _is_over_https(request: web.Request) -> bool:
    # Told by the browser itself: what a proxy in between says (X-Forwarded-Proto) anybody can say.
    return urlsplit(request.headers.get("Origin", "")).scheme == "https"


ROUTES: tuple[Route, ...] = (
    ("GET", SIGN_IN, sign_in_page),
    ("POST", SIGN_IN, sign_in),
    ("POST", SIGN_OUT, sign_out),
)
