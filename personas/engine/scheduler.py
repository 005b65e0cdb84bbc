"""Who is next: fair between guilds by the tokens they have been served, first come first served within a guild.

The order is that of the virtual token counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024):
the guild that has been served least comes next, and one that was away is not given what it did not ask for meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")

NEW_TOKEN_COST = 2
"""A new token counts as much as so many of a prompt, which are computed together."""
MAX_PASSED = 8
"""When so many have been let past somebody who waits for a slot, nobody is any more."""


@dataclass(eq=False)
class Ticket(Generic[Item]):
    """A request that waits. `passed` counts those that were admitted before it though it was their turn later."""

    guild_id: int
    prompt_tokens: int
    since: float
    item: Item
    passed: int = 0


class Scheduler(Generic[Item]):
    """The waiting requests and what each guild has been served. Nothing here knows of models."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[Ticket[Item]]] = {}
        self._served: dict[int, float] = {}
        self._running: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(map(len, list(self._waiting.values())))  # copied: others than the engine's thread may ask

    def add(self, ticket: Ticket[Item]) -> None:
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

    def in_order(self) -> Iterator[Ticket[Item]]:
        """Those who wait, the next first: each guild's in their order, the guild served least before others."""
        for guild in sorted(self._waiting, key=lambda guild: (self._served[guild], self._waiting[guild][0].since)):
            yield from self._waiting[guild]

    def next(self, can_begin: Callable[[Ticket[Item]], bool | None]) -> Ticket[Item] | None:
        """The next that can begin, no longer waiting then; its prompt counts as served.

        `can_begin` says True (it begins), False (it waits for a slot and is passed) or None (it is not ready yet).
        """
        passed: list[Ticket[Item]] = []
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
                if ticket.passed >= MAX_PASSED:
                    return None
                passed.append(ticket)
        return None

    def serve(self, guild_id: int, prompt_tokens: int = 0, new_tokens: int = 0) -> None:
        """Count what a guild has been served."""
        self._served[guild_id] += prompt_tokens + NEW_TOKEN_COST * new_tokens

    def end(self, guild_id: int) -> None:
        """A running request has ended."""
        self._running[guild_id] -= 1
        if not self._running[guild_id]:
            del self._running[guild_id]

    def remove(self, ticket: Ticket[Item]) -> None:
        """Have a request wait no longer."""
        tickets = self._waiting[ticket.guild_id]
        tickets.remove(ticket)
        if not tickets:
            del self._waiting[ticket.guild_id]
