"""The time zone of each guild."""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from bot.guild_settings.definitions import TIME_ZONE
from bot.platform.clock import Clock
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.platform.time_zones import find_zone
from bot.store import Store


@dataclass(frozen=True)
class GuildTimeZones:
    """The time zones that guilds have chosen, and `default`, the operator's, for all others and for
    direct messages.
    """

    store: Store
    clock: Clock
    default: str

    def in_guild(self, guild_id: int) -> ZoneInfo:
        """Return a guild's time zone."""
        return self.chosen(TIME_ZONE.read(self.store, guild_id))

    def chosen(self, name: str | None) -> ZoneInfo:
        """Return the time zone that a guild has chosen by this name; None where it has not."""
        # A zone that this machine does not know may come from another machine's backup.
        return find_zone(name or "") or ZoneInfo(self.default)

    def now(self, guild_id: int) -> datetime:
        """Return the present time in a guild's time zone."""
        return datetime.fromtimestamp(self.clock.now(), self.in_guild(guild_id))

    def choose(self, guild_id: int, name: str) -> None:
        """Set a guild's time zone. Raises `RefusedError` for a name that IANA does not have."""
        zone = find_zone(name)
        if zone is None:
            raise RefusedError(
                gettext_lazy("There is no time zone {name!r}.", name=name[:60]),
                gettext_lazy(
                    "Choose one of those that Discord suggests while you type, such as "
                    "Europe/Berlin."
                ),
            )
        TIME_ZONE.write(self.store, zone.key, guild_id)
