"""Protection against cross-site requests and DNS rebinding: checks Host, Origin and
Sec-Fetch-Site.
"""

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from bot.platform.web_kit.auth import Authenticator
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import FORM_TYPE, MAX_FORM_BYTES
from bot.platform.web_kit.templating import is_dashboard_path

HOST_PATTERN = re.compile(
    r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(?P<port>:\d{1,5})?", re.IGNORECASE
)
OWN_FETCH_SITES = ("same-origin", "none")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MULTIPART_TYPE = "multipart/form-data"
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with none browsers send our own forms with `Origin: null`
    "X-Content-Type-Options": "nosniff",
}
"""Defaults for all responses."""
HTTPS_ONLY_HEADER = ("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
"""Sent where the server has a host name. Browsers ignore it over HTTP, so it counts behind a proxy
with TLS alone.
"""
MAX_URL_CHARS = 8190
"""As in other servers; longer requests need a body."""
PARSER_LIMITS: dict[str, Any] = {"max_line_size": 2**16, "max_field_size": 2**16}
"""Server settings that let longer addresses through, so that they get a problem too."""


def require_short_url(request: web.Request) -> None:
    if len(request.raw_path) > MAX_URL_CHARS:
        message = f"The address has {len(request.raw_path)} characters, more than {MAX_URL_CHARS}."
        raise Problem("address-too-long", message, "Ask for less, or send it in a body.")


def require_same_origin(request: web.Request, authenticator: Authenticator) -> None:
    """Raise `Problem` for a foreign Host, a request from another site, and a form from no page of
    ours.
    """
    hosts = request.headers.getall("Host", [])
    # An address that is whole, as proxies are asked, names a host besides the header: that is
    # `request.host` then.
    is_own = len(hosts) == 1 and all(
        _is_own_host(host, authenticator) for host in (hosts[0], request.host)
    )
    if not is_own:
        advice = "Ask 127.0.0.1, localhost or [::1]"
        if not authenticator.is_local:
            advice += "; or this machine's address, or a name that WEB_NAMES lists"
        advice += "."
        raise Problem("not-from-here", "The Host header does not name this machine.", advice)
    if _is_cross_site(request, hosts[0]):
        advice = "Send it from a program, or from a page that this bot serves."
        raise Problem("not-from-here", "The request comes from another site.", advice)
    if request.method not in SAFE_METHODS and is_dashboard_path(request):
        _require_same_origin_form(request)


def _is_own_host(host: str, authenticator: Authenticator) -> bool:
    match = HOST_PATTERN.fullmatch(host)
    name = match["name"].strip("[]").casefold() if match else host
    if match and (
        name == "localhost"
        or name in authenticator.names
        or name + (match["port"] or "") in authenticator.names
    ):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not (authenticator.is_local or address.is_unspecified)


def _is_cross_site(request: web.Request, host: str) -> bool:
    sites = request.headers.getall("Sec-Fetch-Site", [])
    origins = request.headers.getall("Origin", [])
    if request.method in SAFE_METHODS and request.headers.get("Sec-Fetch-Mode") == "navigate":
        return False  # a link that somebody follows, and whose page the other site cannot see
    return any(site not in OWN_FETCH_SITES for site in sites) or any(
        _authority(origin).casefold() != host.casefold() for origin in origins
    )


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _require_same_origin_form(request: web.Request) -> None:
    """Require an Origin or Sec-Fetch-Site header on a form, which every browser sends."""
    if request.content_type not in (FORM_TYPE, MULTIPART_TYPE):
        return
    if "Origin" not in request.headers and request.headers.get("Sec-Fetch-Site") != "same-origin":
        message = "The form does not say which page it comes from."
        advice = "Send it from one of this bot's pages."
        raise Problem("not-from-here", message, advice)
    length = request.content_length if request.content_length is not None else MAX_FORM_BYTES + 1
    if request.content_type == FORM_TYPE and length > MAX_FORM_BYTES:
        raise Problem(
            "too-large",
            f"The form is larger than {MAX_FORM_BYTES // 2**20} MiB.",
            "Send less.",
        )
