"""Who is answered: programs and pages of this machine, under its own name.

A page of another site, open in the operator's browser, can send requests here. It is told by Sec-Fetch-Site, which
browsers set and pages cannot, and by Origin against Host. A site whose name resolves to 127.0.0.1 (DNS rebinding) is
told by Host. No answer allows another origin to read it.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from aiohttp import web

from bot.web.problems import Problem

LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
HERE = ("same-origin", "none")
SAFE = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""On every answer that sets none of its own."""


def require_here(request: web.Request) -> None:
    """Raise `Problem` for a request that is not from this machine's own programs and pages."""
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not LOOPBACK.fullmatch(hosts[0]):
        raise Problem(
            "not-from-here", "The Host header does not name this machine.", "Ask 127.0.0.1, localhost or [::1]."
        )
    if _is_foreign(request, hosts[0]):
        raise Problem(
            "not-from-here", "Another site's page asks.", "Ask from a program, or from a page that this bot serves."
        )


def _is_foreign(request: web.Request, host: str) -> bool:
    sites, origins = request.headers.getall("Sec-Fetch-Site", []), request.headers.getall("Origin", [])
    if request.method in SAFE and request.headers.get("Sec-Fetch-Mode") == "navigate":
        return False  # a link that somebody follows, and whose page the other site cannot see
    return any(site not in HERE for site in sites) or any(_authority(origin) != host for origin in origins)


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
