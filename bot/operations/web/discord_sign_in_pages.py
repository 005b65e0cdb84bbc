"""`/dashboard/sign-in/discord`: a member's session in exchange for a sign-in at Discord (OAuth2)."""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import web

from bot.moderation.web.access import PAGE_ACTIONS
from bot.operations.web.sign_in_pages import (
    OFFERS_DISCORD,
    SIGN_IN,
    own_page,
    render_sign_in,
)
from bot.platform.discord_kit.oauth2 import (
    DiscordDownError,
    DiscordOAuth2,
    OAuth2Error,
    OAuth2User,
)
from bot.platform.localisation import gettext_lazy, join_texts, ngettext_lazy
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.auth import AUTHENTICATOR, SignedInMember, set_session_cookie
from bot.platform.web_kit.login_states import LOGIN_TIMEOUT_S, BegunLogin, LoginStates
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import (
    CACHED_BODY,
    PUBLIC_BODY_TIMEOUT_S,
    read_body,
    read_form,
)
from bot.platform.web_kit.templating import MEMBERS_HOME, render_page
from bot.services import Services

DISCORD_SIGN_IN = f"{SIGN_IN}/discord"
CALLBACK = f"{DISCORD_SIGN_IN}/callback"
LOGIN_COOKIE = "understudy_login"
HTTPS_LOGIN_COOKIE = "__Host-understudy_login"
"""As for the session: browsers take a cookie of such a name from this host alone, over HTTPS."""
AGAIN_ADVICE = gettext_lazy("Sign in again, in this browser and within ten minutes.")
MAX_GUILDS = 50
"""Servers of a session: the bot asks Discord about each of them every minute."""
MAX_SIGN_IN_BYTES = 4096
"""Of the form that anybody may send."""
MAX_EXCHANGES = 4
"""Codes that are exchanged at Discord at once."""
routes = Routes()


@dataclass(frozen=True)
class DiscordLogin:
    """The settings and the state of sign-ins with Discord; off without a secret."""

    client_secret: str = field(default="", repr=False)
    states: LoginStates = field(default_factory=LoginStates)
    exchanges: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(MAX_EXCHANGES), repr=False
    )


DISCORD_LOGIN = web.AppKey("discord login", DiscordLogin)


@routes.add(f"POST {DISCORD_SIGN_IN}")
async def begin_sign_in(request: web.Request) -> web.Response:
    """Lead to Discord's page for consent."""
    client = _oauth2_client(request)
    request[CACHED_BODY] = await read_body(request, MAX_SIGN_IN_BYTES, PUBLIC_BODY_TIMEOUT_S)
    fields = await read_form(request)
    page = own_page(fields.get("to", MEMBERS_HOME))
    if not page.startswith(f"{MEMBERS_HOME}/"):
        page = MEMBERS_HOME
    # The browser states its own address, whose host is checked (`bot.platform.web_kit.csrf`).
    origin = urlsplit(request.headers.get("Origin", ""))
    if origin.scheme not in ("http", "https"):
        raise Problem(
            "not-from-here",
            gettext_lazy("The form does not say which page it comes from."),
            AGAIN_ADVICE,
        )
    address = request.app[AUTHENTICATOR].client_address(request)
    redirect_uri = f"{origin.scheme}://{origin.netloc}{CALLBACK}"
    login = request.app[DISCORD_LOGIN].states.begin(address, redirect_uri, page)
    location = client.authorize_url(
        redirect_uri=redirect_uri, state=login.state, challenge=login.challenge
    )
    answer = web.Response(status=303, headers={"Location": location})
    # Lax: the way back from Discord is a link from another site.
    answer.set_cookie(
        HTTPS_LOGIN_COOKIE if login.is_secure else LOGIN_COOKIE,
        login.binding,
        max_age=int(LOGIN_TIMEOUT_S),
        path="/",
        httponly=True,
        samesite="Lax",
        secure=login.is_secure,
    )
    return answer


