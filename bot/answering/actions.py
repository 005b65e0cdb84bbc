"""When a persona answers in a channel: what holds."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from bot.guild_settings.actions import SettingsActions
from bot.guild_settings.definitions import ANSWERING, MAX_CHANCE
from bot.guild_settings.quiet_hours import QuietHours
from bot.guilds.time_zones import GuildTimeZones

UTC = ZoneInfo("UTC")


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
    """Reads when personas answer."""

    settings: SettingsActions
    time_zones: GuildTimeZones

    def in_channel(
        self, guild_id: int, channel_id: int, parent_id: int | None = None
    ) -> EffectiveAnswering:
        """Return what holds in a channel, or in a thread of the channel `parent_id`."""
        held = self.settings.in_channel(ANSWERING, guild_id, channel_id, parent_id)
        hours = held["quiet_hours"].value
        return EffectiveAnswering(
            wait_s=held["wait_s"].value,
            reply_chance=held["reply_chance"].value,
            quiet_hours=QuietHours.parse(hours) if hours else None,
            quiet_mentions=held["quiet_mentions"].value,
            zone=self.time_zones.in_guild(guild_id) if hours else UTC,
        )

    def is_quiet(
        self, guild_id: int, channel_id: int, parent_id: int | None = None, *, at: float
    ) -> bool:
        """Report whether a time, in seconds since 1970, is in a channel's quiet hours."""
        held = self.in_channel(guild_id, channel_id, parent_id)
        return held.is_quiet(datetime.fromtimestamp(at, UTC))
