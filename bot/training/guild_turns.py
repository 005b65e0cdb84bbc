"""Turns of servers: the order in which their jobs start, and one preview at a time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from bot.platform.localisation import gettext_lazy
from bot.store import TrainingJob
from personas.errors import RequestError
from personas.home.shared_personas import OPERATOR_GUILD_ID


class QueueConflictError(RequestError):
    """The request is valid, but conflicts with other jobs."""


def fair_order(
    waiting: Sequence[TrainingJob], last_served: Mapping[int, tuple[int, float]]
) -> list[TrainingJob]:
    """The order in which waiting jobs, given oldest first, will start: guilds take turns.

    Each guild's first job comes before any guild's second; among those, the guild served longest
    ago comes first, then the oldest job. `last_served` has the number of a guild's last start in
    this process, 0 without one, and its time.
    """
    oldest: dict[int, int] = {}
    turns: Counter[int] = Counter()
    keys = {}
    for job in waiting:
        oldest.setdefault(job.guild_id, job.seq)
        served = last_served.get(job.guild_id, (0, 0.0))
        keys[job.seq] = (turns[job.guild_id], served, oldest[job.guild_id])
        turns[job.guild_id] += 1
    return sorted(waiting, key=lambda job: keys[job.seq])


class GuildTurns:
    """Lets one process at a time run that servers ask for, and each server wait for one of them."""

    def __init__(self, task: str) -> None:
        """`task` names the process in errors: "preview"."""
        self._task = task
        self._turn = asyncio.Lock()
        self._guild_ids: set[int] = set()

    @asynccontextmanager
    async def of(self, guild_id: int) -> AsyncIterator[None]:
        """Wait for the turn; the operator (guild 0) may wait for several. Raises
        `QueueConflictError`.
        """
        if guild_id in self._guild_ids:
            raise QueueConflictError(
                gettext_lazy("Another {task} of this server is not done yet.", task=self._task),
                gettext_lazy("Wait for its end."),
            )
        if guild_id != OPERATOR_GUILD_ID:
            self._guild_ids.add(guild_id)
        try:
            async with self._turn:
                yield
        finally:
            self._guild_ids.discard(guild_id)
