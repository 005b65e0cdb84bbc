"""Rate limits as Discord keeps them in practice: one table of buckets, and the headers that tell of them.

Discord publishes only the global one; the others are what its headers say to bots.
"""

import math
import zlib
from dataclasses import dataclass

from bot.sandbox.conditions import Clock, Conditions
from bot.sandbox.errors import ApiError, Json


@dataclass(frozen=True)
class Rule:
    """So many in so many seconds, counted from the first of them."""

    most: int
    window_s: float


GLOBAL = Rule(50, 1.0)
IDENTIFY, STARTS, FRAMES = Rule(1, 5.0), Rule(1_000, 86_400.0), Rule(120, 60.0)
OTHERS = Rule(50, 1.0)
RULES: dict[str, Rule] = {
    "POST /channels/{channel_id}/messages": Rule(5, 5.0),
    "PATCH /channels/{channel_id}/messages/{message_id}": Rule(5, 5.0),
    "DELETE /channels/{channel_id}/messages/{message_id}": Rule(5, 1.0),
    "POST /webhooks/{webhook_id}/{token}": Rule(5, 2.0),
    "PATCH /webhooks/{webhook_id}/{token}/messages/{message_id}": Rule(5, 2.0),
    "DELETE /webhooks/{webhook_id}/{token}/messages/{message_id}": Rule(5, 2.0),
}
MAJOR = ("channel_id", "guild_id", "webhook_id", "token")
"""Ids of a path that have a bucket each."""
ON_DEMAND_S = 1.0
MOST_KEPT = 1_000
Key = tuple[object, ...]


class RateLimited(ApiError):
    """429; discord.py waits `retry_after` and tries again, but only if a proxy has signed the answer."""

    def __init__(self, retry_after: float, is_global: bool, headers: dict[str, str]) -> None:
        super().__init__(20028)
        self.retry_after, self.is_global = round(retry_after, 3), is_global
        scope = {"X-RateLimit-Global": "true"} if is_global else {}
        signed = {"Via": "1.1 sandbox", "Retry-After": str(math.ceil(retry_after))}
        self.headers = headers | scope | signed | {"X-RateLimit-Scope": "global" if is_global else "user"}

    def body(self) -> Json:
        """Discord's answer has no code."""
        return {"message": str(self), "retry_after": self.retry_after, "global": self.is_global}


class RateLimits:
    """What has been spent; `scale` makes every window shorter, for tests that would wait."""

    def __init__(self, clock: Clock, conditions: Conditions, scale: float) -> None:
        self._clock, self._conditions, self._scale = clock, conditions, scale
        self._windows: dict[Key, tuple[int, float]] = {}

    def spend(self, key: Key, rule: Rule) -> bool:
        """Count one; False if there was none left."""
        used, ends = self._window(key, rule)
        if used >= rule.most:
            return False
        self._windows[key] = used + 1, ends
        return True

    def left(self, key: Key, rule: Rule) -> tuple[int, float]:
        """How many are left, and the seconds until all are again."""
        used, ends = self._window(key, rule)
        return rule.most - used, ends - self._clock.now()

    def _window(self, key: Key, rule: Rule) -> tuple[int, float]:
        now = self._clock.now()
        if len(self._windows) > MOST_KEPT:
            self._windows = {one: window for one, window in self._windows.items() if window[1] > now}
        used, ends = self._windows.get(key, (0, 0.0))
        return (used, ends) if ends > now else (0, now + rule.window_s * self._scale)

    def request(self, route: str, ids: Json, is_bots: bool) -> dict[str, str]:
        """Count a request, in the global bucket too if it is the bot's own; its headers. Raises RateLimited."""
        rule = RULES.get(route, OTHERS)
        key = (route, *(ids[name] for name in MAJOR if name in ids))
        if self._conditions.rate_limited:
            self._conditions.rate_limited -= 1
            self._conditions.on_change()
            raise RateLimited(ON_DEMAND_S * self._scale, False, self._headers(route, key, rule))
        if is_bots and not self.spend(("global",), GLOBAL):
            raise RateLimited(self.left(("global",), GLOBAL)[1], True, {})
        if not self.spend(key, rule):
            raise RateLimited(self.left(key, rule)[1], False, self._headers(route, key, rule))
        return self._headers(route, key, rule)

    def _headers(self, route: str, key: Key, rule: Rule) -> dict[str, str]:
        left, seconds = self.left(key, rule)
        return {
            "X-RateLimit-Limit": str(rule.most),
            "X-RateLimit-Remaining": str(left),
            "X-RateLimit-Reset": f"{self._clock.now() + seconds:.3f}",
            "X-RateLimit-Reset-After": f"{seconds:.3f}",
            "X-RateLimit-Bucket": f"{zlib.crc32(route.encode()):08x}",
        }
