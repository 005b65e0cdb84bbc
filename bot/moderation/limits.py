"""When a member who has had many replies is answered again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any

from bot.guild_settings.definitions import LIMITS
from bot.guild_settings.store import SettingScope
from bot.guilds.time_zones import GuildTimeZones
from bot.platform.errors import RefusedError
from bot.platform.localisation import LocalisableText, gettext_lazy, join_names, ngettext_lazy
from bot.store import MAX_CHANNEL_PERSONAS, Store

COUNTED_S = 25 * 3600.0
"""How long a reply may count: for the longest day, on which clocks are put back."""


@dataclass(frozen=True)
class ReplyLimits:
    """The limits of replies to one member of a guild; None is no limit."""

    per_day: int | None = None
    cooldown_s: int | None = None
    exempts_moderators: bool = True


def read_limits(store: Store, guild_id: int) -> ReplyLimits:
    """Return the limits of a guild; guild 0 stands for direct messages and places where the bot is
    not.
    """
    stored = store.settings.get(SettingScope(guild_id))
    limits: dict[str, Any] = {}
    for setting in LIMITS.settings:
        if setting.key in stored:
            limits[setting.key] = setting.usable(stored[setting.key])
    return ReplyLimits(**limits)


class LimitReachedError(RefusedError):
    """A member has had as many replies as the limits of their server allow for now. `until` is the
    time in seconds since 1970 from which they are answered again.
    """

    def __init__(self, message: str, limits: ReplyLimits, until: int) -> None:
        super().__init__(
            message, gettext_lazy("Personas answer you again <t:{until}:R>.", until=until)
        )
        self.limits = limits
        self.until = until


@dataclass(frozen=True)
class Allowance:
    """How many personas may answer a message of a member: by default, all. With a limit of replies
    per day, that decides, until the time `until` in seconds since 1970.
    """

    replies: int = MAX_CHANNEL_PERSONAS
    limits: ReplyLimits = field(default_factory=ReplyLimits)
    until: int = 0

    def left_out(self, names: Sequence[str]) -> LimitReachedError:
        """Return the notice that personas with these names do not answer any more today."""
        listed: str = names[-1]
        if others := names[:-1]:
            listed = gettext_lazy("{names} and {name}", names=join_names(others), name=names[-1])
        return LimitReachedError(
            ngettext_lazy(
                "A member gets {count} reply here each day, so {names} will not answer.",
                "A member gets {count} replies here each day, so {names} will not answer.",
                self.limits.per_day or 0,
                names=listed,
            ),
            self.limits,
            self.until,
        )


def _day_text(guild_id: int, count: int) -> LocalisableText:
    if guild_id:
        return ngettext_lazy(
            "You have had the {count} reply that a member gets here each day.",
            "You have had the {count} replies that a member gets here each day.",
            count,
        )
    return ngettext_lazy(
        "You have had the {count} reply that everybody gets each day in direct messages and "
        "wherever I am no member.",
        "You have had the {count} replies that everybody gets each day in direct messages and "
        "wherever I am no member.",
        count,
    )


def _cooldown_text(guild_id: int, count: int) -> LocalisableText:
    if guild_id:
        return ngettext_lazy(
            "There is {count} second between two replies to a member here.",
            "There are {count} seconds between two replies to a member here.",
            count,
        )
    return ngettext_lazy(
        "There is {count} second between two replies to you in direct messages and wherever I am "
        "no member.",
        "There are {count} seconds between two replies to you in direct messages and wherever I "
        "am no member.",
        count,
    )


@dataclass(frozen=True)
class LimitCheck:
    """Applies the limits of a guild to its members."""

    store: Store
    time_zones: GuildTimeZones

    def require(self, guild_id: int, user_id: int, *, is_moderator: bool) -> Allowance:
        """Return how many replies a member may have now. Raises `LimitReachedError` for one who has
        to wait. Guild 0 stands for all direct messages and places where the bot is not.
        """
        limits = read_limits(self.store, guild_id)
        if not (limits.per_day or limits.cooldown_s) or (
            is_moderator and limits.exempts_moderators
        ):
            return Allowance()
        now = self.time_zones.now(guild_id)
        allowance = self._require_day(limits, guild_id, user_id, now)
        self._require_cooldown(limits, guild_id, user_id, now.timestamp())
        return allowance

    def _require_day(
        self, limits: ReplyLimits, guild_id: int, user_id: int, now: datetime
    ) -> Allowance:
        if limits.per_day is None:
            return Allowance()
        midnight = datetime.combine(now.date(), time(), now.tzinfo)
        had = self.store.reply_attempts.since(guild_id, user_id, midnight.timestamp()).count
        until = int(datetime.combine(now.date() + timedelta(1), time(), now.tzinfo).timestamp())
        if had < limits.per_day:
            return Allowance(limits.per_day - had, limits, until)
        raise LimitReachedError(_day_text(guild_id, limits.per_day), limits, until)

    def _require_cooldown(
        self, limits: ReplyLimits, guild_id: int, user_id: int, now: float
    ) -> None:
        if limits.cooldown_s is None:
            return
        since = now - limits.cooldown_s
        latest_at = self.store.reply_attempts.since(guild_id, user_id, since).latest_at
        if latest_at is None:
            return
        until = math.ceil(latest_at + limits.cooldown_s)
        raise LimitReachedError(_cooldown_text(guild_id, limits.cooldown_s), limits, until)
