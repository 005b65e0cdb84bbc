"""What members see happen, in order: for tests that wait for it and for the page that shows it."""

import asyncio
from collections.abc import Callable

from bot.sandbox.errors import Json

KINDS = ("message", "edit", "delete", "typing", "answer", "commands")
Check = Callable[[Json], bool]


class Feed:
    """Keeps every event since the start, and tells those who wait and those who watch."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Json]] = []
        self.watchers: set[Callable[[str, Json], None]] = set()

    def publish(self, kind: str, data: Json) -> None:
        """Tell everyone."""
        self.events.append((kind, data))
        for watcher in tuple(self.watchers):
            watcher(kind, data)

    async def wait_for(self, kind: str, check: Check, timeout_s: float, since: int | None) -> Json:
        """The first event that fits: of those from index `since` on, if given, else of those to come.

        Raises TimeoutError.
        """
        if kind not in KINDS:
            raise ValueError(f"no event is called {kind!r}; there are {', '.join(KINDS)}")
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
