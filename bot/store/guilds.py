"""Servers that have removed the bot, and all that is kept of a server."""

from __future__ import annotations

from bot.store.database import Connection

OF_A_GUILD = ("messages", "replies", "channels", "webhooks", "mutes", "gifts", "departed_guilds")
"""What is deleted with a server. Its jobs stay, as that which versions are known by, without who asked and where."""


class Guilds:
    """Which servers are gone, and their end here."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def left(self, guild_id: int, at: float) -> None:
        """The bot is no longer in a server; the first time that it was noticed counts."""
        self._db.write("insert or ignore into departed_guilds values (:guild, :at)", {"guild": guild_id, "at": at})

    def returned(self, guild_id: int) -> None:
        """The bot is in the server again."""
        self._db.write("delete from departed_guilds where guild_id = :guild", {"guild": guild_id})

    def left_before(self, at: float) -> list[int]:
        """The servers that the bot left so long ago."""
        rows = self._db.read("select guild_id from departed_guilds where at < :at order by at", {"at": at})
        return [row["guild_id"] for row in rows]

    def known(self) -> set[int]:
        """All servers of which anything is kept."""
        kept = " union ".join(f"select guild_id from {table}" for table in OF_A_GUILD)
        return {row["guild_id"] for row in self._db.read(f"{kept} union select guild_id from jobs")} - {0}

    def delete(self, guild_id: int) -> None:
        """Delete all that is kept of a server."""
        with self._db.atomic():
            self._db.write(
                """delete from fresh_starts where channel_id in
                (select channel_id from messages where guild_id = :guild)""",
                {"guild": guild_id},
            )
            for table in OF_A_GUILD:
                self._db.write(f"delete from {table} where guild_id = :guild", {"guild": guild_id})
            self._db.write(
                """update jobs set guild_id = 0, channel_id = 0, requested_by = 0, progress_message_id = null
                where guild_id = :guild""",
                {"guild": guild_id},
            )
