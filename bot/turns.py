"""Whose turn it is: guilds are served one after the other, whoever has waited longest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from bot.store import Job


def fair_order(waiting: Sequence[Job], last_served: Mapping[int, float]) -> list[Job]:
    """The order in which waiting jobs, given oldest first, will start.

    The guild that was served longest ago comes first, then age; so guilds take turns, and a guild's first jobs all
    come before anybody's second.
    """
    oldest: dict[int, int] = {}
    turns: Counter[int] = Counter()
    keys = {}
    for job in waiting:
        oldest.setdefault(job.guild_id, job.seq)
        keys[job.seq] = (turns[job.guild_id], last_served.get(job.guild_id, 0.0), oldest[job.guild_id])
        turns[job.guild_id] += 1
    return sorted(waiting, key=lambda job: keys[job.seq])
