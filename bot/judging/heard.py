"""What members have made of a version beside the one that speaks: for the gate, and before somebody promotes it."""

from __future__ import annotations

import asyncio

from bot.judging.judgement import counted
from bot.judging.rule import LEAST_MEMBERS, sure_range
from bot.rollout.comparing import compare
from bot.rollout.evidence import NEEDED
from bot.store import BASE, Selection, Store
from personas.compare import Heard

EVEN = 0.5


async def heard(store: Store, persona_id: str, version: str, now: float, guild_id: int | None = None) -> Heard | None:
    """As it stands in a guild or (None) in all at a time in seconds since 1970.

    None for the version that speaks, and for one of which nobody has said anything.
    """
    live = store.versions.live(persona_id)
    names = {version, live or BASE}
    votes = [one for one in store.comparisons.voted(persona_id, guild_id) if set(one.versions) == names]
    own, other = (store.tallies.of(Selection(persona_id, which, guild_id=guild_id)) for which in (version, live))
    if live == version or not (votes or own.up or own.down):
        return None
    values = counted(votes, version, now)
    sure = await asyncio.to_thread(sure_range, values) if len(values) >= LEAST_MEMBERS else None
    return Heard(
        against=live or BASE,
        votes=len(votes),
        members=len(values),
        least=sure.low if sure else None,
        most=sure.high if sure else None,
        up=(own.up, other.up),
        down=(own.down, other.down),
        evidence=_evidence(store, persona_id, version, live, guild_id),
    )


def against(found: Heard | None) -> tuple[str, ...]:
    """What members hold against a version for certain, a sentence each; nothing where it is not certain."""
    if found is None:
        return ()
    other = "the base model" if found.against == BASE else found.against
    said = []
    if found.least is not None and found.most is not None and found.most < EVEN:
        said.append(f"Members prefer {other}: this one in {found.least:.0%} to {found.most:.0%} of blind comparisons.")
    if found.evidence is not None and found.evidence >= NEEDED:
        said.append(f"Its replies are disliked more than those of {other}: {found.down[0]} 👎 and {found.up[0]} 👍.")
    return tuple(said)


def _evidence(store: Store, persona_id: str, version: str, live: str | None, guild_id: int | None) -> float | None:
    """The most that any trial of the version beside the one that speaks has brought; ended ones count."""
    rollouts = store.rollouts
    tried = rollouts.everywhere(persona_id) if guild_id is None else rollouts.of_persona(persona_id, guild_id)
    beside = [one for one in tried if (one.version, one.before) == (version, live)]
    return max((compare(store, one).votes for one in beside), default=None)
