"""Reports of replies, in the database: which reply, why and by whom, never what it says."""

from dataclasses import dataclass

from bot.platform.db.database import Table


@dataclass(frozen=True)
class Report:
    """A member's report of the reply to an event. `message_id` is the reported message, `version`
    the one that wrote the reply (None: the base model), `reason` a key of
    `bot.reports.actions.REASONS`, `at` in seconds since 1970. `seq` is 0 before it is stored.
    """

    seq: int
    guild_id: int
    channel_id: int
    message_id: int
    event_id: int
    persona_id: str
    version: str | None
    reason: str
    user_id: int
    at: float


class Reports(Table):
    """The reports that moderators have not dealt with."""

    def add(self, report: Report) -> int:
        """Store a member's first report of a reply, and return its `seq`."""
        row = {name: value for name, value in vars(report).items() if name != "seq"}
        return self._db.insert("reports", row)

    def has(self, event_id: int, user_id: int) -> bool:
        """Return whether a member has reported the reply to an event."""
        sql = "select 1 from reports where event_id = :event and user_id = :user"
        return self._db.first(sql, event=event_id, user=user_id) is not None

    def times_since(self, guild_id: int, user_id: int, since: float) -> list[float]:
        """Return the times of a member's reports in a guild since a time, oldest first."""
        sql = """select at from reports where guild_id = :guild and user_id = :user and at > :since
            order by at"""
        return self._db.column(float, sql, guild=guild_id, user=user_id, since=since)

    def of_guild(self, guild_id: int) -> list[Report]:
        """List the reports of a guild, oldest first."""
        sql = "select * from reports where guild_id = :guild order by seq"
        return self._db.all(Report, sql, guild=guild_id)

    def remove(self, guild_id: int, seq: int) -> int:
        """Remove all reports of the reply that one of them is about; returns their number."""
        sql = """delete from reports where guild_id = :guild and event_id =
            (select event_id from reports where seq = :seq and guild_id = :guild)"""
        return self._db.write(sql, guild=guild_id, seq=seq)

    def delete_before(self, at: float) -> None:
        """Delete the reports from before a time."""
        if self._db.first("select 1 from reports where at < :at", at=at):
            self._db.write("delete from reports where at < :at", at=at)
