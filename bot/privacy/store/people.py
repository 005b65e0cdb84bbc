"""Members' consent, contributions and tombstones."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bot.platform.db.database import DatabaseConnection, Table
from bot.platform.db.gone import Gone

CARD_CONTRIBUTION = "card"


@dataclass(frozen=True)
class ConsentDecision:
    """A member's last decision about training, its time (seconds since 1970), and the language of
    the question.
    """

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


class MemberRecords(Table):
    """Consent, contributions and tombstones."""

    def __init__(self, connection: DatabaseConnection) -> None:
        super().__init__(connection)
        self._erased = Gone(connection, "person")

    def decide(self, decision: ConsentDecision) -> None:
        """Store a decision, replacing the one before."""
        self._db.insert("consents", vars(decision), replace=True)

    def decision(self, user_id: int) -> ConsentDecision | None:
        """Return a member's decision; None when they were never asked."""
        row = self._db.first("select * from consents where user_id = :user", user=user_id)
        if row:
            return ConsentDecision(**{**row, "opted_in": bool(row["opted_in"])})
        return None

    def opted_in(self) -> set[int]:
        """Return the members who consent to training on their messages."""
        return set(self._db.column(int, "select user_id from consents where opted_in = 1"))

    @contextmanager
    def contributing(
        self, contribution: Contribution, content: Callable[[], object]
    ) -> Iterator[None]:
        """Record a contribution, then let the block store the file; afterwards it is the file's
        only one.

        If the process ends in the block, the file has its old and its new contributor: erasing
        either deletes it. An error that leaves `content` as it was takes the new one back.
        """
        key = (contribution.guild_id, contribution.persona_id, contribution.what)
        before = content()
        earlier = self._contributions(*key)
        self._db.insert("gifts", vars(contribution), replace=True)
        try:
            yield
        except Exception:
            if content() == before:
                self._replace(key, earlier)
            raise
        self.add_contribution(contribution)

    def add_contribution(self, contribution: Contribution) -> None:
        """Store a member as the only contributor of a file."""
        self._replace(
            (contribution.guild_id, contribution.persona_id, contribution.what), [contribution]
        )

    def _replace(self, key: tuple[int, str, str], contributions: Iterable[Contribution]) -> None:
        with self._db.atomic():
            self.remove_contribution(*key)
            for contribution in contributions:
                self._db.insert("gifts", vars(contribution))

    def _contributions(self, guild_id: int, persona_id: str, what: str) -> list[Contribution]:
        sql = "select * from gifts where guild_id = :guild and persona_id = :persona and what = :what order by at"
        return self._db.all(Contribution, sql, guild=guild_id, persona=persona_id, what=what)

    def contributions(self) -> list[Contribution]:
        """List all members' contributions."""
        return self._db.all(Contribution, "select * from gifts")

    def remove_contribution(self, guild_id: int, persona_id: str, what: str) -> None:
        """Delete the record of a contribution that is gone."""
        sql = "delete from gifts where guild_id = :guild and persona_id = :persona and what = :what"
        self._db.write(sql, guild=guild_id, persona=persona_id, what=what)

    def remove_contributions(self, guild_id: int, persona_id: str) -> None:
        """Delete the records of all contributions to a persona that is gone."""
        sql = "delete from gifts where guild_id = :guild and persona_id = :persona"
        self._db.write(sql, guild=guild_id, persona=persona_id)

    def contributions_of(self, user_id: int) -> list[Contribution]:
        """List a member's contributions, oldest first."""
        return self._db.all(
            Contribution, "select * from gifts where user_id = :user order by at", user=user_id
        )

    def contributor(self, guild_id: int, persona_id: str, what: str) -> int | None:
        """Return who contributed a lore file or card; None where nobody is recorded."""
        known = self._contributions(guild_id, persona_id, what)
        return known[-1].user_id if known else None

    def record_erased(self, person: str, at: float) -> None:
        """Record a person, by key, as erased; the latest date counts."""
        self._erased.record(person, at)

    def tombstones(self) -> dict[str, float]:
        """Return the keys of the erased persons, and when they were erased."""
        return self._erased.times()
