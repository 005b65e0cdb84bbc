"""State that several processes share: each mirrors the log of rows in its own SQLite file.

Reads use the mirror, so they neither wait nor fail when the log is away. A transaction that writes
a shared table locks the log first, takes up what other processes have written, runs, and commits
its rows to the log and then to the mirror.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bot.operations.shards.shared_log import SharedLog, SharedRow
from bot.platform.db.database import DatabaseConnection

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
    "generation_settings": ("guild_id", "channel_id", "persona_id"),
    "guild_feedback": ("guild_id", "persona_id", "version", "against"),
}
"""The shared tables and their primary keys."""
MIRROR_SCHEMA = """
create table if not exists applied (seq integer not null) strict;
-- The shards that have deleted a person's data of their own guilds, by request (`forgettings`).
create table if not exists forgetting_acks (forgetting integer not null, shard integer not null,
    primary key (forgetting, shard)) strict;
"""


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
