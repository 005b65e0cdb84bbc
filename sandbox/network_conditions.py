"""Simulated clock, injected faults, and Discord's rate limits."""

import asyncio
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox.sandbox_errors import ApiError, Json
from sandbox.wire_faults import RequestFault, WireFaults

MAJOR_PARAMETERS = ("channel_id", "guild_id", "webhook_id", "token")
"""Path parameters with a bucket each."""
INJECTED_RETRY_AFTER_S = 1.0
MAX_BUCKETS = 1_000
BucketKey = tuple[object, ...]


class SimulatedClock:
    """The machine's time plus an offset; every timeout in the sandbox uses this clock."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self._waits: set[asyncio.Timeout] = set()

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return time.time() + self.ahead_s

    def advance(self, seconds: float) -> None:
        """Advance the clock; waits that end within these seconds end now."""
        self.ahead_s += seconds
        for wait in self._waits:
            if not wait.expired():  # an expired one refuses another time
                wait.reschedule((wait.when() or 0.0) - seconds)

    async def within(self, event: asyncio.Event, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds) as wait:
                self._waits.add(wait)
                await event.wait()
        except TimeoutError:
            return False
        finally:
            self._waits.discard(wait)
        return True


@dataclass
class NetworkConditions:
    """The simulated conditions. Callers of a change run `on_change`.

    `delay_s` is the delay of everything the bot receives, `rate_limited` how many of its next
    requests are refused, `message_content` and `members` the developer portal's switches for these
    intents, `faults` disturb requests and events. `session_refused`: no session starts or is resumed.
    """

    message_content: bool
    members: bool = True
    delay_s: float = 0.0
    rate_limited: int = 0
    session_refused: bool = False
    faults: WireFaults = field(default_factory=WireFaults)
    on_change: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class RateLimit:
    """A number of requests per window of seconds, counted from the first of them."""

    most: int
    window_s: float


GLOBAL_LIMIT = RateLimit(50, 1.0)
IDENTIFY_LIMIT = RateLimit(1, 5.0)
SESSION_START_LIMIT = RateLimit(1_000, 86_400.0)
FRAME_LIMIT = RateLimit(120, 60.0)
DEFAULT_LIMIT = RateLimit(50, 1.0)

ROUTE_LIMITS: dict[str, RateLimit] = {
    "POST /channels/{channel_id}/messages": RateLimit(5, 5.0),
    "PATCH /channels/{channel_id}/messages/{message_id}": RateLimit(5, 5.0),
    "DELETE /channels/{channel_id}/messages/{message_id}": RateLimit(5, 1.0),
    "POST /webhooks/{webhook_id}/{token}": RateLimit(5, 2.0),
    "PATCH /webhooks/{webhook_id}/{token}/messages/{message_id}": RateLimit(5, 2.0),
    "DELETE /webhooks/{webhook_id}/{token}/messages/{message_id}": RateLimit(5, 2.0),
}


class RateLimited(ApiError):
    """429; discord.py waits for `retry_after` and tries again, but only if a proxy has signed the
    response.
    """

    def __init__(
        self,
        retry_after: float,
        is_global: bool,
        headers: dict[str, str],
        *,
        is_signed: bool = True,
    ) -> None:
        super().__init__(20028)
        self.retry_after = round(retry_after, 3)
        self.is_global = is_global
        self.headers = dict(headers)
        if is_global:
            self.headers["X-RateLimit-Global"] = "true"
        if is_signed:
            self.headers["Via"] = "1.1 sandbox"
        # The header has whole seconds, the body fractions.
        self.headers["Retry-After"] = str(math.ceil(retry_after))
        self.headers["X-RateLimit-Scope"] = "global" if is_global else "user"

    def body(self) -> Json:
        """The response body, without a code, as on Discord."""
        return {"message": str(self), "retry_after": self.retry_after, "global": self.is_global}


class RateLimits:
    """Requests counted by bucket; `scale` shortens every window, for tests."""

    def __init__(self, clock: SimulatedClock, conditions: NetworkConditions, scale: float) -> None:
        self._clock = clock
        self._conditions = conditions
        self._scale = scale
        self._windows: dict[BucketKey, tuple[int, float]] = {}

    def spend(self, key: BucketKey, rule: RateLimit) -> bool:
        """Count one request; False if none was left."""
        used, ends = self._window(key, rule)
        if used >= rule.most:
            return False
        self._windows[key] = used + 1, ends
        return True

    def left(self, key: BucketKey, rule: RateLimit) -> tuple[int, float]:
        """Return how many are left, and the seconds until all are again."""
        used, ends = self._window(key, rule)
        return rule.most - used, ends - self._clock.now()

    def _window(self, key: BucketKey, rule: RateLimit) -> tuple[int, float]:
        now = self._clock.now()
        # Every interaction's token is a bucket, so that there would be ever more.
        if len(self._windows) > MAX_BUCKETS:
            for old, (_, old_end) in list(self._windows.items()):
                if old_end <= now:
                    del self._windows[old]
        used, ends = self._windows.get(key, (0, 0.0))
        if ends > now:
            return used, ends
        return 0, now + rule.window_s * self._scale

    def request(
        self, route: str, ids: Json, is_bots: bool, fault: RequestFault | None = None
    ) -> dict[str, str]:
        """Count a request, in the global bucket too if it is the bot's own; returns its headers.

        Raises RateLimited, also for such a fault.
        """
        rule = ROUTE_LIMITS.get(route, DEFAULT_LIMIT)
        key = (route, *(ids[name] for name in MAJOR_PARAMETERS if name in ids))
        if self._conditions.rate_limited:
            self._conditions.rate_limited -= 1
            self._conditions.on_change()
            fault = RequestFault.LIMITED
        if fault is RequestFault.BLOCKED:
            raise RateLimited(0.0, False, {}, is_signed=False)
        if fault in (RequestFault.LIMITED, RequestFault.LIMITED_GLOBALLY):
            is_global = fault is RequestFault.LIMITED_GLOBALLY
            headers = {} if is_global else self._headers(route, key, rule)
            raise RateLimited(INJECTED_RETRY_AFTER_S * self._scale, is_global, headers)
        if is_bots and not self.spend(("global",), GLOBAL_LIMIT):
            raise RateLimited(self.left(("global",), GLOBAL_LIMIT)[1], True, {})
        if not self.spend(key, rule):
            raise RateLimited(self.left(key, rule)[1], False, self._headers(route, key, rule))
        return self._headers(route, key, rule)

    def _headers(self, route: str, key: BucketKey, rule: RateLimit) -> dict[str, str]:
        left, seconds = self.left(key, rule)
        return {
            "X-RateLimit-Limit": str(rule.most),
            "X-RateLimit-Remaining": str(left),
            "X-RateLimit-Reset": f"{self._clock.now() + seconds:.3f}",
            "X-RateLimit-Reset-After": f"{seconds:.3f}",
            "X-RateLimit-Bucket": f"{zlib.crc32(route.encode()):08x}",
        }
