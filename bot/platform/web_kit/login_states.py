"""Logins with Discord that have begun: their states, each bound to the browser that began it and
used once.
"""

import base64
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from bot.platform.web_kit.auth import FailedLogins

LOGIN_TIMEOUT_S = 600.0
"""Time for a login, from the button to the way back."""
MAX_LOGINS = 10_000
MAX_LOGINS_PER_ADDRESS = 50
"""Logins of an address that have begun; a further one ends its oldest."""
RANDOM_BYTES = 32


@dataclass(frozen=True)
class BegunLogin:
    """A login: what Discord is told (`state`, `challenge`), what its browser keeps (`binding`, a
    secret of its cookie), and what completes it. `page` is where it leads.
    """

    state: str
    binding: str
    verifier: str
    redirect_uri: str
    page: str

    @property
    def is_secure(self) -> bool:
        """True where the browser speaks HTTPS."""
        return self.redirect_uri.startswith("https:")

    @property
    def challenge(self) -> str:
        """The code challenge of PKCE, method S256 (RFC 7636, 4.2)."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True)
class _WaitingLogin:
    login: BegunLogin
    address: str
    began: float


class LoginStates:
    """Begins logins and takes them up again, in memory: a restart ends them."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._waiting: OrderedDict[str, _WaitingLogin] = OrderedDict()
        """By the state's hash, oldest first."""
        self.failures = FailedLogins()

    def begin(self, address: str, redirect_uri: str, page: str) -> BegunLogin:
        """Begin a login from a client's address."""
        login = BegunLogin(
            state=secrets.token_urlsafe(RANDOM_BYTES),
            binding=secrets.token_urlsafe(RANDOM_BYTES),
            verifier=secrets.token_urlsafe(RANDOM_BYTES),
            redirect_uri=redirect_uri,
            page=page,
        )
        self._make_room(address)
        self._waiting[_hash(login.state)] = _WaitingLogin(login, address, self._now())
        return login

    def take(self, state: str, *, binding: str, https_binding: str) -> BegunLogin | None:
        """Return the login of a state, once, to the browser that began it; None for any other
        state, browser, or time. The bindings are those of its cookies: one that began over HTTPS
        goes by the cookie of HTTPS alone, which nobody but this host can have set.
        """
        key = _hash(state)
        waiting = self._waiting.get(key)
        if waiting and waiting.login.is_secure:
            binding = https_binding
        # Nobody without the cookie ends somebody else's login.
        if waiting is None or not hmac.compare_digest(_hash(binding), _hash(waiting.login.binding)):
            return None
        del self._waiting[key]
        if self._now() - waiting.began > LOGIN_TIMEOUT_S:
            return None
        return waiting.login

    def _make_room(self, address: str) -> None:
        now = self._now()
        own = []
        for key, waiting in list(self._waiting.items()):
            if now - waiting.began > LOGIN_TIMEOUT_S:
                del self._waiting[key]
            elif waiting.address == address:
                own.append(key)
        for key in own[: max(0, len(own) - MAX_LOGINS_PER_ADDRESS + 1)]:
            del self._waiting[key]
        if len(self._waiting) >= MAX_LOGINS:
            self._waiting.popitem(last=False)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
