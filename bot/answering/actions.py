"""When a persona answers in a channel: what holds, and changes of it."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from bot.answering.quiet_hours import QuietHours
from bot.answering.store import AnsweringSettings, SettingValue
from bot.guilds.time_zones import GuildTimeZones
from bot.platform.change_record import ChangeRecord, no_record
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, join_texts
from bot.store import Store

UTC = ZoneInfo("UTC")
MAX_WAIT_S = 10.0
MAX_CHANCE = 100
LABELS = {
    "wait_s": gettext_lazy("the wait for further lines"),
    "reply_chance": gettext_lazy("the reply chance"),
    "quiet_hours": gettext_lazy("the quiet hours"),
    "quiet_mentions": gettext_lazy("whether mentions are silent"),
}
"""The fields' names for people, within a sentence."""
SERVER_FIELDS = ("reply_chance", "quiet_hours", "quiet_mentions")
"""Fields without a meaning in direct messages."""


@dataclass(frozen=True)
class EffectiveAnswering:
    """What holds in a channel. `zone` is the time zone of the quiet hours."""

    wait_s: float = 0.0
    reply_chance: int = MAX_CHANCE
    quiet_hours: QuietHours | None = None
    quiet_mentions: bool = False
    zone: ZoneInfo = UTC

    def is_quiet(self, at: datetime) -> bool:
        """Report whether a time is in the quiet hours."""
        return self.quiet_hours is not None and self.quiet_hours.contain(at.astimezone(self.zone))

    def draws(self, event_id: int) -> bool:
        """Report whether the reply chance falls on an event: the same whenever it is asked."""
        digest = hashlib.sha256(f"reply chance:{event_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.reply_chance * 2**64 // MAX_CHANCE


@dataclass(frozen=True)
class AnsweringActions:
    """Reads and changes when personas answer."""

    store: Store
    time_zones: GuildTimeZones
    record_change: ChangeRecord = no_record

    def in_channel(
        self, guild_id: int, channel_id: int, parent_id: int | None = None
    ) -> EffectiveAnswering:
        """Return what holds in a channel, or in a thread of the channel `parent_id`."""
        held: dict[str, SettingValue] = {}
        for settings in self.store.answering.applying(guild_id, channel_id, parent_id):
            for name, value in vars(settings).items():
                if value is not None:
                    held.setdefault(name, value)
        if not held:
            return EffectiveAnswering()
        effective = EffectiveAnswering(
            wait_s=float(held.get("wait_s", 0.0)),
            reply_chance=int(held.get("reply_chance", MAX_CHANCE)),
            quiet_mentions=bool(held.get("quiet_mentions", False)),
        )
        if not guild_id:
            return EffectiveAnswering(wait_s=effective.wait_s)
        hours = held.get("quiet_hours")
        if not hours:
            return effective
        return replace(
            effective,
            quiet_hours=QuietHours.parse(str(hours)),
            zone=self.time_zones.in_guild(guild_id),
        )

    def is_quiet(
        self, guild_id: int, channel_id: int, parent_id: int | None = None, *, at: float
    ) -> bool:
        """Report whether a time, in seconds since 1970, is in a channel's quiet hours."""
        held = self.in_channel(guild_id, channel_id, parent_id)
        return held.is_quiet(datetime.fromtimestamp(at, UTC))

    def change(
        self,
        guild_id: int,
        channel_id: int,
        changes: Mapping[str, SettingValue | None],
        seen: Mapping[str, SettingValue | None] | None = None,
        *,
        by: int = 0,
    ) -> AnsweringSettings:
        """Set fields of a channel (None leaves one to its parent or the default), and return all, as
        a member or (0) the operator decided.

        `seen` are the values that a form showed: a field that was changed since is refused, not
        overwritten. Raises `RefusedError`, also for wrong values; nothing is changed then.
        """
        if not changes:
            raise RefusedError(
                gettext_lazy("Nothing was given to change."),
                gettext_lazy(
                    "Choose among {settings}.",
                    settings=join_texts(*LABELS.values(), separator=", "),
                ),
            )
        checked = {name: _checked(name, value) for name, value in changes.items()}
        if not guild_id and any(name in SERVER_FIELDS for name in checked):
            raise RefusedError(
                gettext_lazy("This is set for channels of a server."),
                gettext_lazy("Here, set `wait` alone."),
            )
        with self.store.atomic():
            stored = vars(self.store.answering.get(guild_id, channel_id))
            for name in checked:
                if seen is not None and seen.get(name) != stored[name]:
                    raise RefusedError(
                        f"Somebody else has changed {LABELS[name]} meanwhile.",
                        "Look at it again.",
                    )
            settings = self.store.answering.change(guild_id, channel_id, checked, time.time())
        if guild_id:
            changed = join_texts(
                *(LABELS[name] for name in LABELS if name in checked), separator=", "
            )
            what = gettext_lazy(
                "changed {settings} in {channel}", settings=changed, channel=f"<#{channel_id}>"
            )
            self.record_change(guild_id, by, what)
        return settings

    def reset(self, guild_id: int, channel_id: int, *, by: int = 0) -> None:
        """Remove all settings of a channel, as a member or (0) the operator decided. Raises
        `RefusedError` where it has none.
        """
        if self.store.answering.get(guild_id, channel_id) == AnsweringSettings():
            raise RefusedError(
                gettext_lazy("Nothing is set here."), gettext_lazy("So there is nothing to reset.")
            )
        self.store.answering.forget_channel(channel_id)
        if guild_id:
            what = gettext_lazy(
                "reset when personas answer in {channel}", channel=f"<#{channel_id}>"
            )
            self.record_change(guild_id, by, what)


def _checked(name: str, value: SettingValue | None) -> SettingValue | None:
    """Return a value as it is stored. Raises `RefusedError`."""
    if value is None:
        return None
    if name == "quiet_hours":
        return str(QuietHours.parse(str(value)))
    most = {"wait_s": MAX_WAIT_S, "reply_chance": MAX_CHANCE}.get(name)
    if most is not None and not 0 <= float(value) <= most:
        raise RefusedError(
            gettext_lazy(
                "{value} is out of range for {setting}.", setting=LABELS[name], value=value
            ),
            gettext_lazy("Choose from 0 to {most:g}.", most=most),
        )
    return value
