"""Discord's OAuth2: the authorization code flow with PKCE, for any member of the guilds.

The page for consent lets one choose the member. As anybody at the sandbox's page can act as any
member, its logins protect nothing.
"""

import base64
import hashlib
import hmac
import html
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from aiohttp import web

from sandbox import http_api
from sandbox.container import SharedComponents
from sandbox.network_conditions import RateLimited
from sandbox.sandbox_errors import ApiError, Json
from sandbox.wire_faults import RequestFault

AUTHORIZE_PATH = "/oauth2/authorize"
CODE_LIFETIME_S = 60.0
TOKEN_LIFETIME_S = 604_800
MAX_KEPT = 100
SCOPES = frozenset({"identify", "guilds"})
PARAMETERS = (
    "client_id", "redirect_uri", "response_type", "scope", "state", "code_challenge",
    "code_challenge_method",
)  # fmt: skip
PAGE_HEADERS = {
    # The form's answer leads to the application, which may listen on another port.
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self' http://127.0.0.1:* http://localhost:*",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with none, browsers send the form with `Origin: null`
}
T = TypeVar("T")
ApiHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OAuth2Refusal(Exception):
    """An error of OAuth2 (RFC 6749): its status and code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class IssuedCode:
    """An authorization code: whose it is, and what it was asked for with."""

    user_id: str
    redirect_uri: str
    challenge: str
    scope: str
    at: float


@dataclass
class OAuth2Server:
    """Issues codes and tokens. `revoked` counts the tokens that were revoked, `tokens` are valid."""

    shared: SharedComponents
    client_secret: str = ""
    """The secret that is accepted; any while it is empty."""
    codes: OrderedDict[str, IssuedCode] = field(default_factory=OrderedDict)
    tokens: OrderedDict[str, tuple[str, str]] = field(default_factory=OrderedDict)
    """Users and scopes, by token."""
    revoked: int = 0

    def require_request(self, asked: dict[str, str]) -> str:
        """Return what is wrong with a request for authorization; empty if nothing is."""
        if asked.get("client_id") != self.shared.guilds[0].guild.bot_id:
            return "Unknown application: client_id is not the bot's."
        target = urlsplit(asked.get("redirect_uri", ""))
        if target.scheme not in ("http", "https") or not http_api.is_loopback(target.netloc):
            return "redirect_uri has to be an address of this machine."
        if asked.get("response_type") != "code":
            return "response_type has to be code."
        if not set(asked.get("scope", "").split()) <= SCOPES or not asked.get("scope"):
            return f"scope can have {' and '.join(sorted(SCOPES))}."
        method = asked.get("code_challenge_method", "S256" if "code_challenge" in asked else "")
        if method not in ("", "S256"):
            return "code_challenge_method has to be S256."
        return ""

    def issue_code(self, user_id: str, asked: dict[str, str]) -> str:
        """Issue a code to the application, on behalf of a user."""
        code = secrets.token_urlsafe(24)
        self.codes[code] = IssuedCode(
            user_id=user_id,
            redirect_uri=asked["redirect_uri"],
            challenge=asked.get("code_challenge", ""),
            scope=asked["scope"],
            at=self.shared.clock.now(),
        )
        _keep_newest(self.codes)
        return code

    def exchange(self, form: dict[str, str]) -> Json:
        """Exchange a code, once, for a token. Raises `OAuth2Refusal`."""
        if form.get("grant_type") != "authorization_code":
            raise OAuth2Refusal(400, "unsupported_grant_type")
        issued = self.codes.pop(form.get("code", ""), None)
        if issued is None or self.shared.clock.now() - issued.at > CODE_LIFETIME_S:
            raise OAuth2Refusal(400, "invalid_grant")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if issued.challenge and not hmac.compare_digest(challenge, issued.challenge):
            raise OAuth2Refusal(400, "invalid_grant")
        if form.get("redirect_uri") != issued.redirect_uri:
            raise OAuth2Refusal(400, "invalid_grant")
        token = secrets.token_urlsafe(24)
        self.tokens[token] = issued.user_id, issued.scope
        _keep_newest(self.tokens)
        return {
            "token_type": "Bearer",
            "access_token": token,
            "expires_in": TOKEN_LIFETIME_S,
            "refresh_token": secrets.token_urlsafe(24),
            "scope": issued.scope,
        }

    def revoke(self, form: dict[str, str]) -> Json:
        """Revoke a token; an unknown one is none any more either."""
        if self.tokens.pop(form.get("token", ""), None):
            self.revoked += 1
        return {}

    def require_client(self, request: web.Request) -> None:
        """Raise `OAuth2Refusal` unless the application states its id and secret."""
        kind, _, value = request.headers.get("Authorization", "").partition(" ")
        try:
            client_id, _, secret = base64.b64decode(value).decode().partition(":")
        except ValueError:
            client_id = secret = ""
        is_right = not self.client_secret or hmac.compare_digest(
            secret.encode(), self.client_secret.encode()
        )
        is_known = client_id == self.shared.guilds[0].guild.bot_id and bool(secret)
        if kind != "Basic" or not is_known or not is_right:
            raise OAuth2Refusal(401, "invalid_client")

    def require_user(self, request: web.Request, scope: str) -> str:
        """Return the id of the user whose token came. Raises `ApiError`."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        user_id, scopes = self.tokens.get(token, ("", ""))
        if kind != "Bearer" or scope not in scopes.split():
            raise ApiError(0)
        return user_id

    def user(self, user_id: str) -> Json:
        """Return an account. Raises `ApiError` 10007."""
        user = self.shared.find_user(user_id)
        if user is None:
            raise ApiError(10007)
        return user | {"locale": "en-US", "mfa_enabled": False}

    def guilds_of(self, user_id: str) -> list[Json]:
        """List the guilds of an account, with its permissions there."""
        listed = []
        for container in self.shared.guilds:
            guild = container.guild
            if guild.find_member(user_id):
                listed.append(
                    {
                        "id": guild.id,
                        "name": guild.seed.name,
                        "icon": None,
                        "banner": None,
                        "owner": guild.shape()["owner_id"] == user_id,
                        "permissions": str(guild.permissions_of(user_id)),
                        "features": [],
                    }
                )
        return listed

    def people(self) -> list[Json]:
        """List the accounts of all guilds' members, each once."""
        known = {}
        for container in self.shared.guilds:
            for member in container.guild.people():
                known[member["user"]["id"]] = member["user"]
        return list(known.values())


