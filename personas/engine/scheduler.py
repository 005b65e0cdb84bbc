"""Admission control and the fair request queue (virtual token counter)."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from personas.errors import EngineBusyError

INITIAL_REPLY_S = 18.0


"""What a reply takes among as many as are answered at once, before any has ended: 33 took so long on two cores."""


INTERVAL_SMOOTHING = 0.8


"""How much of what was measured before counts beside the latest measurement."""


GUILD_SHARE_FACTOR = 3


"""A guild may hold so many times as many places as are left free, so that some always are."""


class AdmissionControl:
    """Counts the requests that are on their way. May be used from any thread."""

    def __init__(self, of_one_guild: int, at_once: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        """A guild may have so many requests on their way while it is alone; a third more are left to others.

        `at_once` of them are answered at a time.
        """
        self._places, self._clock = of_one_guild * (GUILD_SHARE_FACTOR + 1) / GUILD_SHARE_FACTOR, clock
        self._taken: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._last_end: float | None = None
        self._at_once, self._apart_s = at_once, INITIAL_REPLY_S / at_once

    def take(self, guild_id: int) -> None:
        """Take a place. Raises `EngineBusyError` when there is none for this guild."""
        with self._lock:
            taken = self._taken.total()
            if self._taken[guild_id] >= GUILD_SHARE_FACTOR * (self._places - taken):
                wait_s = max(1.0, self.wait_s())
                waiting = max(0, taken - self._at_once)  # the others are being written
                told = f"{waiting} replies are waiting already.", f"Try again in about {round(wait_s)} s."
                raise EngineBusyError(*told, wait_s)
            self._taken[guild_id] += 1

    def give_back(self, guild_id: int) -> None:
        """A request has ended."""
        with self._lock:
            now = self._clock()
            if self._last_end is not None:
                self._apart_s = INTERVAL_SMOOTHING * self._apart_s + (1 - INTERVAL_SMOOTHING) * (now - self._last_end)
            self._taken[guild_id] -= 1
            self._last_end = now if self._taken.total() else None

    def wait_s(self) -> float:
        """For how long somebody who came now would wait, as far as the latest replies show."""
        return self._taken.total() * self._apart_s


Item = TypeVar("Item")


NEW_TOKEN_COST_IN_PROMPT_TOKENS = 2


"""A new token counts as much as so many of a prompt, which are computed together."""


MAX_OVERTAKEN = 8


"""When so many have been let past somebody who waits for a slot, nobody is any more."""


@dataclass(eq=False)
class QueuedRequest(Generic[Item]):
    """A request that waits. `passed` counts those that were admitted before it though it was their turn later."""

    guild_id: int
    prompt_tokens: int
    since: float
    item: Item
    passed: int = 0


class Scheduler(Generic[Item]):
    """The waiting requests and what each guild has been served. Nothing here knows of models."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[QueuedRequest[Item]]] = {}
        self._served: dict[int, float] = {}
        self._running: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(map(len, list(self._waiting.values())))  # copied: others than the engine's thread may ask

    def add(self, ticket: QueuedRequest[Item]) -> None:
        """Have a request wait. A guild that comes back is served as the least served of those that are here."""
        guild, active = ticket.guild_id, self._waiting.keys() | self._running.keys()
        if not active:
            self._served = {guild: 0.0}
        elif guild not in active:
            self._served[guild] = max(self._served.get(guild, 0.0), min(self._served[other] for other in active))
        self._waiting.setdefault(guild, []).append(ticket)

    def running(self, guild_id: int) -> int:
        """How many requests of a guild are running."""
        return self._running.get(guild_id, 0)

    @property
    def guilds(self) -> int:
        """How many guilds have requests that wait or run."""
        return len(self._waiting.keys() | self._running.keys())

    def in_order(self) -> Iterator[QueuedRequest[Item]]:
        """Those who wait, the next first: each guild's in their order, the guild served least before others."""
        for guild in sorted(self._waiting, key=lambda guild: (self._served[guild], self._waiting[guild][0].since)):
            yield from self._waiting[guild]

    def next(self, can_begin: Callable[[QueuedRequest[Item]], bool | None]) -> QueuedRequest[Item] | None:
        """The next that can begin, no longer waiting then; its prompt counts as served.

        `can_begin` says True (it begins), False (it waits for a slot and is passed) or None (it is not ready yet).
        """
        passed: list[QueuedRequest[Item]] = []
        for ticket in list(self.in_order()):
            ready = can_begin(ticket)
            if ready:
                for before in passed:
                    before.passed += 1
                self.remove(ticket)
                self._running[ticket.guild_id] = self._running.get(ticket.guild_id, 0) + 1
                self.serve(ticket.guild_id, ticket.prompt_tokens)
                return ticket
            if ready is False:
                if ticket.passed >= MAX_OVERTAKEN:
                    return None
                passed.append(ticket)
        return None

    def serve(self, guild_id: int, prompt_tokens: int = 0, new_tokens: int = 0) -> None:
        """Count what a guild has been served."""
        self._served[guild_id] += prompt_tokens + NEW_TOKEN_COST_IN_PROMPT_TOKENS * new_tokens

    def end(self, guild_id: int) -> None:
        """A running request has ended."""
        self._running[guild_id] -= 1
        if not self._running[guild_id]:
            del self._running[guild_id]

    def remove(self, ticket: QueuedRequest[Item]) -> None:
        """Have a request wait no longer."""
        tickets = self._waiting[ticket.guild_id]
        tickets.remove(ticket)
        if not tickets:
            del self._waiting[ticket.guild_id]
