"""Compares a version with the one before it by votes, interruptions and blind comparisons."""

import asyncio
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, Self

from bot.store import BASE_MODEL_NAME, ReplySelection, ReplyTally, Rollout, Store
from bot.versions.blind_test.judgement import completed_scores
from bot.versions.sequential_test import (
    E_VALUE_THRESHOLD,
    MIN_RULING_MEMBERS,
    LikelihoodRatioEProcess,
    PairedEProcess,
    confidence_range,
)
from personas.schemas.base import FrozenModel
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


class VoteSummary(FrozenModel):
    """Votes for a version beside another, without who cast them: of one guild, or of all.

    `members` are when each is complete, and their score (`completed_scores`); `up` and `down` the 👍 and 👎 on the
    version's replies, then on the other's; `evidence` as in `MemberFeedback`.
    """

    votes: int = 0
    members: tuple[tuple[float, float], ...] = ()
    up: tuple[int, int] = (0, 0)
    down: tuple[int, int] = (0, 0)
    evidence: float | None = None

    def plus(self, other: Self) -> Self:
        """Return both together; their members are different ones."""
        return self.model_copy(
            update={
                "votes": self.votes + other.votes,
                "members": tuple(sorted([*self.members, *other.members], key=lambda one: one[0])),
                "up": (self.up[0] + other.up[0], self.up[1] + other.up[1]),
                "down": (self.down[0] + other.down[0], self.down[1] + other.down[1]),
                "evidence": max((it for it in (self.evidence, other.evidence) if it is not None), default=None),
            }
        )


def _summarise_stored_votes(
    store: Store, persona_id: str, version: str, against: str, guild_id: int | None
) -> VoteSummary:
    """Summarise the votes of this process's guilds."""
    pair, other_version = {version, against}, None if against == BASE_MODEL_NAME else against
    votes = [vote for vote in store.comparisons.voted(persona_id, guild_id) if set(vote.versions) == pair]
    selections = (ReplySelection(persona_id, which, guild_id=guild_id) for which in (version, other_version))
    own, other = map(store.reply_stats.of, selections)
    return VoteSummary(
        votes=len(votes),
        members=tuple(completed_scores(votes, version)),
        up=(own.up, other.up),
        down=(own.down, other.down),
        evidence=_max_rollout_evidence(store, persona_id, version, other_version, guild_id),
    )


def publish_votes(store: Store, persona_id: str, version: str, against: str, guild_id: int) -> None:
    """Let the other processes of a bot with shards count a guild's votes, for both versions."""
    for one, other in permutations((version, against)):
        if one not in (other, BASE_MODEL_NAME):
            summary = _summarise_stored_votes(store, persona_id, one, other, guild_id)
            store.guild_feedback.publish(guild_id, persona_id, one, other, summary.model_dump_json())


async def summarise_votes(
    store: Store, persona_id: str, version: str, now: float, guild_id: int | None = None
) -> MemberFeedback | None:
    """Summarise votes in a guild, or (None) in all, also those of other processes' shards.

    None for the live version, and without any feedback.
    """
    live = store.versions.live(persona_id)
    if live == version:
        return None
    against = live or BASE_MODEL_NAME
    found = _summarise_stored_votes(store, persona_id, version, against, guild_id)
    for text in store.guild_feedback.of_others(persona_id, version, against, guild_id):
        found = found.plus(VoteSummary.model_validate_json(text))
    if not (found.votes or found.up[0] or found.down[0]):
        return None
    values = [value for at, value in found.members if at <= now]
    bounds = await asyncio.to_thread(confidence_range, values) if len(values) >= MIN_RULING_MEMBERS else None
    return MemberFeedback(
        against=against,
        votes=found.votes,
        members=len(values),
        least=bounds.low if bounds else None,
        most=bounds.high if bounds else None,
        up=found.up,
        down=found.down,
        evidence=found.evidence,
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
