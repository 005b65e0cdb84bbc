"""The tables of the safety protocol: who was told when that personas are AI, counts of answers with
helplines and of withheld replies, and servers with minors.
"""

from dataclasses import dataclass

from bot.platform.db.database import Table


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


class SafetyAnswers(Table):
    """Counts of the messages that were answered with helplines, by day (UTC) and language: neither
    whose, nor where, nor what.
    """

    table = "safety_answers"

    def count(self, day: str, language: str) -> None:
        """Count an answer on a day, such as 2026-11-28."""
        sql = f"""insert into {self.table} (day, language, answers) values (:day, :language, 1)
            on conflict do update set answers = answers + 1"""
        self._db.write(sql, day=day, language=language)

    def by_language(self, since: str = "") -> dict[str, int]:
        """Return the counts by language from a day on."""
        sql = f"""select language, sum(answers) as answers from {self.table}
            where day >= :since group by language order by language"""
        return {row["language"]: row["answers"] for row in self._db.read(sql, since=since)}

    def by_year(self) -> dict[str, int]:
        """Return the counts by year, the latest first: some laws ask for them yearly."""
        sql = f"""select substr(day, 1, 4) as year, sum(answers) as answers from {self.table}
            group by year order by year desc"""
        return {row["year"]: row["answers"] for row in self._db.read(sql)}


class EmergencyAnswers(SafetyAnswers):
    """The same of the answers to emergencies, which laws about self-harm do not ask for."""

    table = "emergency_answers"


class WithheldReplies(Table):
    """Counts of the replies that were withheld, by day (UTC) and language: neither whose, nor where,
    nor what.
    """

    def count(self, day: str, language: str) -> None:
        """Count a withheld reply on a day, such as 2026-11-28."""
        sql = """insert into withheld_replies (day, language, replies) values (:day, :language, 1)
            on conflict do update set replies = replies + 1"""
        self._db.write(sql, day=day, language=language)

    def by_language(self) -> dict[str, int]:
        """Return the counts by language."""
        sql = """select language, sum(replies) as replies from withheld_replies
            group by language order by language"""
        return {row["language"]: row["replies"] for row in self._db.read(sql)}

    def by_year(self) -> dict[str, int]:
        """Return the counts by year, the latest first."""
        sql = """select substr(day, 1, 4) as year, sum(replies) as replies from withheld_replies
            group by year order by year desc"""
        return {row["year"]: row["replies"] for row in self._db.read(sql)}


class MinorGuilds(Table):
    """The servers whose moderators have said that minors are there."""

    def has(self, guild_id: int) -> bool:
        """Report whether a server has minors."""
        sql = "select 1 from minor_guilds where guild_id = :guild"
        return self._db.first(sql, guild=guild_id) is not None

    def set(self, guild_id: int, has_minors: bool) -> None:
        """Set whether a server has minors."""
        if has_minors:
            self._db.insert("minor_guilds", {"guild_id": guild_id}, ignore=True)
        else:
            self._db.write("delete from minor_guilds where guild_id = :guild", guild=guild_id)
