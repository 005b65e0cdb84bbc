"""The tables of the safety protocol: who was told when that personas are AI, and counts of answers
and of withheld replies.
"""

from dataclasses import dataclass
from typing import Literal

from bot.platform.db.database import DatabaseConnection, Table

CountedKind = Literal["helplines", "emergency", "withheld"]


@dataclass(frozen=True)
class Talk:
    """When a member last talked with personas in a channel, and was last told that they are AI, in
    seconds since 1970. `told_event` is the event whose reply told it.
    """

    spoke_at: float
    told_at: float
    told_event: int


class Talks(Table):
    """The talks of members with personas, by channel."""

    def get(self, channel_id: int, user_id: int) -> Talk | None:
        """Return a member's talk in a channel; None where there is none that is still known."""
        sql = """select spoke_at, told_at, told_event from talks
            where channel_id = :channel and user_id = :user"""
        return self._db.one(Talk, sql, channel=channel_id, user=user_id)

    def record(
        self, guild_id: int, channel_id: int, user_id: int, *, at: float, told_event: int | None
    ) -> None:
        """Record that a member has got a reply; `told_event` is its event if it told that it is
        AI.
        """
        told = "" if told_event is None else ", told_at = :at, told_event = :event"
        sql = f"""insert into talks (guild_id, channel_id, user_id, spoke_at, told_at, told_event)
            values (:guild, :channel, :user, :at, iif(:event = 0, 0.0, :at), :event)
            on conflict do update set spoke_at = :at{told}"""
        place = {"guild": guild_id, "channel": channel_id, "user": user_id}
        self._db.write(sql, **place, at=at, event=told_event or 0)

    def forget_told(self, event_id: int) -> None:
        """Forget that the reply to an event told that it is AI: the next one tells it."""
        self._db.write("delete from talks where told_event = :event", event=event_id)

    def end_all(self, channel_id: int) -> None:
        """End the talks of a channel: the next reply to each member tells that it is AI."""
        self._db.write("delete from talks where channel_id = :channel", channel=channel_id)

    def delete_before(self, at: float) -> None:
        """Delete the talks that ended before a time."""
        self._db.write("delete from talks where spoke_at < :at", at=at)


class SafetyCounts(Table):
    """Counts of one kind, by day (UTC) and language: neither whose, nor where, nor what."""

    def __init__(self, connection: DatabaseConnection, kind: CountedKind) -> None:
        super().__init__(connection)
        self._kind = kind

    def count(self, day: str, language: str) -> None:
        """Count one more on a day, such as 2026-11-28."""
        sql = """insert into safety_counts (kind, day, language, total) values (:kind, :day, :language, 1)
            on conflict do update set total = total + 1"""
        self._db.write(sql, kind=self._kind, day=day, language=language)

    def by_language(self) -> dict[str, int]:
        """Return the counts by language."""
        return self._totals("language", "language")

    def by_year(self) -> dict[str, int]:
        """Return the counts by year, the latest first: some laws ask for them yearly."""
        return self._totals("substr(day, 1, 4)", "name desc")

    def _totals(self, name: str, order: str) -> dict[str, int]:
        sql = f"""select {name} as name, sum(total) as total from safety_counts where kind = :kind
            group by name order by {order}"""
        return {row["name"]: row["total"] for row in self._db.read(sql, kind=self._kind)}
