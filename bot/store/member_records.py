"""Members' consent decisions, contributions and tombstones."""

from dataclasses import dataclass

from bot.store.database import Table


@dataclass(frozen=True)
class ConsentDecision:
    """A member's last decision about training, its time (seconds since 1970), and the language of the question."""

    user_id: int
    opted_in: bool
    at: float
    language: str


@dataclass(frozen=True)
class Contribution:
    """A lore file or a card that a member contributed to a guild's persona."""

    guild_id: int
    persona_id: str
    what: str
    user_id: int
    at: float


CARD_CONTRIBUTION = "card"


class MemberRecords(Table):
    """Consent, contributions and tombstones."""

    def decide(self, decision: ConsentDecision) -> None:
        """Store a decision, replacing the one before."""
        self._db.insert("consents", vars(decision), replace=True)

    def decision(self, user_id: int) -> ConsentDecision | None:
        """Return a member's decision; None when they were never asked."""
        row = self._db.first("select * from consents where user_id = :user", user=user_id)
        return ConsentDecision(**{**row, "opted_in": bool(row["opted_in"])}) if row else None

    def opted_in(self) -> set[int]:
        """Return the members who consent to training on their messages."""
        return set(self._db.column(int, "select user_id from consents where opted_in = 1"))

    def add_contribution(self, contribution: Contribution) -> None:
        """Store who contributed a file, replacing who did before."""
        self._db.insert("gifts", vars(contribution), replace=True)

    def remove_contribution(self, guild_id: int, persona_id: str, what: str) -> None:
        """Delete the record of a contribution that is gone."""
        sql = "delete from gifts where guild_id = :guild and persona_id = :persona and what = :what"
        self._db.write(sql, guild=guild_id, persona=persona_id, what=what)

    def contributions_of(self, user_id: int) -> list[Contribution]:
        """List a member's contributions, oldest first."""
        return self._db.all(Contribution, "select * from gifts where user_id = :user order by at", user=user_id)

    def contributor(self, guild_id: int, persona_id: str, what: str) -> int | None:
        """Return who contributed a lore file or card; None where nobody is recorded."""
        sql = "select user_id from gifts where guild_id = :guild and persona_id = :persona and what = :what"
        return self._db.value(int, sql, guild=guild_id, persona=persona_id, what=what)

    def record_erased(self, person: str, at: float) -> None:
        """Record a person, by key, as erased; the latest date counts."""
        sql = """insert into tombstones values (:person, :at)
            on conflict do update set at = max(at, excluded.at)"""
        self._db.write(sql, person=person, at=at)

    def tombstones(self) -> dict[str, float]:
        """Return the keys of the erased persons, and when they were erased."""
        return {row["person"]: row["at"] for row in self._db.read("select * from tombstones")}
