"""Compares a rollout's version with the one before it, by votes and interruptions, and describes it
to moderators.
"""

from dataclasses import dataclass
from typing import Literal

from bot.chat.model_names import version_label
from bot.platform.localisation import gettext_lazy, join_texts
from bot.store import ReplySelection, ReplyTally, Rollout, Store
from bot.versions.statistics.sequential_test import (
    ALPHA,
    E_VALUE_THRESHOLD,
    LikelihoodRatioEProcess,
    PairedEProcess,
)

HarmSignal = Literal["votes", "interruptions"]
MIN_REPLIES_PER_VERSION = 10
"""Replies that each version needs before it is judged."""
BASELINE_WINDOW_S = 30 * 86_400.0
"""Age of the old version's replies that count, in seconds, where nothing was drawn."""
# Votes or replies of each version that a member needs to count, where nothing was drawn
MIN_VOTES_PER_MEMBER = 3
MIN_REPLIES_PER_MEMBER = 5


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
        if self.votes >= self.interruptions:
            return "votes"
        return "interruptions"


def compare_rollout(store: Store, rollout: Rollout) -> RolloutComparison:
    """Compare a rollout's versions as of now."""
    if rollout.is_randomised:
        return _compare_randomised(store, rollout)
    return _compare_before_after(store, rollout)


def _compare_randomised(store: Store, rollout: Rollout) -> RolloutComparison:
    votes = LikelihoodRatioEProcess(rollout.share / 100)
    interruptions = LikelihoodRatioEProcess(rollout.share / 100)
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
        store.reply_stats.downvotes_by_member(then),
        store.reply_stats.downvotes_by_member(now),
        MIN_VOTES_PER_MEMBER,
    )
    # A reply can still be stopped or regenerated until its member has asked for the next one.
    settled = {}
    for member, marks in store.reply_stats.interruptions_by_member(now).items():
        settled[member] = marks[:-1]
    interruptions = _paired_e_value(
        store.reply_stats.interruptions_by_member(then), settled, MIN_REPLIES_PER_MEMBER
    )
    return RolloutComparison(
        store.reply_stats.of(now), store.reply_stats.of(then), votes, interruptions
    )


def _selections(rollout: Rollout) -> tuple[ReplySelection, ReplySelection]:
    start = rollout.started_at
    guild_id = rollout.guild_id or None
    seq = None if rollout.is_promoted else rollout.seq
    now = ReplySelection(rollout.persona_id, rollout.version, start, guild_id=guild_id, rollout=seq)
    then = ReplySelection(
        rollout.persona_id,
        version=rollout.before,
        since=start - BASELINE_WINDOW_S,
        until=start,
        guild_id=guild_id,
    )
    return now, then


def _paired_e_value(then: dict[int, list[bool]], now: dict[int, list[bool]], each: int) -> float:
    """Compare the last marks of then with the first `each` ones of now, by member."""
    paired = PairedEProcess()
    for member, marks in now.items():
        if len(marks) >= each and (earlier := then.get(member, [])[-each:]):
            paired.add(sum(earlier) / len(earlier), sum(marks[:each]) / each)
    return paired.evidence


def started_text(rollout: Rollout, name: str) -> str:
    """Announce the start of a rollout; `name` is the persona's."""
    return gettext_lazy(
        "**{version}** of **{persona}** makes {scope} from now on, {before} the others. If members "
        "fare worse with it, it is rolled back automatically, which is announced here.",
        version=rollout.version,
        persona=name,
        scope=_scope(rollout),
        before=version_label(rollout.before),
    )


def stopped_text(rollout: Rollout, name: str) -> str:
    """Confirm that a moderator has ended a rollout."""
    return gettext_lazy(
        "{version} of **{persona}** is no longer rolled out: {before} makes all replies again.",
        version=rollout.version,
        persona=name,
        before=version_label(rollout.before),
    )


