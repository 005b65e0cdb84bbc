"""Replies to members as limits count them: those made again, too, and those not stored."""

from dataclasses import dataclass

from bot.platform.db.database import DatabaseConnection, Table
from bot.platform.db.erased_ids import ErasedIds


@dataclass(frozen=True)
class RecentReplies:
    """The replies to a member since a time: their number, and the time of the latest in seconds
    since 1970; None where there is none.
    """

    count: int
    latest_at: float | None


class ReplyAttempts(Table):
    """The attempts at replies to members, in direct messages those of guild 0. They outlive what they
    were replies to: a member who deletes a question, or is erased, is not answered once more for it.
    """

    def __init__(self, connection: DatabaseConnection, erased_ids: ErasedIds) -> None:
        super().__init__(connection)
        self._erased_ids = erased_ids

    def add(self, guild_id: int, user_id: int, at: float, *, event_id: int | None = None) -> int:
        """Count an attempt at the reply to an event, or (None) at one that is not stored. Returns
        its `seq`; 0 where nobody asked.
        """
        if not user_id:
            return 0
        row = {"guild_id": guild_id, "user_id": user_id, "event_id": event_id, "at": at}
        return self._db.insert("reply_attempts", row)

    def remove(self, seq: int) -> None:
        """Count an attempt no more: it failed."""
        self._db.write("delete from reply_attempts where seq = :seq", seq=seq)

    def remove_latest(self, event_id: int) -> None:
        """Count the latest attempt at the reply to an event no more: it failed."""
        sql = """delete from reply_attempts where seq =
            (select max(seq) from reply_attempts where event_id = :event)"""
        self._db.write(sql, event=event_id)

    def since(self, guild_id: int, user_id: int, since: float) -> RecentReplies:
        """Count the replies to a member in a guild since a time, also from before an erasure."""
        sql = """select count(*) as count, max(at) as latest_at from reply_attempts
            where guild_id = :guild and user_id in (:user, :erased) and at >= :since"""
        erased = self._erased_ids.of(user_id)
        row = self._db.first(sql, guild=guild_id, user=user_id, erased=erased, since=since)
        assert row is not None  # an aggregate has a row
        return RecentReplies(**row)

    def delete_before(self, at: float) -> None:
        """Delete the attempts from before a time."""
        if self._db.first("select 1 from reply_attempts where at < :at", at=at):
            self._db.write("delete from reply_attempts where at < :at", at=at)
