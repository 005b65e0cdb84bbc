"""`/dashboard/sign-in` and `…/sign-out`: a session in exchange for the token."""

import re
from urllib.parse import quote, urlsplit

from aiohttp import web

from bot.platform.web_kit.app_context import Routes
from bot.platform.web_kit.auth import (
    AUTHENTICATOR,
    HTTPS_SESSION_COOKIE,
    SESSION_COOKIE,
    set_session_cookie,
)
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import PUBLIC_BODY_TIMEOUT_S, read_form
from bot.platform.web_kit.templating import (
    DASHBOARD,
    redirect_to,
    render_page,
)

SIGN_IN = f"{DASHBOARD}/sign-in"
SIGN_OUT = f"{DASHBOARD}/sign-out"
OWN_PAGE_PATTERN = re.compile(rf"{DASHBOARD}(?:[/?][\w\-.~%/?&=+:,@!]*)?")
routes = Routes()


@routes.add(f"GET {SIGN_IN}")
async def sign_in_page(request: web.Request) -> web.Response:
    """Page with the sign-in form; redirects those who have signed in."""
    to = own_page(request.query.get("to", DASHBOARD))
    if request.app[AUTHENTICATOR].lets_in(request):
        return redirect_to(request, to)
    return render_sign_in(request, to)


@routes.add(f"POST {SIGN_IN}")
async def sign_in(request: web.Request) -> web.Response:
    door = request.app[AUTHENTICATOR]
    fields = await read_form(request, PUBLIC_BODY_TIMEOUT_S)
    to = own_page(fields.get("to", DASHBOARD))
    try:
        is_right = not door.demands_token or door.is_right(fields.get("token", "").strip(), request)
    except Problem as problem:
        form = render_sign_in(request, to, problem.text, status=problem.status)
        form.headers.update(problem.headers)
        return form
    if not is_right:
        return render_sign_in(request, to, "That is not the token.", status=401)
    answer = redirect_to(request, to)
    # Told by the browser itself: what a proxy in between says (X-Forwarded-Proto) anybody can say.
    is_secure = urlsplit(request.headers.get("Origin", "")).scheme == "https"
    session_id = door.begin(request, is_secure=is_secure)
    set_session_cookie(answer, session_id, is_secure=is_secure)
    return answer


@routes.add(f"POST {SIGN_OUT}")
async def sign_out(request: web.Request) -> web.Response:
    request.app[AUTHENTICATOR].end(request)
    answer = redirect_to(request, SIGN_IN, "You are signed out.")
    for name in (SESSION_COOKIE, HTTPS_SESSION_COOKIE):
        is_secure = name == HTTPS_SESSION_COOKIE
        answer.del_cookie(name, path="/", httponly=True, samesite="Strict", secure=is_secure)
    answer.headers["Clear-Site-Data"] = '"cache"'
    return answer


def redirect_to_sign_in(request: web.Request) -> web.Response:
    """Redirect to the sign-in page, and back to the requested page afterwards."""
    location = SIGN_IN
    # Only a page can be returned to, not what a form asked for.
    if request.path != DASHBOARD and request.method == "GET":
        location += f"?to={quote(request.path_qs, safe='')}"
    return web.Response(status=303, headers={"Location": location})


def render_sign_in(
    request: web.Request, to: str, error: str = "", *, status: int = 200
) -> web.Response:
    return render_page(
        request,
        "sign_in.html",
        title="Sign in",
        status=status,
        to=to,
        error=error,
    )


def own_page(path: str) -> str:
    """The path, if it is one of the dashboard's; else the first page."""
    return path if OWN_PAGE_PATTERN.fullmatch(path) else DASHBOARD
