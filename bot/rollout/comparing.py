"""A version on trial compared with the one before it, by what members made of their replies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bot.rollout.evidence import NEEDED, DrawnEvidence, PairedEvidence
from bot.store import Rollout, Selection, Store, Tally

Sign = Literal["votes", "interruptions"]

LEAST_REPLIES = 10
"""So many replies each version must have made before anything follows."""
EARLIER_S = 30 * 86_400.0
"""How far back the replies of the version before are looked at, in seconds, where they were not drawn."""
VOTES_EACH, REPLIES_EACH = 3, 5
"""Where nothing was drawn, a member counts with so many votes, and with so many replies asked for, of each version."""


@dataclass(frozen=True)
class Comparison:
    """What both versions' replies met with, and the evidence that the new one's met with worse."""

    new: Tally
    before: Tally
    votes: float
    interruptions: float

    @property
    def worse(self) -> Sign | None:
        """By what the new version is worse; None while that is not shown."""
        if min(self.new.replies, self.before.replies) < LEAST_REPLIES or max(self.votes, self.interruptions) < NEEDED:
            return None
        return "votes" if self.votes >= self.interruptions else "interruptions"


def compare(store: Store, rollout: Rollout) -> Comparison:
    """As it stands now."""
    return _drawn(store, rollout) if rollout.is_drawn else _then_and_now(store, rollout)


def _drawn(store: Store, rollout: Rollout) -> Comparison:
    votes, interruptions = DrawnEvidence(rollout.share / 100), DrawnEvidence(rollout.share / 100)
    tallies = {True: Tally(), False: Tally()}
    for reply in store.tallies.of_rollout(rollout.seq):
        is_new = rollout.draws(reply.event_id)
        tallies[is_new] += reply.tally
        if reply.voter is not None:
            votes.add(reply.voter, is_new=is_new, is_bad=reply.vote == -1)
        if reply.interrupted:
            interruptions.add(reply.asked_by, is_new=is_new, is_bad=True)
    return Comparison(tallies[True], tallies[False], votes.evidence, interruptions.evidence)


def _then_and_now(store: Store, rollout: Rollout) -> Comparison:
    now, then = _selections(rollout)
    votes = _paired(store.tallies.voted(then), store.tallies.voted(now), VOTES_EACH)
    # A reply can still be stopped or made anew until its member has asked for the next one.
    settled = {member: marks[:-1] for member, marks in store.tallies.asked(now).items()}
    interruptions = _paired(store.tallies.asked(then), settled, REPLIES_EACH)
    return Comparison(store.tallies.of(now), store.tallies.of(then), votes, interruptions)


def _selections(rollout: Rollout) -> tuple[Selection, Selection]:
    """The replies of the new version, and those of the one before until then."""
    begun, whole = rollout.started_at, rollout.is_promoted
    guild_id, number = (None, None) if whole else (rollout.guild_id, rollout.seq)
    now = Selection(rollout.persona_id, rollout.version, begun, guild_id=guild_id, rollout=number)
    then = Selection(rollout.persona_id, rollout.before, begun - EARLIER_S, begun, guild_id)
    return now, then


def _paired(then: dict[int, list[bool]], now: dict[int, list[bool]], each: int) -> float:
    """The last marks then against the first ones now, of whoever has enough of these and any of those."""
    paired = PairedEvidence()
    for member, marks in now.items():
        if len(marks) >= each and (earlier := then.get(member, [])[-each:]):
            paired.add(sum(earlier) / len(earlier), sum(marks[:each]) / each)
    return paired.evidence
