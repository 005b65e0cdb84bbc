"""The requests for erasures, which outlive the process that carries them out."""

from dataclasses import dataclass, field

from bot.platform.db.database import Row, Table


@dataclass(frozen=True)
class ErasureRequest:
    """One erasure request. `person` is keyed (`personas.home.pseudonyms.keyed_person`), `asked_at`
    a Unix time.

    `step` is the next step, empty when all are done. `traces` (JSON) identifies the person and is
    emptied by a later step; `receipt` (JSON) names nobody and stays.
    """

    seq: int
    person: str
    asked_at: float
    step: str
    traces: str = field(repr=False)
    receipt: str


class ErasureRequests(Table):
    """The erasure requests, in the order of their creation."""

    def begin(self, person: str, at: float, step: str, traces: str, receipt: str) -> ErasureRequest:
        """Store a request: from here on it survives the end of this process."""
        row: Row = {
            "person": person,
            "asked_at": at,
            "step": step,
            "traces": traces,
            "receipt": receipt,
        }
        return ErasureRequest(seq=self._db.insert("forgettings", row), **row)

    def advance(
        self, seq: int, step: str, receipt: str, traces: str | None = None
    ) -> ErasureRequest:
        """Store the next step, and new `traces` where given."""
        sql = """update forgettings set step = :step, receipt = :receipt, traces = coalesce(:traces, traces)
            where seq = :seq returning *"""
        request = self._db.one(
            ErasureRequest, sql, seq=seq, step=step, receipt=receipt, traces=traces
        )
        assert request is not None  # rows are never deleted
        return request

    def unfinished(self) -> list[ErasureRequest]:
        """List the requests with a step left, oldest first."""
        return self._db.all(
            ErasureRequest, "select * from forgettings where step != '' order by seq"
        )

    def last_event(self, person: str) -> int:
        """Return the id of the last event that an erasure of a person reaches, 0 for others."""
        sql = "select max(json_extract(receipt, '$.last_event')) from forgettings where person = :person"
        return self._db.value(int, sql, person=person) or 0

    def count(self) -> int:
        """Count all requests ever made."""
        return self._db.value(int, "select count(*) from forgettings") or 0

    def of(self, person: str) -> list[ErasureRequest]:
        """List a person's requests, latest first."""
        sql = "select * from forgettings where person = :person order by seq desc"
        return self._db.all(ErasureRequest, sql, person=person)
