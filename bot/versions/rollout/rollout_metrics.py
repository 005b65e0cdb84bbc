"""Compares a version with the one before it by votes, interruptions and blind comparisons."""

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
MIN_REPLIES_PER_VERSION = 10
"""Replies that each version needs before it is judged."""
BASELINE_WINDOW_S = 30 * 86_400.0
"""Age of the old version's replies that count, in seconds, where nothing was drawn."""
MIN_VOTES_PER_MEMBER, MIN_REPLIES_PER_MEMBER = 3, 5
"""Votes and replies of each version that a member needs to count, where nothing was drawn."""
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
        """The signal by which the new version is worse; None while there is no evidence."""
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
    # A reply can still be stopped or regenerated until its member has asked for the next one.
    settled = {member: marks[:-1] for member, marks in store.reply_stats.interruptions_by_member(now).items()}
    interruptions = _paired_e_value(store.reply_stats.interruptions_by_member(then), settled, MIN_REPLIES_PER_MEMBER)
    return RolloutComparison(store.reply_stats.of(now), store.reply_stats.of(then), votes, interruptions)


def _selections(rollout: Rollout) -> tuple[ReplySelection, ReplySelection]:
    start = rollout.started_at
    guild_id, seq = (None, None) if rollout.is_promoted else (rollout.guild_id, rollout.seq)
    now = ReplySelection(rollout.persona_id, rollout.version, start, guild_id=guild_id, rollout=seq)
    then = ReplySelection(rollout.persona_id, rollout.before, start - BASELINE_WINDOW_S, start, guild_id)
    return now, then


def _paired_e_value(then: dict[int, list[bool]], now: dict[int, list[bool]], each: int) -> float:
    """Compare the last marks of then with the first `each` ones of now, by member."""
    paired = PairedEProcess()
    for member, marks in now.items():
        if len(marks) >= each and (earlier := then.get(member, [])[-each:]):
            paired.add(sum(earlier) / len(earlier), sum(marks[:each]) / each)
    return paired.evidence


async def summarise_votes(
    store: Store, persona_id: str, version: str, now: float, guild_id: int | None = None
) -> MemberFeedback | None:
    """Summarise votes in a guild, or (None) in all; None for the live version, and without any feedback."""
    live = store.versions.live(persona_id)
    pair = {version, live or BASE_MODEL_NAME}
    votes = [vote for vote in store.comparisons.voted(persona_id, guild_id) if set(vote.versions) == pair]
    selections = (ReplySelection(persona_id, which, guild_id=guild_id) for which in (version, live))
    own, other = map(store.reply_stats.of, selections)
    if live == version or not (votes or own.up or own.down):
        return None
    values = member_scores(votes, version, now)
    bounds = await asyncio.to_thread(confidence_range, values) if len(values) >= MIN_RULING_MEMBERS else None
    return MemberFeedback(
        against=live or BASE_MODEL_NAME,
        votes=len(votes),
        members=len(values),
        least=bounds.low if bounds else None,
        most=bounds.high if bounds else None,
        up=(own.up, other.up),
        down=(own.down, other.down),
        evidence=_max_rollout_evidence(store, persona_id, version, live, guild_id),
    )


def vote_objections(feedback: MemberFeedback | None) -> tuple[str, ...]:
    """List the members' certain objections to a version, a sentence each."""
    if feedback is None:
        return ()
    other, least, most = feedback.against, feedback.least, feedback.most
    other = "the base model" if other == BASE_MODEL_NAME else other
    objections = []
    if least is not None and most is not None and most < EVEN_SHARE:
        objections.append(f"Members prefer {other}: this one in {least:.0%} to {most:.0%} of blind comparisons.")
    if feedback.evidence is not None and feedback.evidence >= E_VALUE_THRESHOLD:
        votes = f"{feedback.down[0]} 👎 and {feedback.up[0]} 👍"
        objections.append(f"Its replies are disliked more than those of {other}: {votes}.")
    return tuple(objections)


def _max_rollout_evidence(
    store: Store, persona_id: str, version: str, live: str | None, guild_id: int | None
) -> float | None:
    """The highest evidence of any rollout, ended ones included, of the version beside the live one."""
    rollouts = store.rollouts.of_persona(persona_id, guild_id)
    compared = [it for it in rollouts if (it.version, it.before) == (version, live)]
    return max((compare_rollout(store, rollout).votes for rollout in compared), default=None)
