"""Texts about rollouts for moderators."""

from bot.chat.model_names import version_label
from bot.store import ReplyTally, Rollout
from bot.versions.rollout.rollout_metrics import RolloutComparison
from bot.versions.sequential_test import ALPHA, E_VALUE_THRESHOLD


def started_text(rollout: Rollout, name: str) -> str:
    """Announce the start of a rollout; `name` is the persona's."""
    return (
        f"**{rollout.version}** of **{name}** makes {_scope(rollout)} from now on, "
        f"{version_label(rollout.before)} the others. "
        "If members fare worse with it, it is rolled back automatically, which is announced here."
    )


def stopped_text(rollout: Rollout, name: str) -> str:
    """Confirm that a moderator has ended a rollout."""
    before = version_label(rollout.before)
    return f"{rollout.version} of **{name}** is no longer rolled out: {before} makes all replies again."


def ended_text(rollout: Rollout, name: str) -> str:
    """Announce the end of a rollout that no moderator ended."""
    if rollout.ending == "worse":
        verb = "answers" if rollout.is_promoted else "makes all replies"
        return (
            f"**{rollout.version}** of **{name}** was rolled back automatically: "
            f"{version_label(rollout.before)} {verb} again.\n"
            f"Members fared worse with it: {rollout.why}.\n"
            f"-# The chance that this happens to a version that is no worse is {ALPHA:.0%} at most."
        )
    if rollout.ending == "withdrawn":
        return f"{rollout.version} of **{name}** is no longer rolled out: it was withdrawn."
    return f"{rollout.version} of **{name}** is no longer rolled out: another version is live now."


def rollback_reason(rollout: Rollout, comparison: RolloutComparison) -> str:
    """Reason of an automatic rollback, with the numbers; stored with it."""
    new, before = comparison.new, comparison.before
    if comparison.worse == "votes":
        counted = [f"{t.down} 👎 and {t.up} 👍 on {t.replies} replies" for t in (new, before)]
        return f"more 👎 ({rollout.version}: {counted[0]}; {version_label(rollout.before)}: {counted[1]})"
    counted = [f"{t.interrupted} of {t.replies}" for t in (new, before)]
    label = version_label(rollout.before)
    return f"more replies stopped or regenerated ({rollout.version}: {counted[0]}; {label}: {counted[1]})"


def status_text(rollout: Rollout, name: str, comparison: RolloutComparison) -> str:
    """Status of a rollout."""
    share = "live, and observed" if rollout.is_promoted else f"makes {_scope(rollout)}"
    until = f" until <t:{rollout.watched_until:.0f}:f>" if rollout.watched_until else ""
    return "\n".join(
        [
            f"**{name} {rollout.version}** {share}{until}, since <t:{rollout.started_at:.0f}:f>.",
            f"{rollout.version}: {tally_text(comparison.new)}",
            f"{version_label(rollout.before)}: {tally_text(comparison.before)}",
            f"-# Evidence that it is worse: {comparison.votes:.2g} by votes, {comparison.interruptions:.2g} by replies "
            f"stopped or regenerated; at {E_VALUE_THRESHOLD:.0f} it is rolled back.",
        ]
    )


def tally_text(tally: ReplyTally) -> str:
    """Counts in a line."""
    return f"{tally.replies} replies · {tally.up} 👍 · {tally.down} 👎 · {tally.interrupted} stopped or regenerated"


def share_text(rollout: Rollout) -> str:
    """The share of the replies that the version answers."""
    place = f" in <#{rollout.only_channel}>" if rollout.only_channel else ""
    return (f"{rollout.share} % of the replies" if rollout.is_randomised else "the replies") + place


def _scope(rollout: Rollout) -> str:
    place = "" if rollout.only_channel else " in this server"
    return share_text(rollout) + place
