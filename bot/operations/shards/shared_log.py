"""The ordered log of rows that several processes share, in a database that all of them reach.

Each write states the process's epoch: a process whose shards another one has taken over writes
nothing any more.
"""

import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bot.platform.db.database import StoreError

RETRY_S = 2.0
"""Time after a failure for which writes are refused at once: each attempt may block the event loop
for seconds.
"""
STALE_SESSION_S = 1.0
"""A session that has ended fails within this time; a server that is suspended takes longer."""
LEASE_S = 15.0
"""A process that has not been seen for this long may be replaced."""
LOG_SCHEMA = """
create table if not exists {p}rows (name text not null, key text not null, row text, seq bigint not null,
    primary key (name, key));
create index if not exists rows_by_seq on {p}rows (seq);
create index if not exists rows_deleted on {p}rows (seq) where row is null;
create table if not exists {p}head (id integer primary key, seq bigint not null, epoch bigint not null);
create table if not exists {p}shards (shard integer primary key, count integer not null, epoch bigint not null,
    host text not null, pid bigint not null, applied bigint not null, seen double precision not null);
insert into {p}head values (1, 0, 0) on conflict do nothing;
"""


class SharedStateError(StoreError):
    """The shared state cannot be written: it is away, or this process's shards belong to another
    one.
    """


class SharedStateAwayError(SharedStateError):
    """The shared database does not answer."""


@dataclass(frozen=True)
class SharedRow:
    """A row of a shared table, as of `seq`; `row` None for a deleted one. `key` holds the primary
    key's values.
    """

    table: str
    key: str
    row: str | None
    seq: int = 0


@dataclass(frozen=True)
class ShardProcess:
    """The shards of a process, and the number of all."""

    ids: tuple[int, ...]
    count: int


