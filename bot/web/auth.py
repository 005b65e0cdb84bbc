"""Authentication: the access token, sessions of those who signed in with it, and a limit on failed logins."""

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

from aiohttp import web

from bot.web.problems import Problem

log = logging.getLogger(__name__)

SESSION_COOKIE = "understudy_session"
SESSION_IDLE_TIMEOUT_S = 12 * 3600.0
MAX_SESSION_AGE_S = 7 * 24 * 3600.0
"""A session ends after `SESSION_IDLE_TIMEOUT_S` without use, and after `MAX_SESSION_AGE_S` in any case."""
MAX_SESSIONS = 1000
FAILED_LOGIN_WINDOW_S, MAX_FAILED_LOGINS_PER_ADDRESS, MAX_FAILED_LOGINS = 60.0, 5, 50
"""Wrong tokens allowed per minute, from one address and from all that never sent the right one."""
MAX_TRACKED_ADDRESSES = 10_000


@dataclass
class _LoginSession:
    began: float
    used: float


@dataclass
class FailedLogins:
    """Recent wrong tokens by client address."""

    _by_address: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)
    _all: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_FAILED_LOGINS))
    _proven: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def wait_s(self, address: str, now: float) -> float:
        """Seconds until this address may try again; 0 if it may now."""
        own = self._by_address.get(address, deque())
        waits = [own[0] + FAILED_LOGIN_WINDOW_S - now] if len(own) >= MAX_FAILED_LOGINS_PER_ADDRESS else []
        if address not in self._proven and len(self._all) == MAX_FAILED_LOGINS:
            waits.append(self._all[0] + FAILED_LOGIN_WINDOW_S - now)
        return max([0.0, *waits])

    def wrong(self, address: str, now: float) -> None:
        self._by_address.setdefault(address, deque(maxlen=MAX_FAILED_LOGINS_PER_ADDRESS)).append(now)
        self._by_address.move_to_end(address)
        self._all.append(now)
        if len(self._by_address) > MAX_TRACKED_ADDRESSES:
            self._by_address.popitem(last=False)

    def right(self, address: str) -> None:
        """Record a right token: its address is not locked out by the attempts of others."""
        self._by_address.pop(address, None)
        self._proven[address] = None
        if len(self._proven) > MAX_TRACKED_ADDRESSES:
            self._proven.popitem(last=False)


class Authenticator:
    """Authenticates requests; without a token it accepts all, as the server then listens on loopback only."""

    def __init__(
        self,
        token: str = "",
        names: tuple[str, ...] = (),
        *,
        is_local: bool = True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`names` are accepted host names besides loopback's; `is_local`: the server listens on loopback only."""
        self.names = frozenset(name.casefold() for name in names)
        self.is_local, self._now = is_local, now
        self._token = _hash_token(token) if token else b""
        self._sessions: OrderedDict[str, _LoginSession] = OrderedDict()
        self.guesses = FailedLogins()

    @property
    def demands_token(self) -> bool:
        return bool(self._token)

    def lets_in(self, request: web.Request) -> bool:
        """True if the request is authenticated. Raises `Problem` after too many wrong tokens from its address."""
        if not self.demands_token or self.has_session(request):
            return True
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        return kind.casefold() == "bearer" and self.is_right(token.strip(), client_address(request))

    def is_right(self, token: str, address: str) -> bool:
        """True for the right token. Raises `Problem` after too many wrong ones."""
        now = self._now()
        if wait_s := self.guesses.wait_s(address, now):
            raise Problem(
                "too-many-tries",
                "Too many wrong tokens were sent.",
                f"Try again in {math.ceil(wait_s)} seconds.",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )
        if hmac.compare_digest(_hash_token(token), self._token):
            self.guesses.right(address)
            return True
        self.guesses.wrong(address, now)
        if self.guesses.wait_s(address, now):
            log.warning("too many wrong tokens for the web server came of late, the last from %s", address)
        return False

    def begin(self) -> str:
        """Start a session; returns its id, for a cookie."""
        now, session_id = self._now(), secrets.token_urlsafe(32)
        self._sessions[_session_key(session_id)] = _LoginSession(now, now)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session_id

    def has_session(self, request: web.Request) -> bool:
        """True if the request has a valid session, whose idle time starts anew."""
        key, now = _session_key(request.cookies.get(SESSION_COOKIE, "")), self._now()
        session = self._sessions.get(key)
        if session is None:
            return False
        if now - session.used > SESSION_IDLE_TIMEOUT_S or now - session.began > MAX_SESSION_AGE_S:
            del self._sessions[key]
            return False
        session.used = now
        self._sessions.move_to_end(key)
        return True

    def end(self, request: web.Request) -> None:
        self._sessions.pop(_session_key(request.cookies.get(SESSION_COOKIE, "")), None)


AUTHENTICATOR = web.AppKey("authenticator", Authenticator)


def is_signed_in(request: web.Request) -> bool:
    return request.app[AUTHENTICATOR].has_session(request)


def client_address(request: web.Request) -> str:
    """The address of the client; for IPv6 its network, since one machine has many addresses."""
    try:
        address = ipaddress.ip_address(request.remote or "")
    except ValueError:
        return request.remote or ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _hash_token(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _session_key(session_id: str) -> str:
    # The hash is looked up, so that the time of the look-up says nothing of the id.
    return hashlib.sha256(session_id.encode(errors="surrogateescape")).hexdigest()
