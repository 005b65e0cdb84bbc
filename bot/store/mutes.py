"""Where moderators have silenced personas."""

from __future__ import annotations

from dataclasses import dataclass

from bot.store.database import Connection

EVERYWHERE, EVERYONE = 0, ""
"""In place of a channel: the whole server. In place of a persona: all of them."""


@dataclass(frozen=True)
class Mute:
    """A silence. `at` in seconds since 1970."""

    guild_id: int
    channel_id: int
    persona_id: str
    muted_by: int
    at: float


class Mutes:
    """The silences of all guilds. They survive a restart, and hold whichever persona moves in."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def add(self, mute: Mute) -> None:
        """Silence; doing so again changes nothing."""
        self._db.write(
            "insert or ignore into mutes values (:guild_id, :channel_id, :persona_id, :muted_by, :at)", vars(mute)
        )

    def remove(self, guild_id: int, channel_id: int, persona_id: str) -> bool:
        """Lift the silence that was made for just this place and persona. False when there is none."""
        sql = "delete from mutes where guild_id = :guild and channel_id = :channel and persona_id = :persona"
        return self._db.write(sql, {"guild": guild_id, "channel": channel_id, "persona": persona_id}) > 0

    def holding(self, guild_id: int, channel_id: int, parent_id: int | None, persona_id: str) -> Mute | None:
        """What silences a persona in a channel, or in a thread of the channel `parent_id`."""
        row = self._db.first(
            """select * from mutes where guild_id = :guild and channel_id in (0, :channel, :parent)
            and persona_id in ('', :persona) limit 1""",
            {"guild": guild_id, "channel": channel_id, "parent": parent_id, "persona": persona_id},
        )
        return Mute(**row) if row else None

    def of_guild(self, guild_id: int) -> list[Mute]:
        """All silences of a guild, oldest first."""
        return [
            Mute(**row)
            for row in self._db.read("select * from mutes where guild_id = :guild order by at", {"guild": guild_id})
        ]
