"""Discord's OAuth2, the authorization code flow with PKCE: who somebody is, and in which servers.

The access token is revoked as soon as that is read, and kept nowhere.
"""

import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

import aiohttp
import discord
import discord.http
from pydantic import BaseModel, TypeAdapter, ValidationError
from yarl import URL

from bot.platform.localisation import gettext_lazy, ngettext_lazy
from personas.errors import UnderstudyError

log = logging.getLogger(__name__)
SCOPES = ("identify", "guilds")
AUTHORIZE_PATH = "oauth2/authorize"
TIMEOUT = aiohttp.ClientTimeout(total=10.0)
MAX_ANSWER_BYTES = 2**20
MAX_RETRY_AFTER_S = 3600
MANAGING_PERMISSIONS = discord.Permissions(administrator=True, manage_guild=True)
CODE_ADVICE = gettext_lazy("Sign in again.")
DOWN_ADVICE = gettext_lazy("Try again in a minute.")
T = TypeVar("T")


class OAuth2Error(UnderstudyError):
    """Discord did not say who somebody is. `status` is that of the page that says so."""

    def __init__(
        self, message: str, advice: str, *, status: int = 503, retry_after_s: int = 0
    ) -> None:
        super().__init__(message, advice)
        self.status = status
        self.retry_after_s = retry_after_s


class DiscordDownError(OAuth2Error):
    """Discord does not answer, or has a fault."""


@dataclass(frozen=True)
class OAuth2Guild:
    """A server of a user. `manages`: its permissions there include Manage Server, as the list says."""

    guild_id: int
    manages: bool


@dataclass(frozen=True)
class OAuth2User:
    """A user, and the servers they are in."""

    user_id: int
    name: str
    guilds: tuple[OAuth2Guild, ...]


class _Token(BaseModel):
    access_token: str
    token_type: str
    scope: str


class _User(BaseModel):
    id: int
    username: str
    global_name: str | None = None


class _Guild(BaseModel):
    id: int
    owner: bool = False
    permissions: int = 0


_GUILDS = TypeAdapter(list[_Guild])
_JSON: TypeAdapter[Any] = TypeAdapter(Any)


# authlib's AsyncOAuth2Client is not used: it would bring cryptography and joserfc, and a second HTTP
# client beside aiohttp (httpx2), for the four requests below; and it reads answers of any length.
@dataclass(frozen=True)
class DiscordOAuth2:
    """The bot's application as an OAuth2 client."""

    client_id: int
    client_secret: str
    user_agent: str

    def authorize_url(self, *, redirect_uri: str, state: str, challenge: str) -> str:
        """Return the address at Discord where somebody consents."""
        query = {
            "client_id": self.client_id,
            "redirect_uri": redirect_uri,
            "response_type": "code",
            "scope": " ".join(SCOPES),
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "prompt": "consent",
        }
        return f"{consent_origin()}/{AUTHORIZE_PATH}?{urlencode(query)}"

    async def identify(self, *, code: str, verifier: str, redirect_uri: str) -> OAuth2User:
        """Exchange a code for a token, read whose it is, and revoke it. Raises `OAuth2Error`."""
        async with _session(self.user_agent) as session:
            token = await self._exchange(session, code, verifier, redirect_uri)
            try:
                return await _read_user(session, token.access_token)
            finally:
                await self._revoke(session, token.access_token)

    async def _exchange(
        self, session: aiohttp.ClientSession, code: str, verifier: str, redirect_uri: str
    ) -> _Token:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        status, body = await _ask(session, "POST", "/oauth2/token", data=form, headers=self._auth)
        error = body.get("error") if isinstance(body, dict) else None
        if error == "invalid_grant":
            raise OAuth2Error(
                gettext_lazy(
                    "Discord does not know this sign-in any more: it was used already, or took "
                    "too long."
                ),
                CODE_ADVICE,
                status=400,
            )
        if status == 401 or error == "invalid_client":
            log.error("Discord does not accept DISCORD_CLIENT_SECRET")
            raise OAuth2Error(
                gettext_lazy("Discord does not accept this bot's client secret."),
                gettext_lazy(
                    "Tell whoever runs the bot: the Developer Portal → OAuth2 shows it, for "
                    "DISCORD_CLIENT_SECRET."
                ),
            )
        if status != 200:
            known = error if isinstance(error, str) else "no reason"
            log.error("Discord refused a sign-in with status %d: %.40s", status, ascii(known))
            raise OAuth2Error(
                gettext_lazy("Discord refused the sign-in."),
                gettext_lazy("Tell whoever runs the bot: its log says more."),
            )
        token = _parse(_Token.model_validate, body)
        granted = set(token.scope.split())
        if token.token_type.casefold() != "bearer" or not granted >= set(SCOPES):
            await self._revoke(session, token.access_token)
            raise OAuth2Error(
                gettext_lazy("Discord granted less than the sign-in needs."),
                CODE_ADVICE,
                status=400,
            )
        return token

    async def _revoke(self, session: aiohttp.ClientSession, token: str) -> None:
        form = {"token": token, "token_type_hint": "access_token"}
        path = "/oauth2/token/revoke"
        try:
            status, _ = await _ask(session, "POST", path, data=form, headers=self._auth)
        except OAuth2Error as error:
            log.warning("the token of a sign-in was dropped, but not revoked: %s", error.message)
            return
        if status != 200:
            log.warning("the token of a sign-in was dropped, but not revoked: status %d", status)

    @property
    def _auth(self) -> dict[str, str]:
        basic = b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        return {"Authorization": f"Basic {basic}"}


