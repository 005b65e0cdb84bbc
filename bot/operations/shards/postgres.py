"""PostgreSQL as the database that shards on several hosts share. Imported only where SHARED_DB
names one.
"""

import re
from dataclasses import dataclass
from typing import Any

import psycopg

SCHEMA = "understudy"
CHANNEL = "understudy"
CONNECT_TIMEOUT_S = 2
RESPONSE_TIMEOUT_S = 3.0
"""Time for one statement. The event loop is blocked meanwhile, so it is short, and it is measured
on this side, too: a server that is suspended does not end its statements.
"""
SERVER_OPTIONS = (
    "-c lock_timeout=2000 -c statement_timeout=2500 -c idle_in_transaction_session_timeout=10000"
)
# of pg_advisory_xact_lock
WRITER_LOCK = 0x756E6465
SCHEMA_LOCK = 0x756E6466
PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")


class TimedConnection(psycopg.Connection[tuple[Any, ...]]):  # type: ignore[misc]  # without the driver, Any
    """A connection whose statements end after `RESPONSE_TIMEOUT_S`."""

    def wait(self, *args: Any, **options: Any) -> Any:
        return super().wait(*args, **{"timeout": RESPONSE_TIMEOUT_S, **options})


class PostgresSession:
    """A session of the shared database (`bot.operations.shards.shared_log.Session`)."""

    prefix = f"{SCHEMA}."
    clock_sql = "extract(epoch from clock_timestamp())::double precision"
    greatest_sql = "greatest"

    def __init__(self, url: str) -> None:
        self._connection = TimedConnection.connect(
            url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, options=SERVER_OPTIONS,
            application_name="understudy",
        )  # fmt: skip
        self._listens = False

    def create(self, statements: list[str]) -> None:
        with self._connection.transaction():
            # Two processes that start at once: `if not exists` may race.
            self._connection.execute("select pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))
            for statement in (f"create schema if not exists {SCHEMA}", *statements):
                self._connection.execute(statement.encode())

    def run(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(PARAMETER.sub(r"%(\1)s", sql).encode(), values)
        return list(cursor.fetchall()) if cursor.description else []

    def begin(self) -> None:
        self._connection.execute("begin")
        self._connection.execute("select pg_advisory_xact_lock(%s)", (WRITER_LOCK,))

    def commit(self) -> None:
        self._connection.execute(f"notify {CHANNEL}")
        self._connection.execute("commit")

    def rollback(self) -> None:
        self._connection.execute("rollback")

    def wait(self, timeout_s: float) -> None:
        if not self._listens:
            self._connection.execute(f"listen {CHANNEL}")
            self._listens = True
            return  # a commit may have come before
        next(self._connection.notifies(timeout=timeout_s, stop_after=1), None)

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True)
class PostgresDatabase:
    """The shared database in PostgreSQL."""

    url: str

    def open(self) -> PostgresSession:
        return PostgresSession(self.url)