@routes.add(f"GET {CALLBACK}")
async def complete_sign_in(request: web.Request) -> web.Response:
    """Take up the way back from Discord, once: a session, or a page that says why not."""
    client = _oauth2_client(request)
    services = get_services(request)
    states = request.app[DISCORD_LOGIN].states
    address = request.app[AUTHENTICATOR].client_address(request)
    login = states.take(
        request.query.get("state", ""),
        binding=request.cookies.get(LOGIN_COOKIE, ""),
        https_binding=request.cookies.get(HTTPS_LOGIN_COOKIE, ""),
    )
    try:
        if login is None:
            raise OAuth2Error(
                gettext_lazy(
                    "This way back from Discord is not that of a sign-in here, or not any more."
                ),
                AGAIN_ADVICE,
                status=400,
            )
        user = await _identify(request, client, login, address)
        member = SignedInMember(user.user_id, user.name, _possible_guilds(services, user))
        if not member.guild_ids:
            raise OAuth2Error(
                gettext_lazy("You moderate none of the servers that this bot is in."),
                gettext_lazy(
                    "It takes Manage Server there, or a role that may train personas or promote "
                    "versions (`/moderation roles`)."
                ),
                status=403,
            )
    except OAuth2Error as error:
        answer = _refuse(request, error)
        # A link of somebody else ends no sign-in that has begun.
        return _without_login_cookies(answer) if login else answer
    is_secure = login.is_secure
    session_id = request.app[AUTHENTICATOR].begin(request, member, is_secure=is_secure)
    # No redirection: that would still be the other site's link, with which no strict cookie comes.
    answer = render_page(
        request, "signed_in.html", title=gettext_lazy("Signed in"), page=login.page
    )
    set_session_cookie(answer, session_id, is_secure=is_secure)
    return _without_login_cookies(answer)


async def _identify(
    request: web.Request, client: DiscordOAuth2, login: BegunLogin, address: str
) -> OAuth2User:
    """Ask Discord who came back. Raises `OAuth2Error`."""
    if request.query.get("error") == "access_denied":
        raise OAuth2Error(
            gettext_lazy("The sign-in was cancelled at Discord."), AGAIN_ADVICE, status=403
        )
    code = request.query.get("code", "")
    if not code or "error" in request.query:
        raise OAuth2Error(
            gettext_lazy("Discord did not let you sign in."), AGAIN_ADVICE, status=400
        )
    failures = request.app[DISCORD_LOGIN].states.failures
    now = request.app[AUTHENTICATOR].now()
    # Wrong codes are Discord's to refuse, which bars a bot's address that sends many.
    if wait_s := failures.wait_s(address, now):
        raise OAuth2Error(
            gettext_lazy("Too many sign-ins failed."),
            ngettext_lazy(
                "Try again in {count} second.", "Try again in {count} seconds.", int(wait_s) + 1
            ),
            status=429,
            retry_after_s=int(wait_s) + 1,
        )
    # Before Discord is asked, so that attempts at once count, too; and whatever it objects to.
    failures.wrong(address, now)
    try:
        async with request.app[DISCORD_LOGIN].exchanges:
            user = await client.identify(
                code=code, verifier=login.verifier, redirect_uri=login.redirect_uri
            )
    except DiscordDownError:  # not the member's fault
        failures.take_back(address, now)
        raise
    failures.take_back(address, now)
    return user


def _possible_guilds(services: Services, user: OAuth2User) -> frozenset[int]:
    """Return the bot's servers in which a user may have pages: those that they manage, as Discord's
    list says, and those in which roles may train or promote. The rest is checked for each page.
    """
    assert services.client is not None
    managed = []
    others = []
    for guild in user.guilds:
        if services.client.get_guild(guild.guild_id) is None:
            continue
        roles = services.store.action_roles
        if guild.manages:
            managed.append(guild.guild_id)
        elif any(roles.get(guild.guild_id, action) for action in PAGE_ACTIONS):
            others.append(guild.guild_id)
    return frozenset([*managed, *others][:MAX_GUILDS])


def _oauth2_client(request: web.Request) -> DiscordOAuth2:
    """Return the client of the bot's application. Raises `Problem` where nobody can sign in so."""
    if not request.app[OFFERS_DISCORD]:
        raise Problem(
            "not-found",
            gettext_lazy("Nobody signs in with Discord here."),
            gettext_lazy("The operator switches it on with DISCORD_CLIENT_SECRET and WEB_TOKEN."),
        )
    client = get_services(request).client
    if client is None or client.application_id is None:
        raise Problem(
            "not-connected",
            gettext_lazy("There is no connection to Discord yet."),
            gettext_lazy("Try again in a minute."),
        )
    secret = request.app[DISCORD_LOGIN].client_secret
    return DiscordOAuth2(client.application_id, secret, client.http.user_agent)


def _refuse(request: web.Request, error: OAuth2Error) -> web.Response:
    page = render_sign_in(
        request,
        MEMBERS_HOME,
        discord_error=join_texts(error.message, error.advice),
        status=error.status,
    )
    if error.retry_after_s:
        page.headers["Retry-After"] = str(error.retry_after_s)
    return page


def _without_login_cookies(answer: web.Response) -> web.Response:
    for name in (LOGIN_COOKIE, HTTPS_LOGIN_COOKIE):
        is_secure = name == HTTPS_LOGIN_COOKIE
        answer.del_cookie(name, path="/", httponly=True, samesite="Lax", secure=is_secure)
    return answer
