"""Authentication: the access token, sessions of those who signed in with it, and a limit on failed
logins.
"""

import hashlib
import hmac
import ipaddress
import logging
import math
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from aiohttp import web

from bot.platform.web_kit.problems import Problem

log = logging.getLogger(__name__)

IPNetwork = IPv4Network | IPv6Network
SESSION_COOKIE = "understudy_session"
HTTPS_SESSION_COOKIE = "__Host-understudy_session"
"""Browsers take a cookie of such a name from this host alone, over HTTPS."""
SESSION_IDLE_TIMEOUT_S = 12 * 3600.0
MAX_SESSION_AGE_S = 7 * 24 * 3600.0
"""A session ends after `SESSION_IDLE_TIMEOUT_S` without use, and after `MAX_SESSION_AGE_S` in any
case.
"""
MAX_SESSIONS = 1000
# Wrong tokens that are allowed in this time, from one address and from all
FAILED_LOGIN_WINDOW_S = 60.0
MAX_FAILED_LOGINS_PER_ADDRESS = 5
MAX_FAILED_LOGINS = 50
MAX_TRACKED_ADDRESSES = 10_000


@dataclass
class _LoginSession:
    """A session. One that began over HTTPS (`is_secure`) is in the cookie of HTTPS alone, which
    nobody but this host can have set.
    """

    began: float
    used: float
    is_secure: bool


@dataclass
class FailedLogins:
    """Recent wrong tokens by client address."""

    _by_address: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)
    _all: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_FAILED_LOGINS))

    def wait_s(self, address: str, now: float) -> float:
        """Seconds until this address may try again; 0 if it may now."""
        wait_s = 0.0
        own = self._by_address.get(address, deque())
        if len(own) >= MAX_FAILED_LOGINS_PER_ADDRESS:
            wait_s = max(wait_s, own[0] + FAILED_LOGIN_WINDOW_S - now)
        if len(self._all) == MAX_FAILED_LOGINS:
            wait_s = max(wait_s, self._all[0] + FAILED_LOGIN_WINDOW_S - now)
        return wait_s

    def wrong(self, address: str, now: float) -> None:
        self._by_address.setdefault(address, deque(maxlen=MAX_FAILED_LOGINS_PER_ADDRESS)).append(
            now
        )
        self._by_address.move_to_end(address)
        self._all.append(now)
        if len(self._by_address) > MAX_TRACKED_ADDRESSES:
            self._by_address.popitem(last=False)

    def right(self, address: str) -> None:
        """Record a right token: the attempts from its address no longer count."""
        self._by_address.pop(address, None)


# There are no accounts: the operator has a token, which is exchanged for a session in memory.
class Authenticator:
    """Authenticates requests; without a token it accepts all, as the server then listens on
    loopback only.
    """

    def __init__(
        self,
        token: str = "",
        names: tuple[str, ...] = (),
        *,
        is_local: bool = True,
        proxies: tuple[IPNetwork, ...] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`names` are accepted host names besides loopback's; `is_local`: the server listens on
        loopback only.

        `proxies` are believed when they name the client in X-Forwarded-For.
        """
        self.names = frozenset(name.casefold() for name in names)
        self.is_local = is_local
        self._proxies = proxies
        self.now = now
        self._token = _hash_token(token) if token else b""
        self._sessions: OrderedDict[str, _LoginSession] = OrderedDict()
        self.guesses = FailedLogins()

    @property
    def demands_token(self) -> bool:
        return bool(self._token)

    def lets_in(self, request: web.Request) -> bool:
        """True if the request is the operator's. Raises `Problem` for one more wrong token after too
        many.
        """
        if not self.demands_token or self.has_session(request):
            return True
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        return kind.casefold() == "bearer" and self.is_right(token.strip(), request)

    def is_right(self, token: str, request: web.Request) -> bool:
        """True for the right token. Raises `Problem` for one more wrong token after too many.

        The right one is never refused: behind a proxy, others' attempts may come from the same
        address. It cannot be guessed at any speed (`bot.setting_values.MIN_TOKEN_CHARS`).
        """
        now = self.now()
        address = self.client_address(request)
        if hmac.compare_digest(_hash_token(token), self._token):
            self.guesses.right(address)
            return True
        if wait_s := self.guesses.wait_s(address, now):
            raise Problem(
                "too-many-tries",
                "Too many wrong tokens were sent.",
                (
                    f"Try again in {math.ceil(wait_s)} second."
                    if math.ceil(wait_s) == 1
                    else f"Try again in {math.ceil(wait_s)} seconds."
                ),
                headers={"Retry-After": str(math.ceil(wait_s))},
            )
        self.guesses.wrong(address, now)
        log.info("a wrong token for the web server came from %s", address)
        if self.guesses.wait_s(address, now):
            log.warning(
                "too many wrong tokens for the web server came of late, the last from %s", address
            )
        return False

    def client_address(self, request: web.Request) -> str:
        """Return the client's address, behind trusted proxies the last one that they name; for IPv6
        its network.
        """
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        address = request.remote or ""
        for hop in reversed(forwarded):
            if not self.is_proxy(address) or not hop.strip():
                break
            address = hop.strip()
        parsed = _parse_address(address)
        # One machine has many addresses in a network of IPv6.
        if isinstance(parsed, IPv6Address):
            return str(ipaddress.ip_network((parsed, 64), strict=False))
        return str(parsed or address)

    def is_proxy(self, text: str) -> bool:
        """True for the address of a reverse proxy that is believed."""
        address = _parse_address(text)
        return address is not None and any(address in network for network in self._proxies)

    def begin(self, request: web.Request, *, is_secure: bool) -> str:
        """Start a session in place of the request's; returns its id, for a cookie."""
        self.end(request)
        now = self.now()
        session_id = secrets.token_urlsafe(32)
        log.info("%s has signed in to the web server", self.client_address(request))
        self._sessions[_session_key(session_id)] = _LoginSession(now, now, is_secure)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session_id

    def has_session(self, request: web.Request) -> bool:
        """True if the request has a valid session, whose idle time starts anew."""
        key = _session_key(_session_id(request))
        now = self.now()
        session = self._sessions.get(key)
        if session is None or (session.is_secure and not request.cookies.get(HTTPS_SESSION_COOKIE)):
            return False
        if now - session.used > SESSION_IDLE_TIMEOUT_S or now - session.began > MAX_SESSION_AGE_S:
            del self._sessions[key]
            return False
        session.used = now
        self._sessions.move_to_end(key)
        return True

    def end(self, request: web.Request) -> None:
        self._sessions.pop(_session_key(_session_id(request)), None)


AUTHENTICATOR = web.AppKey("authenticator", Authenticator)


def set_session_cookie(answer: web.Response, session_id: str, *, is_secure: bool) -> None:
    """Give a browser its session; `is_secure` where it speaks HTTPS."""
    name = HTTPS_SESSION_COOKIE if is_secure else SESSION_COOKIE
    answer.set_cookie(
        name, session_id, path="/", httponly=True, samesite="Strict", secure=is_secure
    )


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address; one of IPv4 that IPv6 maps becomes it."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def _hash_token(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _session_id(request: web.Request) -> str:
    return request.cookies.get(HTTPS_SESSION_COOKIE) or request.cookies.get(SESSION_COOKIE, "")


def _session_key(session_id: str) -> str:
    # The hash is looked up, so that the time of the look-up says nothing of the id.
    return hashlib.sha256(session_id.encode(errors="surrogateescape")).hexdigest()
