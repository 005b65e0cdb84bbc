"""Members' consent decisions, contributions and tombstones."""

from __future__ import annotations

from dataclasses import dataclass

from bot.store.database import DatabaseConnection


@dataclass(frozen=True)
class ConsentDecision:
    """What a member decided last about training, when (seconds since 1970), and in which language they were asked."""

    user_id: int
    opted_in: bool
    at: float
    language: str


@dataclass(frozen=True)
class Contribution:
    """A file of lore, or a card, that a member has given a server's persona."""

    guild_id: int
    persona_id: str
    what: str
    user_id: int
    at: float


CARD_CONTRIBUTION = "card"


class MemberRecords:
    """Consent, gifts and tombstones."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self._db = connection

    # ------------------------------------------------------------------------------------------------ consent

    def decide(self, decision: ConsentDecision) -> None:
        """Note a decision, in place of the one before."""
        self._db.write("insert or replace into consents values (:user_id, :opted_in, :at, :language)", vars(decision))

    def decision(self, user_id: int) -> ConsentDecision | None:
        """What a member decided; None when they were never asked."""
        row = self._db.first("select * from consents where user_id = :user", {"user": user_id})
        return ConsentDecision(**{**row, "opted_in": bool(row["opted_in"])}) if row else None

    def opted_in(self) -> set[int]:
        """The members who agree that what they write is trained on."""
        return {row["user_id"] for row in self._db.read("select user_id from consents where opted_in = 1")}

    # -------------------------------------------------------------------------------------------------- gifts

    def give(self, gift: Contribution) -> None:
        """Note who has given what is there now."""
        self._db.write("insert or replace into gifts values (:guild_id, :persona_id, :what, :user_id, :at)", vars(gift))

    def take_back(self, guild_id: int, persona_id: str, what: str) -> None:
        """What was given is there no more."""
        sql = "delete from gifts where guild_id = :guild and persona_id = :persona and what = :what"
        self._db.write(sql, {"guild": guild_id, "persona": persona_id, "what": what})

    def contributions_of(self, user_id: int) -> list[Contribution]:
        """What a member has given, oldest first."""
        rows = self._db.read("select * from gifts where user_id = :user order by at", {"user": user_id})
        return [Contribution(**row) for row in rows]

    def contributor(self, guild_id: int, persona_id: str, what: str) -> int | None:
        """Who gave a file of lore or a card; None where nobody is known to."""
        row = self._db.first(
            "select user_id from gifts where guild_id = :guild and persona_id = :persona and what = :what",
            {"guild": guild_id, "persona": persona_id, "what": what},
        )
        return row["user_id"] if row else None

    # --------------------------------------------------------------------------------------------- tombstones

    def bury(self, person: str, at: float) -> None:
        """Note that a person, under their key, has been forgotten; the latest date counts."""
        self._db.write(
            """insert into tombstones values (:person, :at)
            on conflict do update set at = max(at, excluded.at)""",
            {"person": person, "at": at},
        )

    def tombstones(self) -> dict[str, float]:
        """Who has been forgotten, under their keys, and when."""
        return {row["person"]: row["at"] for row in self._db.read("select * from tombstones")}
