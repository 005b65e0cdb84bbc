"""Replies that somebody taught a persona through a form: typed for that, and for nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from bot.store.database import Connection

COLUMNS = "seq, guild_id, persona_id, user_id, as_moderator, prompt, reply, instead_of, right, at"


@dataclass(frozen=True)
class Lesson:
    """What somebody says to a persona, and what it should answer. `instead_of` is what it should not, empty where
    nobody said.

    `as_moderator`: whoever taught it managed the server then. `right` is under which it may be trained on, `at` when it
    was given (seconds since 1970).
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


class Taught:
    """All that was taught and not taken back."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def add(self, lesson: Lesson) -> int:
        """Keep it; gives its number, by which it can be taken back."""
        row = self._db.first(
            """insert into taught (guild_id, persona_id, user_id, as_moderator, prompt, reply, instead_of, right, at)
            values (:guild_id, :persona_id, :user_id, :as_moderator, :prompt, :reply, :instead_of, :right, :at)
            returning seq""",
            vars(lesson),
        )
        assert row is not None  # or it would have raised
        return int(row["seq"])

    def get(self, seq: int) -> Lesson | None:
        """What has this number; None when it was taken back."""
        row = self._db.first(f"select {COLUMNS} from taught where seq = :seq", {"seq": seq})
        return _lesson(row) if row else None

    def take_back(self, seq: int) -> bool:
        """It is not kept any more. False when it was not."""
        return self._db.write("delete from taught where seq = :seq", {"seq": seq}) > 0

    def of_persona(self, persona_id: str, guild_id: int) -> list[Lesson]:
        """What a persona was taught in a server, or anywhere for guild 0; oldest first."""
        rows = self._db.read(
            f"""select {COLUMNS} from taught where persona_id = :persona and :guild in (0, guild_id)
            order by seq""",
            {"persona": persona_id, "guild": guild_id},
        )
        return [_lesson(row) for row in rows]

    def count(self, user_id: int) -> int:
        """How many replies a member has taught."""
        row = self._db.first("select count(*) as n from taught where user_id = :user", {"user": user_id})
        return int(row["n"]) if row else 0


def _lesson(row: dict[str, object]) -> Lesson:
    return Lesson(**{**row, "as_moderator": bool(row["as_moderator"])})  # type: ignore[arg-type]  # as in the schema
