"""Seeded faults between the bot and the sandbox: refused, repeated, cut, slow requests, and
disturbed events.
"""

import random
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TypeVar

FAULTY_EVENTS = frozenset(
    {"MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_DELETE", "INTERACTION_CREATE"}
)
"""Events about people's actions; those that set a session up always arrive."""
T = TypeVar("T", bound=StrEnum)
SERVER_ERRORS = (500, 502, 503, 504)


class RequestFault(StrEnum):
    """A fault of one request. `ERROR_AFTER` and `CUT_AFTER` leave its effect; the bot cannot see
    that it happened.

    `BLOCKED` is a 429 by the network in front of Discord, which discord.py does not wait for;
    `HANGING` gets no answer.
    """

    LIMITED = "limited"
    LIMITED_GLOBALLY = "limited_globally"
    ERROR_BEFORE = "error_before"
    ERROR_AFTER = "error_after"
    CUT_BEFORE = "cut_before"
    CUT_AFTER = "cut_after"
    SLOW = "slow"
    BLOCKED = "blocked"
    HANGING = "hanging"


class EventFault(StrEnum):
    """A fault of one event. After `DROPPED` a resume brings it; after `SESSION_LOST` nothing
    does.
    """

    DROPPED = "dropped"
    SESSION_LOST = "session_lost"
    DUPLICATED = "duplicated"
    REPLAYED = "replayed"
    REORDERED = "reordered"


@dataclass(frozen=True)
class FaultRates:
    """Shares of the requests (or of the events) that each fault disturbs, from 0 to 1."""

    limited: float = 0.0
    limited_globally: float = 0.0
    error_before: float = 0.0
    error_after: float = 0.0
    cut_before: float = 0.0
    cut_after: float = 0.0
    slow: float = 0.0
    blocked: float = 0.0
    hanging: float = 0.0
    dropped: float = 0.0
    session_lost: float = 0.0
    duplicated: float = 0.0
    replayed: float = 0.0
    reordered: float = 0.0
    slow_s: float = 0.2

    def __post_init__(self) -> None:
        wrong = [one.name for one in fields(self) if not 0 <= getattr(self, one.name) <= 1]
        if wrong:
            raise ValueError(f"not between 0 and 1: {', '.join(wrong)}")

    @classmethod
    def storm(cls, share: float) -> "FaultRates":
        """Return rates at which about this share of requests and events are disturbed, by all
        faults alike.

        No request hangs: that takes as long as the bot waits.
        """
        rates = {}
        for fault in RequestFault:
            if fault is not RequestFault.HANGING:
                rates[fault.value] = share / (len(RequestFault) - 1)
        for event_fault in EventFault:
            rates[event_fault.value] = share / len(EventFault)
        return cls(**rates)


class WireFaults:
    """Draws the faults; the same seed and rates give the same sequence."""

    def __init__(self, rates: FaultRates | None = None, seed: int = 0) -> None:
        self.rates = rates or FaultRates()
        self._random = random.Random(seed)  # nosec B311  # repeatable
        self._planned: dict[str, tuple[RequestFault, int]] = {}

    def plan(self, route: str, fault: RequestFault, times: int) -> None:
        """Disturb so many of the next requests to a route, such as `GET
        /channels/{channel_id}/webhooks`.
        """
        self._planned[route] = fault, times

    def of_route(self, route: str) -> RequestFault | None:
        """Return the planned fault of a request, else a drawn one."""
        fault, times = self._planned.get(route, (None, 0))
        if not times or fault is None:
            return self.of_request()
        self._planned[route] = fault, times - 1
        return fault

    def of_request(self) -> RequestFault | None:
        return self._draw(RequestFault)

    def of_event(self, name: str) -> EventFault | None:
        if name not in FAULTY_EVENTS:
            return None
        return self._draw(EventFault)

    def server_error(self) -> int:
        """Return a status from 500 on."""
        return self._random.choice(SERVER_ERRORS)

    def earlier(self, count: int) -> int:
        """Return which of the last events is replayed."""
        return self._random.randrange(count)

    def _draw(self, kind: type[T]) -> T | None:
        # One draw for all faults, so that a request has at most one of them.
        left = self._random.random()
        for fault in kind:
            left -= getattr(self.rates, fault.value)
            if left < 0:
                return fault
        return None
