"""Reports of replies, in the database: which reply, why and by whom. What the reply says is not kept
with them; what the one who reports it says is.
"""

from dataclasses import dataclass

from bot.platform.db.database import Table


@dataclass(frozen=True)
class Report:
    """A member's report of the reply to an event. `message_id` is the reported message, `version`
    the one that wrote the reply (None: the base model), `reason` a key of
    `bot.reports.actions.REASONS`, `at` in seconds since 1970. `note` is what the member has written
    beside the reason. `seq` is 0 before it is stored.
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
    note: str = ""


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

    def count_replies(self, guild_id: int) -> int:
        """Count the replies of a guild that are reported."""
        sql = "select count(distinct event_id) from reports where guild_id = :guild"
        return self._db.value(int, sql, guild=guild_id) or 0

    def latest(self, guild_id: int, most: int) -> list[Report]:
        """List the first report of each of a guild's latest `most` reported replies, oldest first."""
        sql = """select * from reports where seq in (select min(seq) from reports where guild_id = :guild
            group by event_id order by min(seq) desc limit :most) order by seq"""
        return self._db.all(Report, sql, guild=guild_id, most=most)

    def reasons(self, event_id: int) -> dict[str, int]:
        """Count the reports of a reply by reason, that of the first one first."""
        sql = """select reason, count(*) as count from reports where event_id = :event
            group by reason order by min(seq)"""
        return {row["reason"]: row["count"] for row in self._db.read(sql, event=event_id)}

    def notes(self, event_id: int) -> list[str]:
        """List what members have written in their reports of a reply, latest last."""
        sql = "select note from reports where event_id = :event and note <> '' order by seq"
        return self._db.column(str, sql, event=event_id)

    def remove(self, guild_id: int, seq: int) -> int:
        """Remove all reports of the reply that one of them is about; returns their number."""
        sql = """delete from reports where guild_id = :guild and event_id =
            (select event_id from reports where seq = :seq and guild_id = :guild)"""
        return self._db.write(sql, guild=guild_id, seq=seq)

    def delete_before(self, at: float) -> None:
        """Delete the reports from before a time."""
        if self._db.first("select 1 from reports where at < :at", at=at):
            self._db.write("delete from reports where at < :at", at=at)
