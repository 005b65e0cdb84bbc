"""What is gone, so that a restored backup does not bring it back: the table `gone`."""

from typing import Literal

from bot.platform.db.database import DatabaseConnection, Table

GoneKind = Literal["message", "memory", "person", "persona"]


def gone_sql(kind: GoneKind, id_sql: str) -> str:
    """SQL condition that something of a kind is gone; `id_sql` is an expression of its id, a text
    or a parameter.
    """
    return f"exists (select 1 from gone where kind = '{kind}' and id = {id_sql})"


class Gone(Table):
    """The ids of what is gone of one kind, and the times by which it is known (`schema.sql`)."""

    def __init__(self, connection: DatabaseConnection, kind: GoneKind) -> None:
        super().__init__(connection)
        self._kind = kind

    def record(self, id: str, at: float) -> None:
        """Record that something is gone. Idempotent."""
        sql = "insert or ignore into gone values (:kind, :id, :at)"
        self._db.write(sql, kind=self._kind, id=id, at=at)

    def record_rows(self, id_column: str, rows: str, **values: object) -> None:
        """Record what a statement that begins with `rows` ("from … where …") is about to delete,
        each with its `at`.
        """
        sql = f"insert or ignore into gone select '{self._kind}', {id_column}, at {rows}"
        self._db.write(sql, **values)

    def has(self, id: str | int) -> bool:
        """Report whether something is gone."""
        sql = f"select {gone_sql(self._kind, ':id')}"
        return bool(self._db.value(int, sql, id=id))

    def times(self) -> dict[str, float]:
        """Return all ids, and the latest time of each."""
        sql = "select id, max(at) as at from gone where kind = :kind group by id"
        return {row["id"]: row["at"] for row in self._db.read(sql, kind=self._kind)}

    def copy_from(self, other: DatabaseConnection) -> None:
        """Record what another database has recorded of this kind."""
        sql = "select id, at from gone where kind = :kind"
        for row in other.read(sql, kind=self._kind):
            self.record(row["id"], row["at"])

    def delete(self, id: str) -> None:
        """Delete the record of something that came back."""
        self._db.write("delete from gone where kind = :kind and id = :id", kind=self._kind, id=id)

    def delete_before(self, at: float, most: int) -> int:
        """Delete records from before a time, at most so many, and return their number."""
        sql = """delete from gone where (kind, id, at) in
            (select kind, id, at from gone where kind = :kind and at < :at limit :most)"""
        return self._db.write(sql, kind=self._kind, at=at, most=most)
