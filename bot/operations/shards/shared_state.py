"""State that several processes share: one ordered log of rows, which each process mirrors in its
own SQLite file.

Reads use the mirror, so they neither wait nor fail when the log is away. A transaction that writes
a shared table locks the log first, takes up what other processes have written, runs, and commits
its rows to the log and then to the mirror. Each write states the process's epoch: a process whose
shards another one has taken over writes nothing any more.
"""

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bot.platform.db.database import DatabaseConnection, StoreError

SHARED_KEYS = {
    "version_numbers": ("name",),
    "jobs": ("seq",),
    "versions": ("persona_id", "version"),
    "promotions": ("seq",),
    "rollouts": ("seq",),
    "withdrawn": ("persona_id", "version"),
    "promoting": ("guild_id",),
    "consents": ("user_id",),
    "tombstones": ("person",),
    "forgettings": ("seq",),
    "forgetting_acks": ("forgetting", "shard"),
    "removed_personas": ("persona_id",),
    "guild_feedback": ("guild_id", "persona_id", "version", "against"),
}
"""The shared tables and their primary keys."""
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


MIRROR_SCHEMA = """
create table if not exists applied (seq integer not null) strict;
-- The shards that have deleted a person's data of their own guilds, by request (`forgettings`).
create table if not exists forgetting_acks (forgetting integer not null, shard integer not null,
    primary key (forgetting, shard)) strict;
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
        self._db.execute("pragma secure_delete = on")
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


class SharedConnection(DatabaseConnection):
    """The mirror: a database whose shared tables are written through the log."""

    is_part = True

    def __init__(self, raw: sqlite3.Connection, path: Path, log: SharedLog) -> None:
        super().__init__(raw, path)
        self.log = log
        self._depth = 0
        self._has_lock = False
        self.unnoticed: list[SharedRow] = []
        raw.executescript(MIRROR_SCHEMA)
        # Without a unique key: an upsert's conflict clause would replace the one of the triggers'
        # statements.
        raw.execute("create temp table changed (name text, key text)")
        for table, columns in SHARED_KEYS.items():
            for event, rows in (
                ("insert", ("new",)),
                ("update", ("old", "new")),
                ("delete", ("old",)),
            ):
                keys = (
                    f"json_array({', '.join(f'{row}.{column}' for column in columns)})"
                    for row in rows
                )
                body = " ".join(f"insert into changed values ('{table}', {key});" for key in keys)
                raw.execute(
                    f"create temp trigger {table}_{event} after {event} on main.{table} begin "
                    f"{body} end"
                )
        self.applied = self.value(int, "select seq from applied") or 0

    def has_guild(self, guild_id: int) -> bool:
        return (guild_id >> 22) % self.log.process.count in self.log.process.ids

    # -------------------------------------------------------------------------------------- writing

    def write(self, sql: str, /, **values: object) -> int:
        with self._transaction(is_shared=_names_shared_table(sql)):
            return super().write(sql, **values)

    def read(self, sql: str, /, **values: object) -> list[dict[str, Any]]:
        if sql.lstrip()[:6].casefold() not in ("insert", "update", "delete"):
            return super().read(sql, **values)
        with self._transaction(is_shared=_names_shared_table(sql)):
            return super().read(sql, **values)

    def insert(self, table: str, row: Any, *, ignore: bool = False, replace: bool = False) -> int:
        with self._transaction(is_shared=table in SHARED_KEYS):
            return super().insert(table, row, ignore=ignore, replace=replace)

    @contextmanager
    def atomic(self, *, shared: bool = False) -> Iterator[None]:
        with self._transaction(is_shared=shared), super().atomic():
            yield

    @contextmanager
    def _transaction(self, *, is_shared: bool) -> Iterator[None]:
        """Hold the log's lock until the outermost block ends, if it writes a shared table."""
        if self._depth:
            self._depth += 1
            try:
                if is_shared:
                    self._lock()
                yield
            finally:
                self._depth -= 1
            return
        self._depth = 1
        try:
            with super().atomic():
                if is_shared:
                    self._lock()
                yield
                if self._has_lock:
                    self._commit()
        finally:
            if self._has_lock:
                self.log.abort()
            self._depth = 0
            self._has_lock = False
            self.applied = self.value(int, "select seq from applied") or 0

    def _lock(self) -> None:
        if not self._has_lock:
            missed = self.log.begin(self.applied)
            self._has_lock = True
            self._apply(missed)
            self.unnoticed += missed

    def _commit(self) -> None:
        rows = []
        for changed in super().read("select distinct name, key from changed"):
            rows.append(self._row(changed["name"], changed["key"]))
        super().write("delete from changed")
        if rows:
            self._set_applied(self.log.commit(rows))
            self._has_lock = False

    def _row(self, table: str, key: str) -> SharedRow:
        sql = f"select * from {table} where {_is_key(table)}"
        rows = super().read(sql, **_key_values(table, key))
        row = json.dumps(rows[0], ensure_ascii=False) if rows else None  # None: it was deleted
        return SharedRow(table, key, row)

    # ------------------------------------------------------------------------------------ mirroring

    def leave(self) -> None:
        """Give this process's shards back."""
        self.log.leave(self.applied)
        self.log.close()

    def seed(self) -> None:
        """Write this home's rows of the time before shards to an empty log."""
        with self._transaction(is_shared=True):
            if self.applied == 0:
                for table, columns in SHARED_KEYS.items():
                    super().write(f"insert into changed select '{table}', json_array({', '.join(columns)}) "
                                  f"from {table}")  # fmt: skip

    def take_up(self, rows: Sequence[SharedRow]) -> list[SharedRow]:
        """Apply rows of other processes; returns those that were new since the last call. Not
        inside a transaction.
        """
        new = [row for row in rows if row.seq > self.applied]
        if new:
            with super().atomic():
                self._apply(new)
        taken_up = self.unnoticed + new
        self.unnoticed = []
        return taken_up

    def _apply(self, rows: Sequence[SharedRow]) -> None:
        if not rows:
            return
        super().write("pragma defer_foreign_keys = on")
        for row in rows:
            columns = SHARED_KEYS[row.table]
            if row.row is None:
                sql = f"delete from {row.table} where {_is_key(row.table)}"
                super().write(sql, **_key_values(row.table, row.key))
                continue
            values = json.loads(row.row)
            names = ", ".join(values)
            others = [name for name in values if name not in columns]
            sets = ", ".join(f"{name} = excluded.{name}" for name in others)
            update = f"update set {sets}" if sets else "nothing"
            marks = ", ".join(f":{name}" for name in values)
            sql = f"""insert into {row.table} ({names}) values ({marks})
                on conflict ({", ".join(columns)}) do {update}"""
            super().write(sql, **values)
        super().write("delete from changed")
        self._set_applied(rows[-1].seq)

    def _set_applied(self, seq: int) -> None:
        super().write("delete from applied")
        super().write("insert into applied values (:seq)", seq=seq)
        self.applied = seq


def _is_key(table: str) -> str:
    return " and ".join(f"{column} = :{column}" for column in SHARED_KEYS[table])


def _key_values(table: str, key: str) -> dict[str, object]:
    return dict(zip(SHARED_KEYS[table], json.loads(key), strict=True))


def _names_shared_table(sql: str) -> bool:
    words = sql.replace("(", " ").split()
    written = words[1:5]  # insert or ignore into T, update or ignore T, delete from T
    return any(word in SHARED_KEYS for word in written)
