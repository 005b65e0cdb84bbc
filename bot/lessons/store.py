"""Lessons: replies that members taught a persona through a form, for preference training."""

from dataclasses import dataclass
from typing import Any

from bot.platform.db.database import Table


@dataclass(frozen=True)
class Lesson:
    """A prompt, and the reply that a member taught for it. `instead_of` is the reply it replaces,
    empty where none was given.

    `as_moderator`: the member managed the server at that time. `right` is the right under which it
    may be trained on, `at` the time of teaching (seconds since 1970).
    """

    guild_id: int
    persona_id: str
    user_id: int
    as_moderator: bool
    prompt: str
    reply: str
    instead_of: str
    right: str
    at: float
    seq: int = 0


class Lessons(Table):
    """All lessons that were not deleted."""

    def add(self, lesson: Lesson) -> int:
        """Store a lesson and return its number."""
        row = {**vars(lesson)}
        del row["seq"]  # the database numbers it
        return self._db.insert("taught", row)

    def get(self, seq: int) -> Lesson | None:
        """Return the lesson with this number; None when it was deleted."""
        return self._db.one(_lesson, "select * from taught where seq = :seq", seq=seq)

    def delete(self, seq: int) -> bool:
        """Delete a lesson. False when there was none."""
        return self._db.write("delete from taught where seq = :seq", seq=seq) > 0

    def of_persona(self, persona_id: str, guild_id: int, limit: int = -1) -> list[Lesson]:
        """List a persona's lessons from a guild, or from all for guild 0, the latest if limited;
        oldest first.
        """
        sql = """select * from taught where persona_id = :persona and :guild in (0, guild_id)
            order by seq desc limit :limit"""
        return self._db.all(_lesson, sql, persona=persona_id, guild=guild_id, limit=limit)[::-1]

    def has_trainable(self, persona_id: str, guild_id: int) -> bool:
        """Report whether a moderator, or a member who has opted in, taught a persona in a guild (0:
        in any).
        """
        sql = """select 1 from taught where persona_id = :persona and :guild in (0, guild_id)
            and (as_moderator or user_id in (select user_id from consents where opted_in = 1)) limit 1"""
        return self._db.first(sql, persona=persona_id, guild=guild_id) is not None

    def count_trainable(self, persona_id: str, guild_id: int, since: float) -> int:
        """Count the lessons since a time that moderators, or members who have opted in, taught a
        persona in a guild.
        """
        sql = """select count(*) from taught where persona_id = :persona and guild_id = :guild
            and at > :since and (as_moderator
            or user_id in (select user_id from consents where opted_in = 1))"""
        return self._db.value(int, sql, persona=persona_id, guild=guild_id, since=since) or 0

    def count(self, user_id: int) -> int:
        """Count a member's lessons."""
        sql = "select count(*) from taught where user_id = :user"
        return self._db.value(int, sql, user=user_id) or 0


def _lesson(as_moderator: int, **columns: Any) -> Lesson:
    return Lesson(as_moderator=bool(as_moderator), **columns)
