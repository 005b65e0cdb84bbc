"""Log of the events that members see, and observers of HTTP and gateway traffic."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sandbox.sandbox_errors import Json

EVENT_KINDS = (
    "message",
    "edit",
    "delete",
    "typing",
    "answer",
    "commands",
    "channel",
    "controls",
    "member",
)
EventPredicate = Callable[[Json], bool]
FeedEvent = tuple[str, Json]
# Streamed replies make an edit a second, so a guild that runs for days must drop old events.
MAX_EVENTS = 20_000


class EventLog:
    """The latest events, counted from the start: `len` is their total number, `log[n:]` those from
    the n-th on.
    """

    def __init__(self, kept: int = MAX_EVENTS) -> None:
        self._events: list[FeedEvent] = []
        self._kept = kept
        self._forgotten = 0

    def append(self, event: FeedEvent) -> None:
        """Append an event, and drop the older half when there are too many."""
        self._events.append(event)
        if len(self._events) > self._kept:
            self._forgotten += self._kept // 2
            del self._events[: self._kept // 2]

    def __len__(self) -> int:
        return self._forgotten + len(self._events)

    def __iter__(self) -> Iterator[FeedEvent]:
        return iter(self._events)

    def __getitem__(self, since: slice) -> list[FeedEvent]:
        return self._events[max(0, (since.start or 0) - self._forgotten) :]


class EventFeed:
    """Stores the latest events, and notifies waiting and subscribed clients."""

    def __init__(self) -> None:
        self.events = EventLog()
        self.watchers: set[Callable[[str, Json], None]] = set()

    def publish(self, kind: str, data: Json) -> None:
        self.events.append((kind, data))
        for watcher in tuple(self.watchers):
            watcher(kind, data)

    async def wait_for(
        self, kind: str, check: EventPredicate, timeout_s: float, since: int | None
    ) -> Json:
        """Return the first matching event to come, or since index `since` if given. Raises
        TimeoutError.
        """
        if kind not in EVENT_KINDS:
            raise ValueError(f"no event is called {kind!r}; there are {', '.join(EVENT_KINDS)}")
        past = self.events[since:] if since is not None else []
        for name, data in past:
            if name == kind and check(data):
                return data
        found: asyncio.Future[Json] = asyncio.get_running_loop().create_future()

        def watch(name: str, data: Json) -> None:
            if name == kind and not found.done() and check(data):
                found.set_result(data)

        self.watchers.add(watch)
        try:
            return await asyncio.wait_for(found, timeout_s)
        finally:
            self.watchers.discard(watch)


@dataclass(frozen=True)
class HttpExchange:
    """A request and its response; the body is None where it was refused unread."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    status: int
    answer: object


@dataclass(frozen=True)
class GatewayEvent:
    """An event sent to a session of the bot."""

    name: str
    data: Json


observers: list[Callable[[HttpExchange | GatewayEvent], None]] = []
"""Observers of all traffic, of every sandbox in this process."""


def notify_observers(what: HttpExchange | GatewayEvent) -> None:
    for observe in observers:
        observe(what)
