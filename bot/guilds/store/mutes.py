"""Mutes of personas, channels and guilds."""

from dataclasses import dataclass

from bot.platform.db.database import Table

# These stand for all channels of a guild, and for all personas.
ALL_CHANNELS = 0
ALL_PERSONAS = ""


@dataclass(frozen=True)
class Mute:
    """A muted persona, channel or guild. `at` in seconds since 1970."""

    guild_id: int
    channel_id: int
    persona_id: str
    muted_by: int
    at: float


class Mutes(Table):
    """The mutes of all guilds. They survive a restart, and apply to personas assigned later,
    too.
    """

    def add(self, mute: Mute) -> None:
        """Add a mute; idempotent."""
        self._db.insert("mutes", vars(mute), ignore=True)

    def remove(self, guild_id: int, channel_id: int, persona_id: str) -> bool:
        """Remove the mute of exactly this channel and persona. False when there is none."""
        sql = (
            "delete from mutes where guild_id = :guild and channel_id = :channel and persona_id = "
            ":persona"
        )
        return self._db.write(sql, guild=guild_id, channel=channel_id, persona=persona_id) > 0

    def find_applying(
        self, guild_id: int, channel_id: int, parent_id: int | None, persona_id: str
    ) -> Mute | None:
        """Find a mute that applies to a persona in a channel, or in a thread of the channel
        `parent_id`.
        """
        sql = """select * from mutes where guild_id = :guild and channel_id in (0, :channel, :parent)
            and persona_id in ('', :persona) limit 1"""
        return self._db.one(
            Mute, sql, guild=guild_id, channel=channel_id, parent=parent_id, persona=persona_id
        )

    def guilds(self) -> list[int]:
        """List the guilds with mutes."""
        return self._db.column(int, "select distinct guild_id from mutes")

    def of_guild(self, guild_id: int) -> list[Mute]:
        """List the mutes of a guild, oldest first."""
        return self._db.all(
            Mute, "select * from mutes where guild_id = :guild order by at", guild=guild_id
        )
