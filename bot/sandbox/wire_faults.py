"""Seeded faults between the bot and the sandbox: refused, repeated, cut, slow requests, and disturbed events."""

import random
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TypeVar

FAULTY_EVENTS = frozenset({"MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_DELETE", "INTERACTION_CREATE"})
"""Events about people's actions; those that set a session up always arrive."""
T = TypeVar("T", bound=StrEnum)
SERVER_ERRORS = (500, 502, 503, 504)


class RequestFault(StrEnum):
    """A fault of one request. `ERROR_AFTER` and `CUT_AFTER` leave its effect; the bot cannot see that it happened."""

    LIMITED = "limited"
    LIMITED_GLOBALLY = "limited_globally"
    ERROR_BEFORE = "error_before"
    ERROR_AFTER = "error_after"
    CUT_BEFORE = "cut_before"
    CUT_AFTER = "cut_after"
    SLOW = "slow"


class EventFault(StrEnum):
    """A fault of one event. After `DROPPED` a resume brings it; after `SESSION_LOST` nothing does."""

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
        """Return rates at which about this share of requests and events are disturbed, by all faults alike."""
        names = {one.name for one in fields(cls)} - {"slow_s"}
        by_kind = {kind: share / len(kind) for kind in (RequestFault, EventFault)}
        return cls(**{name: by_kind[RequestFault if name in list(RequestFault) else EventFault] for name in names})


class WireFaults:
    """Draws the faults; the same seed and rates give the same sequence."""

    def __init__(self, rates: FaultRates | None = None, seed: int = 0) -> None:
        self.rates, self._random = rates or FaultRates(), random.Random(seed)  # nosec B311  # repeatable

    def of_request(self) -> RequestFault | None:
        return self._draw(RequestFault)

    def of_event(self, name: str) -> EventFault | None:
        return self._draw(EventFault) if name in FAULTY_EVENTS else None

    def server_error(self) -> int:
        """Return a status from 500 on."""
        return self._random.choice(SERVER_ERRORS)

    def earlier(self, count: int) -> int:
        """Return which of the last events is replayed."""
        return self._random.randrange(count)

    def _draw(self, kind: type[T]) -> T | None:
        left = self._random.random()
        for fault in kind:
            left -= getattr(self.rates, fault.value)
            if left < 0:
                return fault
        return None
