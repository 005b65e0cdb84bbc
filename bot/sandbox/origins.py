"""Whom the sandbox answers: this machine, by its own names, and no other site's page.

A name that resolves to loopback (DNS rebinding) and requests from other sites are refused, because any page in the same
browser could otherwise speak as a member, or as the bot.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(:\d{1,5})?", re.IGNORECASE)
# What a form of another site cannot send; files come as plain bytes.
SENT_AS = ("application/json", "application/octet-stream")


@web.middleware
async def only_loopback(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a host that is not this machine, what other sites ask of it, and a body that cannot be unpacked."""
    if not is_loopback(request.host):
        raise web.HTTPForbidden(text="The sandbox answers to 127.0.0.1 and localhost only.")
    if request.path.startswith("/page-api/") and not _same_site(request):
        raise web.HTTPForbidden(text="The page's API is for the sandbox's own page only.")
    if request.path.startswith("/gateway") and not _is_own(request):
        raise web.HTTPForbidden(text="The gateway is for programs only.")
    try:
        return await handler(request)
    except web.RequestPayloadError:
        raise web.HTTPBadRequest(text="The body cannot be read.") from None


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine whatever a resolver says."""
    found = HOST.fullmatch(host)
    name = found[1].strip("[]").casefold() if found else host
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _same_site(request: web.Request) -> bool:
    # Absent outside browsers; a browser sends Origin with every POST and WebSocket, Sec-Fetch-Site with everything.
    fetched_from = request.headers.get("Sec-Fetch-Site", "same-origin")
    is_form = request.method == "POST" and request.headers.get("Content-Type", "").partition(";")[0] not in SENT_AS
    return fetched_from in ("same-origin", "none") and _is_own(request) and not is_form


def _is_own(request: web.Request) -> bool:
    own = f"http://{request.host}"
    return request.headers.get("Origin", own).casefold() == own.casefold()