def consent_origin() -> str:
    """Return the origin of the page for consent: that of Discord's API."""
    return str(URL(discord.http.Route.BASE).origin())


@asynccontextmanager
async def _session(user_agent: str) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"User-Agent": user_agent, "Accept": "application/json"}
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(headers=headers, timeout=TIMEOUT, cookie_jar=jar) as session:
        yield session


async def _read_user(session: aiohttp.ClientSession, token: str) -> OAuth2User:
    user = _parse(_User.model_validate, await _read(session, "/users/@me", token))
    guilds = []
    for guild in _parse(_GUILDS.validate_python, await _read(session, "/users/@me/guilds", token)):
        granted = discord.Permissions(guild.permissions)
        manages = guild.owner or bool(granted.value & MANAGING_PERMISSIONS.value)
        guilds.append(OAuth2Guild(guild.id, manages))
    return OAuth2User(user.id, user.global_name or user.username, tuple(guilds))


async def _read(session: aiohttp.ClientSession, path: str, token: str) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    status, body = await _ask(session, "GET", path, headers=headers)
    if status != 200:
        log.error("Discord answered GET %s of a sign-in with status %d", path, status)
        raise OAuth2Error(gettext_lazy("Discord did not say who you are."), CODE_ADVICE)
    return body


async def _ask(
    session: aiohttp.ClientSession, method: str, path: str, **options: Any
) -> tuple[int, Any]:
    """Send a request; returns the status and the JSON, None for what is none. Raises `OAuth2Error`
    where Discord does not answer, or asks to wait.
    """
    url = f"{discord.http.Route.BASE}{path}"
    try:
        async with session.request(method, url, allow_redirects=False, **options) as response:
            if response.status == 429:
                raise _wait_error(response)
            if response.status >= 500:
                raise DiscordDownError(gettext_lazy("Discord has a fault right now."), DOWN_ADVICE)
            content = bytearray()
            async for chunk in response.content.iter_chunked(2**16):
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise _unreadable_error()
            with suppress(ValueError):
                return response.status, _JSON.validate_json(bytes(content))
            return response.status, None
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        log.warning("Discord does not answer %s %s: %s", method, path, type(error).__name__)
        raise DiscordDownError(gettext_lazy("Discord does not answer."), DOWN_ADVICE) from error


def _wait_error(response: aiohttp.ClientResponse) -> OAuth2Error:
    text = response.headers.get("Retry-After", "")
    wait_s = 60
    if text.isascii() and text.isdecimal():
        wait_s = min(max(int(text[:6]), 1), MAX_RETRY_AFTER_S)
    return OAuth2Error(
        gettext_lazy("Discord asks this bot to wait."),
        ngettext_lazy("Try again in {count} second.", "Try again in {count} seconds.", wait_s),
        retry_after_s=wait_s,
    )


def _unreadable_error() -> OAuth2Error:
    return OAuth2Error(gettext_lazy("Discord's answer cannot be read."), DOWN_ADVICE)


def _parse(parse: Callable[[Any], T], body: Any) -> T:
    try:
        return parse(body)
    except ValidationError as error:
        raise _unreadable_error() from error
