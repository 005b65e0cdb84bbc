"""The audit channels of servers, in the database. What is said there is kept by Discord alone."""

from bot.platform.db.database import Table


class AuditChannels(Table):
    """The audit channel of each guild that has one."""

    def get(self, guild_id: int) -> int | None:
        """Return the audit channel of a guild; None where moderators have set none."""
        sql = "select channel_id from audit_channels where guild_id = :guild"
        return self._db.value(int, sql, guild=guild_id)

    def guilds(self) -> list[int]:
        """List the guilds with an audit channel."""
        return self._db.column(int, "select guild_id from audit_channels")

    def set(self, guild_id: int, channel_id: int | None) -> None:
        """Set the audit channel of a guild; None removes it."""
        if channel_id is None:
            self._db.write("delete from audit_channels where guild_id = :guild", guild=guild_id)
            return
        row = {"guild_id": guild_id, "channel_id": channel_id}
        self._db.insert("audit_channels", row, replace=True)
