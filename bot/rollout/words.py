"""What moderators read of versions on trial."""

from __future__ import annotations

from bot.rollout.comparing import Comparison
from bot.rollout.evidence import ALPHA, NEEDED
from bot.store import Rollout, Tally

BASE = "the base model"


def named(version: str | None) -> str:
    """A version as people call it."""
    return version or BASE


def begun(rollout: Rollout, name: str) -> str:
    """What happens from now on; `name` is the persona's."""
    return (
        f"**{rollout.version}** of **{name}** makes {_scope(rollout)} from now on, {named(rollout.before)} the others. "
        "Should members fare worse with it, it is taken back by itself, and that is said here."
    )


def stopped(rollout: Rollout, name: str) -> str:
    """A moderator has ended it."""
    return f"{rollout.version} of **{name}** is no longer rolled out: {named(rollout.before)} makes all replies again."


def ended(rollout: Rollout, name: str) -> str:
    """What is said where it was begun when it ends otherwise than by a moderator's word."""
    if rollout.ending == "worse":
        verb = "speaks" if rollout.is_promoted else "makes all replies"
        return (
            f"**{rollout.version}** of **{name}** was taken back by itself: {named(rollout.before)} {verb} again.\n"
            f"Members fared worse with it: {rollout.why}.\n"
            f"-# The chance that this befalls a version that is no worse is {ALPHA:.0%} at most."
        )
    if rollout.ending == "withdrawn":
        return f"{rollout.version} of **{name}** is no longer rolled out: it was withdrawn."
    return f"{rollout.version} of **{name}** is no longer rolled out: another version speaks now."


def reason(rollout: Rollout, comparison: Comparison) -> str:
    """Why a version was taken back, with the numbers; kept with it."""
    new, before = comparison.new, comparison.before
    if comparison.worse == "votes":
        counted = [f"{t.down} 👎 and {t.up} 👍 on {t.replies} replies" for t in (new, before)]
        return f"more 👎 ({rollout.version}: {counted[0]}; {named(rollout.before)}: {counted[1]})"
    counted = [f"{t.interrupted} of {t.replies}" for t in (new, before)]
    return f"more replies stopped or made anew ({rollout.version}: {counted[0]}; {named(rollout.before)}: {counted[1]})"


def status(rollout: Rollout, name: str, comparison: Comparison) -> str:
    """How it goes."""
    share = "live, and watched" if rollout.is_promoted else f"makes {_scope(rollout)}"
    until = f" until <t:{rollout.watched_until:.0f}:f>" if rollout.watched_until else ""
    return "\n".join(
        [
            f"**{name} {rollout.version}** {share}{until}, since <t:{rollout.started_at:.0f}:f>.",
            f"{rollout.version}: {tally_words(comparison.new)}",
            f"{named(rollout.before)}: {tally_words(comparison.before)}",
            f"-# Evidence that it is worse: {comparison.votes:.2g} by votes, {comparison.interruptions:.2g} by replies "
            f"stopped or made anew; at {NEEDED:.0f} it is taken back.",
        ]
    )


def tally_words(tally: Tally) -> str:
    """Counts in a line."""
    return f"{tally.replies} replies · {tally.up} 👍 · {tally.down} 👎 · {tally.interrupted} stopped or made anew"


def where(rollout: Rollout) -> str:
    """To what part of the replies it is rolled out."""
    place = f" in <#{rollout.only_channel}>" if rollout.only_channel else ""
    return (f"{rollout.share} % of the replies" if rollout.is_drawn else "the replies") + place


def _scope(rollout: Rollout) -> str:
    place = "" if rollout.only_channel else " in this server"
    return where(rollout) + place