class Session(Protocol):
    """A session on the shared database; parameters are named `:name`."""

    prefix: str
    clock_sql: str
    greatest_sql: str

    def create(self, statements: list[str]) -> None:
        """Create tables that are missing."""

    def run(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        """Run a statement; returns its rows."""

    def begin(self) -> None:
        """Begin a transaction that excludes other writers."""

    def commit(self) -> None:
        """Commit, and wake the followers of other processes."""

    def rollback(self) -> None:
        """Roll back."""

    def wait(self, timeout_s: float) -> None:
        """Wait for a commit by any process, or for the timeout."""

    def close(self) -> None:
        """End the session."""


class SharedDatabase(Protocol):
    """Opens sessions on one database."""

    def open(self) -> Session:
        """Open a session. Raises an exception of the driver."""


class SqliteSession:
    """A session on a SQLite file with a rollback journal, for the processes of one host."""

    prefix = ""
    clock_sql = ":now"
    greatest_sql = "max"
    POLL_S = 0.2

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        self._db.execute("pragma secure_delete = on")  # overwrites what is deleted
        self._version = -1

    def create(self, statements: list[str]) -> None:
        for statement in statements:
            self._db.execute(statement)

    def run(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, values).fetchall()

    def begin(self) -> None:
        self._db.execute("begin immediate")

    def commit(self) -> None:
        self._db.execute("commit")

    def rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("rollback")

    def wait(self, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            # SQLite notifies nobody; this number changes with each commit of another connection.
            (version,) = self._db.execute("pragma data_version").fetchone()
            if version != self._version:
                self._version = version
                return
            time.sleep(min(self.POLL_S, timeout_s))

    def close(self) -> None:
        self._db.close()


@dataclass(frozen=True)
class SqliteDatabase:
    """The log as a SQLite file in the home that all processes of a host share."""

    path: Path

    def open(self) -> SqliteSession:
        return SqliteSession(self.path)


class SharedLog:
    """The log, from one process. Every method raises `SharedStateError`."""

    def __init__(self, backend: SharedDatabase, process: ShardProcess) -> None:
        self._backend = backend
        self.process = process
        self._session: Session | None = None
        self._away: tuple[float, str] = (0.0, "")
        self.epoch = 0
        self.is_fenced = False

    # ----------------------------------------------------------------------------------- membership

    def register(self) -> None:
        """Take this process's shards with a new epoch. Raises `SharedStateError` when another
        process serves one.
        """
        with self._translated():
            session = self._open()
            statements = LOG_SCHEMA.format(p=session.prefix).split(";\n")
            session.create([statement for statement in statements if statement.strip()])
            session.begin()
            try:
                self._refuse_others(session)
                ((self.epoch,),) = session.run(
                    f"update {session.prefix}head set epoch = epoch + 1 returning epoch"
                )
                for shard in self.process.ids:
                    self._take(session, shard)
                session.commit()
            except BaseException:
                session.rollback()
                raise

    def _refuse_others(self, session: Session) -> None:
        now = time.time()
        host = socket.gethostname()
        rows = session.run(f"select shard, count, host, pid, seen from {session.prefix}shards")
        for shard, count, other_host, pid, seen in rows:
            # A process of this host that was killed need not be waited for.
            is_dead = other_host == host and (
                pid == os.getpid() or not Path(f"/proc/{pid}").exists()
            )
            if seen < now - LEASE_S or is_dead:
                continue
            who = f"process {pid} on {other_host}"
            if count != self.process.count:
                raise SharedStateError(
                    f"There are {count} shards in {who}, and {self.process.count} here.",
                    "Use the same number in every SHARDS, or stop that process first.",
                )
            if shard in self.process.ids:
                raise SharedStateError(f"Shard {shard} is served by {who}.", "Stop that one first.")

    def _take(self, session: Session, shard: int) -> None:
        sql = f"""insert into {session.prefix}shards values (:shard, :count, :epoch, :host, :pid, 0, :seen)
            on conflict (shard) do update set count = excluded.count, epoch = excluded.epoch, host = excluded.host,
            pid = excluded.pid, seen = excluded.seen"""
        row = {"shard": shard, "count": self.process.count, "epoch": self.epoch}
        session.run(sql, **row, host=socket.gethostname(), pid=os.getpid(), seen=time.time())

    def seen(self, session: Session, applied: int, *, at: float | None = None) -> None:
        """Record that this process lives and what it has applied. Sets `is_fenced` when another
        took its shards.
        """
        sql = f"""update {session.prefix}shards set seen = :seen, applied = :applied where epoch = :epoch
            returning shard"""
        seen_at = time.time() if at is None else at
        own = session.run(sql, seen=seen_at, applied=applied, epoch=self.epoch)
        self.is_fenced = len(own) < len(self.process.ids)
        # Keys may be ids of members, so those of deleted rows go once every shard has deleted them.
        sql = f"""delete from {session.prefix}rows where row is null
            and seq <= (select min(applied) from {session.prefix}shards)
            and (select count(*) from {session.prefix}shards) >= :count"""
        session.run(sql, count=self.process.count)

    def leave(self, applied: int) -> None:
        """Give the shards back, so that another process may take them at once."""
        with suppress(SharedStateError), self._translated():
            self.seen(self._open(), applied, at=0.0)

    # -------------------------------------------------------------------------------------- writing

    def begin(self, since: int) -> list[SharedRow]:
        """Lock the log, check the epoch, and return the rows after `since`."""
        with self._translated():
            session = self._open_transaction()
            try:
                sql = f"select count(*) from {session.prefix}shards where epoch = :epoch"
                ((mine,),) = session.run(sql, epoch=self.epoch)
                if mine < len(self.process.ids):
                    self.is_fenced = True
                    raise SharedStateError(
                        "Another process serves these shards now.", "Stop this process."
                    )
                ((newest,),) = session.run(f"select seq from {session.prefix}head")
                if newest < since:
                    raise SharedStateError(
                        f"The shared database is at change {newest}, but this process has seen "
                        f"{since}.",
                        "Restore its latest backup, or set SHARED_DB to the database used before.",
                    )
                return self.read(session, since)
            except BaseException:
                session.rollback()
                raise

    def commit(self, rows: Sequence[SharedRow]) -> int:
        """Write the rows and end the transaction; returns the newest seq."""
        with self._translated():
            session = self._open()
            ((newest,),) = session.run(f"select seq from {session.prefix}head")
            for seq, row in enumerate(rows, start=newest + 1):
                sql = f"""insert into {session.prefix}rows values (:name, :key, :row, :seq)
                    on conflict (name, key) do update set row = excluded.row, seq = excluded.seq"""
                session.run(sql, name=row.table, key=row.key, row=row.row, seq=seq)
            session.run(f"update {session.prefix}head set seq = :seq", seq=newest + len(rows))
            session.commit()
            return int(newest) + len(rows)

    def abort(self) -> None:
        """End the transaction without writing anything."""
        if self._session:
            with suppress(SharedStateError), self._translated():
                self._session.rollback()

    # -------------------------------------------------------------------------------------- reading

    @staticmethod
    def read(session: Session, since: int) -> list[SharedRow]:
        """Read the rows after `since`, in their order."""
        sql = (
            f"select name, key, row, seq from {session.prefix}rows where seq > :since order by seq"
        )
        rows = []
        for table, key, row, seq in session.run(sql, since=since):
            rows.append(SharedRow(table, key, row=row, seq=seq))
        return rows

    @property
    def database(self) -> SharedDatabase:
        return self._backend

    def close(self) -> None:
        """End this process's session; another one is opened when it is needed."""
        if self._session:
            with suppress(Exception):  # the other side may be gone
                self._session.close()
            self._session = None

    def _open_transaction(self) -> Session:
        """Begin a transaction, in a new session where the old one has ended since (the server was
        restarted).
        """
        is_old = self._session is not None
        began = time.monotonic()
        try:
            session = self._open()
            session.begin()
        except Exception:
            if not is_old or time.monotonic() - began > STALE_SESSION_S:
                raise
            self.close()
            session = self._open()
            session.begin()
        return session

    def _open(self) -> Session:
        if time.monotonic() < self._away[0]:
            raise _away_error(self._away[1])
        if self._session is None:
            self._session = self._backend.open()
        return self._session

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except Exception as error:  # a driver's, which is not imported here
            self.close()
            self._away = (
                time.monotonic() + RETRY_S,
                f"{type(error).__name__}: {error}".strip().splitlines()[0],
            )
            raise _away_error(self._away[1]) from error


def _away_error(why: str) -> SharedStateAwayError:
    return SharedStateAwayError(
        f"The shared database cannot be reached, so nothing was changed ({why}).",
        "Chat goes on; promotions, consent and training wait for it. Try again later.",
    )