def ended_text(rollout: Rollout, name: str) -> str:
    """Announce the end of a rollout that no moderator ended."""
    if rollout.ending == "worse":
        values = {
            "version": rollout.version,
            "persona": name,
            "before": version_label(rollout.before),
            "why": rollout.why,
            "chance": ALPHA,
        }
        if rollout.is_promoted:
            return gettext_lazy(
                "**{version}** of **{persona}** was rolled back automatically: {before} answers "
                "again.\n"
                "Members fared worse with it: {why}.\n"
                "-# The chance that this happens to a version that is no worse is {chance:.0%} at "
                "most.",
                **values,
            )
        return gettext_lazy(
            "**{version}** of **{persona}** was rolled back automatically: {before} makes all "
            "replies again.\n"
            "Members fared worse with it: {why}.\n"
            "-# The chance that this happens to a version that is no worse is {chance:.0%} at most.",
            **values,
        )
    if rollout.ending == "withdrawn":
        return gettext_lazy(
            "{version} of **{persona}** is no longer rolled out: it was withdrawn.",
            version=rollout.version,
            persona=name,
        )
    return gettext_lazy(
        "{version} of **{persona}** is no longer rolled out: another version is live now.",
        version=rollout.version,
        persona=name,
    )


def rollback_reason(rollout: Rollout, comparison: RolloutComparison) -> str:
    """Reason of an automatic rollback, with the numbers; stored with it."""
    new = comparison.new
    before = comparison.before
    if comparison.worse == "votes":
        return (
            f"more 👎 ({rollout.version}: {_votes_text(new)}; {version_label(rollout.before)}: "
            f"{_votes_text(before)})"
        )
    return (
        f"more replies stopped or regenerated ({rollout.version}: {new.interrupted} of "
        f"{new.replies}; {version_label(rollout.before)}: {before.interrupted} of {before.replies})"
    )


def _votes_text(tally: ReplyTally) -> str:
    return f"{tally.down} 👎 and {tally.up} 👍 on {tally.replies} replies"


def status_text(rollout: Rollout, name: str, comparison: RolloutComparison) -> str:
    """Status of a rollout."""
    return join_texts(
        _state_text(rollout, name),
        _tally_line(rollout.version, comparison.new),
        _tally_line(version_label(rollout.before), comparison.before),
        gettext_lazy(
            "-# Evidence that it is worse: {votes:.2g} by votes, {interruptions:.2g} by replies "
            "stopped or regenerated; at {threshold:.0f} it is rolled back.",
            votes=comparison.votes,
            interruptions=comparison.interruptions,
            threshold=E_VALUE_THRESHOLD,
        ),
        separator="\n",
    )


def _state_text(rollout: Rollout, name: str) -> str:
    values: dict[str, object] = {
        "version": f"**{name} {rollout.version}**",
        "since": f"<t:{rollout.started_at:.0f}:f>",
    }
    if not rollout.is_promoted:
        return gettext_lazy(
            "{version} makes {scope}, since {since}.", scope=_scope(rollout), **values
        )
    if rollout.watched_until:
        until = f"<t:{rollout.watched_until:.0f}:f>"
        return gettext_lazy(
            "{version} live, and observed until {until}, since {since}.", until=until, **values
        )
    return gettext_lazy("{version} live, and observed, since {since}.", **values)


def _tally_line(version: str, tally: ReplyTally) -> str:
    return gettext_lazy("{version}: {counts}", version=version, counts=tally_text(tally))


def tally_text(tally: ReplyTally) -> str:
    """Counts in a line."""
    return gettext_lazy(
        "{replies} replies · {up} 👍 · {down} 👎 · {interrupted} stopped or regenerated",
        replies=tally.replies,
        up=tally.up,
        down=tally.down,
        interrupted=tally.interrupted,
    )


def share_text(rollout: Rollout) -> str:
    """The share of the replies that the version answers."""
    share = gettext_lazy("the replies")
    if rollout.is_randomised:
        share = gettext_lazy("{share} % of the replies", share=rollout.share)
    if rollout.only_channel:
        channel = f"<#{rollout.only_channel}>"
        return gettext_lazy("{share} in {channel}", share=share, channel=channel)
    return share


def _scope(rollout: Rollout) -> str:
    if rollout.only_channel:
        return share_text(rollout)
    return gettext_lazy("{share} in this server", share=share_text(rollout))
