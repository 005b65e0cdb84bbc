"""Texts about rollouts for moderators."""

from __future__ import annotations

from bot.store import ReplyTally, Rollout
from bot.versions.rollout.rollout_metrics import RolloutComparison
from bot.versions.sequential_test import ALPHA, E_VALUE_THRESHOLD

BASE_MODEL_LABEL = "the base model"


def version_label(version: str | None) -> str:
    """A version as people call it."""
    return version or BASE_MODEL_LABEL


def started_text(rollout: Rollout, name: str) -> str:
    """Announce the start of a rollout; `name` is the persona's."""
    return (
        f"**{rollout.version}** of **{name}** makes {_scope(rollout)} from now on, "
        f"{version_label(rollout.before)} the others. "
        "Should members fare worse with it, it is taken back by itself, and that is said here."
    )


def stopped_text(rollout: Rollout, name: str) -> str:
    """A moderator has ended it."""
    before = version_label(rollout.before)
    return f"{rollout.version} of **{name}** is no longer rolled out: {before} makes all replies again."


def ended_text(rollout: Rollout, name: str) -> str:
    """Announce the end of a rollout that no moderator ended."""
    if rollout.ending == "worse":
        verb = "speaks" if rollout.is_promoted else "makes all replies"
        return (
            f"**{rollout.version}** of **{name}** was taken back by itself: "
            f"{version_label(rollout.before)} {verb} again.\n"
            f"Members fared worse with it: {rollout.why}.\n"
            f"-# The chance that this befalls a version that is no worse is {ALPHA:.0%} at most."
        )
    if rollout.ending == "withdrawn":
        return f"{rollout.version} of **{name}** is no longer rolled out: it was withdrawn."
    return f"{rollout.version} of **{name}** is no longer rolled out: another version speaks now."


def rollback_reason(rollout: Rollout, comparison: RolloutComparison) -> str:
    """Reason of an automatic rollback, with the numbers; stored with it."""
    new, before = comparison.new, comparison.before
    if comparison.worse == "votes":
        counted = [f"{t.down} 👎 and {t.up} 👍 on {t.replies} replies" for t in (new, before)]
        return f"more 👎 ({rollout.version}: {counted[0]}; {version_label(rollout.before)}: {counted[1]})"
    counted = [f"{t.interrupted} of {t.replies}" for t in (new, before)]
    label = version_label(rollout.before)
    return f"more replies stopped or made anew ({rollout.version}: {counted[0]}; {label}: {counted[1]})"


def status_text(rollout: Rollout, name: str, comparison: RolloutComparison) -> str:
    """Status of a rollout."""
    share = "live, and watched" if rollout.is_promoted else f"makes {_scope(rollout)}"
    until = f" until <t:{rollout.watched_until:.0f}:f>" if rollout.watched_until else ""
    return "\n".join(
        [
            f"**{name} {rollout.version}** {share}{until}, since <t:{rollout.started_at:.0f}:f>.",
            f"{rollout.version}: {tally_text(comparison.new)}",
            f"{version_label(rollout.before)}: {tally_text(comparison.before)}",
            f"-# Evidence that it is worse: {comparison.votes:.2g} by votes, {comparison.interruptions:.2g} by replies "
            f"stopped or made anew; at {E_VALUE_THRESHOLD:.0f} it is taken back.",
        ]
    )


def tally_text(tally: ReplyTally) -> str:
    """Counts in a line."""
    return f"{tally.replies} replies · {tally.up} 👍 · {tally.down} 👎 · {tally.interrupted} stopped or made anew"


def share_text(rollout: Rollout) -> str:
    """To what part of the replies it is rolled out."""
    place = f" in <#{rollout.only_channel}>" if rollout.only_channel else ""
    return (f"{rollout.share} % of the replies" if rollout.is_randomised else "the replies") + place


def _scope(rollout: Rollout) -> str:
    place = "" if rollout.only_channel else " in this server"
    return share_text(rollout) + place
