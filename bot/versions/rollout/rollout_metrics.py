"""Compares a version with the one before it by votes, interruptions and blind comparisons."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from bot.store import BASE_MODEL_NAME, ReplySelection, ReplyTally, Rollout, Store
from bot.versions.blind_test.judgement import member_scores
from bot.versions.sequential_test import (
    E_VALUE_THRESHOLD,
    MIN_RULING_MEMBERS,
    LikelihoodRatioEProcess,
    PairedEProcess,
    confidence_range,
)
from personas.schemas.scorecard import MemberFeedback

HarmSignal = Literal["votes", "interruptions"]
MIN_REPLIES_PER_VERSION = 10  # minimum replies of each version before a decision
BASELINE_WINDOW_S = 30 * 86_400.0
"""Seconds for which earlier replies of the previous version count, where versions were not drawn at random."""
MIN_VOTES_PER_MEMBER, MIN_REPLIES_PER_MEMBER = 3, 5
"""Minimum votes, and requested replies, of a member for each version where versions were not drawn at random."""
EVEN_SHARE = 0.5


@dataclass(frozen=True)
class RolloutComparison:
    """Feedback on both versions' replies, and the evidence that the new version is worse."""

    new: ReplyTally
    before: ReplyTally
    votes: float
    interruptions: float

    @property
    def worse(self) -> HarmSignal | None:
        """By what the new version is worse; None while that is not shown."""
        if (
            min(self.new.replies, self.before.replies) < MIN_REPLIES_PER_VERSION
            or max(self.votes, self.interruptions) < E_VALUE_THRESHOLD
        ):
            return None
        return "votes" if self.votes >= self.interruptions else "interruptions"


def compare_rollout(store: Store, rollout: Rollout) -> RolloutComparison:
    """Compare a rollout's versions as of now."""
    return _compare_randomised(store, rollout) if rollout.is_randomised else _compare_before_after(store, rollout)


def _compare_randomised(store: Store, rollout: Rollout) -> RolloutComparison:
    votes, interruptions = LikelihoodRatioEProcess(rollout.share / 100), LikelihoodRatioEProcess(rollout.share / 100)
    tallies = {True: ReplyTally(), False: ReplyTally()}
    for reply in store.reply_stats.of_rollout(rollout.seq):
        is_new = rollout.draws(reply.event_id)
        tallies[is_new] += reply.tally
        if reply.voter is not None:
            votes.add(reply.voter, is_new=is_new, is_bad=reply.vote == -1)
        if reply.interrupted:
            interruptions.add(reply.asked_by, is_new=is_new, is_bad=True)
    return RolloutComparison(tallies[True], tallies[False], votes.evidence, interruptions.evidence)


def _compare_before_after(store: Store, rollout: Rollout) -> RolloutComparison:
    now, then = _selections(rollout)
    votes = _paired_e_value(
        store.reply_stats.downvotes_by_member(then), store.reply_stats.downvotes_by_member(now), MIN_VOTES_PER_MEMBER
    )
    # A reply can still be stopped or made anew until its member has asked for the next one.
    settled = {member: marks[:-1] for member, marks in store.reply_stats.interruptions_by_member(now).items()}
    interruptions = _paired_e_value(store.reply_stats.interruptions_by_member(then), settled, MIN_REPLIES_PER_MEMBER)
    return RolloutComparison(store.reply_stats.of(now), store.reply_stats.of(then), votes, interruptions)


def _selections(rollout: Rollout) -> tuple[ReplySelection, ReplySelection]:
    """The replies of the new version, and those of the one before until then."""
    begun, whole = rollout.started_at, rollout.is_promoted
    guild_id, number = (None, None) if whole else (rollout.guild_id, rollout.seq)
    now = ReplySelection(rollout.persona_id, rollout.version, begun, guild_id=guild_id, rollout=number)
    then = ReplySelection(rollout.persona_id, rollout.before, begun - BASELINE_WINDOW_S, begun, guild_id)
    return now, then


def _paired_e_value(then: dict[int, list[bool]], now: dict[int, list[bool]], each: int) -> float:
    """The last marks then against the first ones now, of whoever has enough of these and any of those."""
    paired = PairedEProcess()
    for member, marks in now.items():
        if len(marks) >= each and (earlier := then.get(member, [])[-each:]):
            paired.add(sum(earlier) / len(earlier), sum(marks[:each]) / each)
    return paired.evidence


async def summarise_votes(
    store: Store, persona_id: str, version: str, now: float, guild_id: int | None = None
) -> MemberFeedback | None:
    """Summarise the votes in a guild, or (None) in all, at a time in seconds since 1970.

    None for the version that speaks, and for one of which nobody has said anything.
    """
    live = store.versions.live(persona_id)
    names = {version, live or BASE_MODEL_NAME}
    votes = [one for one in store.comparisons.voted(persona_id, guild_id) if set(one.versions) == names]
    own, other = (
        store.reply_stats.of(ReplySelection(persona_id, which, guild_id=guild_id)) for which in (version, live)
    )
    if live == version or not (votes or own.up or own.down):
        return None
    values = member_scores(votes, version, now)
    sure = await asyncio.to_thread(confidence_range, values) if len(values) >= MIN_RULING_MEMBERS else None
    return MemberFeedback(
        against=live or BASE_MODEL_NAME,
        votes=len(votes),
        members=len(values),
        least=sure.low if sure else None,
        most=sure.high if sure else None,
        up=(own.up, other.up),
        down=(own.down, other.down),
        evidence=_max_rollout_evidence(store, persona_id, version, live, guild_id),
    )


def vote_objections(found: MemberFeedback | None) -> tuple[str, ...]:
    """List the members' certain objections to a version, a sentence each."""
    if found is None:
        return ()
    other = "the base model" if found.against == BASE_MODEL_NAME else found.against
    said = []
    if found.least is not None and found.most is not None and found.most < EVEN_SHARE:
        said.append(f"Members prefer {other}: this one in {found.least:.0%} to {found.most:.0%} of blind comparisons.")
    if found.evidence is not None and found.evidence >= E_VALUE_THRESHOLD:
        said.append(f"Its replies are disliked more than those of {other}: {found.down[0]} 👎 and {found.up[0]} 👍.")
    return tuple(said)


def _max_rollout_evidence(
    store: Store, persona_id: str, version: str, live: str | None, guild_id: int | None
) -> float | None:
    """The most that any trial of the version beside the one that speaks has brought; ended ones count."""
    rollouts = store.rollouts
    tried = rollouts.of_all_guilds(persona_id) if guild_id is None else rollouts.of_persona(persona_id, guild_id)
    beside = [one for one in tried if (one.version, one.before) == (version, live)]
    return max((compare_rollout(store, one).votes for one in beside), default=None)
