"""People who are being forgotten, how far that is, and what it took: rows that a kill in the middle cannot lose."""

from __future__ import annotations

from dataclasses import dataclass, field

from bot.store.database import Connection, Row


@dataclass(frozen=True)
class Forgetting:
    """One forgetting. `person` is keyed (`personas.keys.keyed`), `asked_at` in seconds since 1970.

    `step` is the next step to take, empty when all are done. `traces` (JSON) says whom to look for and is erased in the
    course of it; `receipt` (JSON) names nobody and stays.
    """

    seq: int
    person: str
    asked_at: float
    step: str
    traces: str = field(repr=False)
    receipt: str


class Forgettings:
    """The forgettings, in the order in which they were asked for."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def begin(self, person: str, at: float, step: str, traces: str, receipt: str) -> Forgetting:
        """Note that somebody is to be forgotten: from here on it happens, whatever becomes of this process."""
        row = self._db.first(
            """insert into forgettings (person, asked_at, step, traces, receipt)
            values (:person, :at, :step, :traces, :receipt) returning *""",
            {"person": person, "at": at, "step": step, "traces": traces, "receipt": receipt},
        )
        assert row is not None  # an insert always returns its row
        return _forgetting(row)

    def advance(self, seq: int, step: str, receipt: str, traces: str | None = None) -> Forgetting:
        """A step is done, and `step` is the next one. New `traces` take the place of the old."""
        row = self._db.first(
            """update forgettings set step = :step, receipt = :receipt, traces = coalesce(:traces, traces)
            where seq = :seq returning *""",
            {"seq": seq, "step": step, "receipt": receipt, "traces": traces},
        )
        assert row is not None  # rows are never deleted
        return _forgetting(row)

    def unfinished(self) -> list[Forgetting]:
        """Those with a step left, oldest first."""
        return [_forgetting(row) for row in self._db.read("select * from forgettings where step != '' order by seq")]

    def count(self) -> int:
        """How many were ever asked for."""
        row = self._db.first("select count(*) as n from forgettings", {})
        return int(row["n"]) if row else 0

    def of(self, person: str) -> list[Forgetting]:
        """A person's, latest first."""
        rows = self._db.read("select * from forgettings where person = :person order by seq desc", {"person": person})
        return [_forgetting(row) for row in rows]


def _forgetting(row: Row) -> Forgetting:
    return Forgetting(**row)