def mount_oauth2(app: web.Application, server: OAuth2Server, as_bot: ApiHandler) -> None:
    """Serve the endpoints. `as_bot` answers `GET /users/@me` to the bot."""
    prefix = http_api.API_PREFIX

    async def token(request: web.Request) -> web.StreamResponse:
        return await _answer_form(server, request, "POST /oauth2/token", server.exchange)

    async def revocation(request: web.Request) -> web.StreamResponse:
        return await _answer_form(server, request, "POST /oauth2/token/revoke", server.revoke)

    async def me(request: web.Request) -> web.StreamResponse:
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            return await as_bot(request)
        return _answer_user(server, request, "GET /users/@me", "identify", server.user)

    async def guilds(request: web.Request) -> web.StreamResponse:
        route = "GET /users/@me/guilds"
        return _answer_user(server, request, route, "guilds", server.guilds_of)

    async def consent(request: web.Request) -> web.StreamResponse:
        return _consent_page(server, request)

    async def decision(request: web.Request) -> web.StreamResponse:
        return await _decide(server, request)

    app.router.add_get(AUTHORIZE_PATH, consent)
    app.router.add_post(AUTHORIZE_PATH, decision)
    app.router.add_post(f"{prefix}/oauth2/token", token)
    app.router.add_post(f"{prefix}/oauth2/token/revoke", revocation)
    app.router.add_get(f"{prefix}/users/@me", me)
    app.router.add_get(f"{prefix}/users/@me/guilds", guilds)


async def _answer_form(
    server: OAuth2Server,
    request: web.Request,
    route: str,
    answer: Callable[[dict[str, str]], Json],
) -> web.StreamResponse:
    form = dict(parse_qsl(await request.text()))
    try:
        _disturb(server, request, route)
        server.require_client(request)
        return http_api.json_response(answer(form), 200, {})
    except OAuth2Refusal as refusal:
        return http_api.json_response({"error": refusal.code}, refusal.status, {})
    except ApiError as error:
        return http_api.json_response(error.body(), error.status, error.headers)


def _answer_user(
    server: OAuth2Server,
    request: web.Request,
    route: str,
    scope: str,
    answer: Callable[[str], object],
) -> web.StreamResponse:
    try:
        _disturb(server, request, route)
        return http_api.json_response(answer(server.require_user(request, scope)), 200, {})
    except OAuth2Refusal as refusal:
        return http_api.json_response({"error": refusal.code}, refusal.status, {})
    except ApiError as error:
        return http_api.json_response(error.body(), error.status, error.headers)


def _disturb(server: OAuth2Server, request: web.Request, route: str) -> None:
    """Apply the planned fault of a request. Raises `ApiError` and `OAuth2Refusal`."""
    fault = server.shared.conditions.faults.of_route(route)
    if fault in (RequestFault.LIMITED, RequestFault.LIMITED_GLOBALLY, RequestFault.BLOCKED):
        raise RateLimited(1.0, fault is RequestFault.LIMITED_GLOBALLY, {})
    if fault in (RequestFault.CUT_BEFORE, RequestFault.CUT_AFTER) and request.transport:
        request.transport.abort()
    if fault in (RequestFault.ERROR_BEFORE, RequestFault.ERROR_AFTER):
        raise OAuth2Refusal(server.shared.conditions.faults.server_error(), "server_error")


def _consent_page(server: OAuth2Server, request: web.Request) -> web.Response:
    asked = {name: request.query[name] for name in PARAMETERS if name in request.query}
    if wrong := server.require_request(asked):
        return _page(f"<p>{html.escape(wrong)}</p>", 400)
    hidden = "".join(
        f'<input type="hidden" name="{name}" value="{html.escape(value)}">'
        for name, value in asked.items()
    )
    buttons = "".join(
        f'<p><button name="user" value="{html.escape(person["id"])}">'
        f"{html.escape(person['global_name'] or person['username'])}</button></p>"
        for person in server.people()
    )
    bot = html.escape(server.shared.guilds[0].guild.bot["username"])
    return _page(
        f"<p>{bot} asks who you are, and in which guilds. Go on as</p>"
        f'<form method="post" action="{AUTHORIZE_PATH}">{hidden}{buttons}'
        '<p><button name="user" value="">Cancel</button></p></form>',
        200,
    )


async def _decide(server: OAuth2Server, request: web.Request) -> web.Response:
    origin = f"http://{request.host}"
    if request.headers.get("Origin", origin).casefold() != origin.casefold():
        raise web.HTTPForbidden(text="The form is for the sandbox's own page only.")
    form = dict(parse_qsl(await request.text()))
    asked = {name: form[name] for name in PARAMETERS if name in form}
    if wrong := server.require_request(asked):
        return _page(f"<p>{html.escape(wrong)}</p>", 400)
    result = {"error": "access_denied", "error_description": "The resource owner denied it"}
    if form.get("user") in {person["id"] for person in server.people()}:
        result = {"code": server.issue_code(form["user"], asked)}
    if "state" in asked:
        result["state"] = asked["state"]
    target = f"{asked['redirect_uri']}?{urlencode(result)}"
    return web.Response(status=302, headers={"Location": target, **PAGE_HEADERS})


def _page(body: str, status: int) -> web.Response:
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Authorize</title>'
        f"</head><body><main><h1>Authorize</h1>{body}</main></body></html>"
    )
    return web.Response(
        text=text, status=status, content_type="text/html", charset="utf-8", headers=PAGE_HEADERS
    )


def _keep_newest(kept: OrderedDict[str, T]) -> None:
    while len(kept) > MAX_KEPT:
        kept.popitem(last=False)
