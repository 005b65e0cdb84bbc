"""The sandbox's state: Discord's JSON objects and files in one SQLite file."""

import hashlib
import json
import mimetypes
import os
import re
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sandbox.network_conditions import SimulatedClock
from sandbox.sandbox_errors import Json, StateUnreadable

DISCORD_EPOCH_MS = 1_420_070_400_000
STATE_FORMAT = 1
NO_LIMIT = -1  # as SQLite's LIMIT
FILE_REFERENCE = re.compile(
    r'"(\d+|[0-9a-f]{32})"'
)  # how objects refer to files: attachments by id, avatars by hash
SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, id INTEGER NOT NULL, channel_id INTEGER, body TEXT NOT NULL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_channel ON objects (kind, channel_id, id);
CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, data BLOB NOT NULL);
"""


def time_of(snowflake: int | str) -> float:
    """Return the creation time of an id, in seconds since 1970."""
    return ((int(snowflake) >> 22) + DISCORD_EPOCH_MS) / 1000


@dataclass(frozen=True)
class StoredFile:
    """An attachment or an avatar."""

    name: str
    type: str
    data: bytes

    @classmethod
    def named(cls, name: str, data: bytes) -> "StoredFile":
        """Create a file with the type of its suffix, as on Discord."""
        return cls(name, mimetypes.guess_type(name)[0] or "application/octet-stream", data)


class ObjectStore:
    """Objects by kind and id. Returned objects are copies: only `put` stores changes."""

    def __init__(self, path: Path | None, clock: SimulatedClock) -> None:
        """Open or create the file; None keeps the state in memory. Raises StateUnreadable."""
        self._clock = clock
        try:
            if path is not None:
                _restrict_permissions(path)
            self._db = sqlite3.connect(path or ":memory:", timeout=0.5, isolation_level=None)
            self._prepare()
            self._last_id = self._highest_id()
        except (sqlite3.Error, OSError) as error:
            raise StateUnreadable(
                f"cannot use the state file {path} ({error}): "
                "stop the other sandbox, move the file away, or name one in a folder that can be "
                "written"
            ) from error
        # A state whose clock was advanced stays ahead, or all new ids would have the same time.
        clock.ahead_s = max(0.0, time_of(self._last_id) - clock.now())

    def _prepare(self) -> None:
        # Exclusive: a second sandbox on the same file would hand out the same ids and lose
        # messages.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        # Only checkpoints wait for the disk; a power failure costs the latest writes.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        # Deleted messages are overwritten.
        self._db.execute("PRAGMA secure_delete = ON")
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if found != STATE_FORMAT and tables:
            self._db.close()
            raise sqlite3.DatabaseError("not written by this version of the sandbox")
        self._db.executescript(SCHEMA)
        self._db.execute(f"PRAGMA user_version = {STATE_FORMAT}")

    def _highest_id(self) -> int:
        (highest,) = self._db.execute(
            "SELECT max(m) FROM (SELECT max(id) m FROM objects UNION SELECT max(id) FROM files)"
        ).fetchone()
        return int(highest or 0)

    def close(self) -> None:
        """Checkpoint and close the file."""
        self._db.close()

    def new_id(self) -> str:
        """Create a snowflake: milliseconds since Discord's epoch, shifted by 22 bits; never the
        same twice.
        """
        now_ms = int(self._clock.now() * 1000) - DISCORD_EPOCH_MS
        self._last_id = max(self._last_id + 1, now_ms << 22)
        return str(self._last_id)

    def new_guild_id(self) -> str:
        """Create a snowflake in a millisecond of its own, so that guilds created together are on
        different shards.
        """
        now_ms = int(self._clock.now() * 1000) - DISCORD_EPOCH_MS
        self._last_id = max((self._last_id >> 22) + 1, now_ms) << 22
        return str(self._last_id)

    def put(self, kind: str, item: Json, item_id: str | None = None) -> Json:
        """Store `item` under `item_id`, else its own id (and under its channel_id, for `page`)."""
        row = (kind, int(item_id or item["id"]), item.get("channel_id"), json.dumps(item))
        self._db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, CAST(? AS INTEGER), ?)", row)
        return item

    def get(self, kind: str, item_id: object) -> Json | None:
        """Return the object, or None; an invalid id is simply not found."""
        if not str(item_id).isdecimal():
            return None
        rows = self._db.execute(
            "SELECT body FROM objects WHERE kind = ? AND id = ?", (kind, int(str(item_id)))
        )
        row = rows.fetchone()
        return cast(Json, json.loads(row[0])) if row else None

    def delete(self, kind: str, item_id: str) -> None:
        self._db.execute("DELETE FROM objects WHERE kind = ? AND id = ?", (kind, int(item_id)))

    def delete_file(self, file_id: int) -> None:
        self._db.execute("DELETE FROM files WHERE id = ?", (file_id,))

    def delete_unused_files(self, in_use: Collection[str] = ()) -> None:
        """Delete the files that no object refers to, by id or as an avatar, except those
        `in_use`.
        """
        named = set(in_use)
        for (body,) in self._db.execute("SELECT body FROM objects"):
            named.update(FILE_REFERENCE.findall(body))
        for (file_id,) in self._db.execute("SELECT id FROM files").fetchall():
            if str(file_id) not in named and _avatar_hash(file_id) not in named:
                self.delete_file(file_id)

    def compact(self) -> None:
        """Remove every trace of deleted data from the file."""
        self._db.execute("VACUUM")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def clear(self, kind: str) -> None:
        self._db.execute("DELETE FROM objects WHERE kind = ?", (kind,))

    def all(self, kind: str) -> list[Json]:
        """Return all objects of a kind, oldest first."""
        rows = self._db.execute("SELECT body FROM objects WHERE kind = ? ORDER BY id", (kind,))
        return [json.loads(body) for (body,) in rows]

    def page(
        self,
        kind: str,
        channel_id: str,
        limit: int,
        before: int | None = None,
        after: int | None = None,
    ) -> list[Json]:
        """Return up to `limit` objects of a channel, oldest first: just after `after`, else just
        before `before`.
        """
        order = "DESC" if after is None else "ASC"
        within = "kind = ? AND channel_id = ? AND id < ? AND id > ?"
        rows = self._db.execute(
            f"SELECT id, body FROM objects WHERE {within} ORDER BY id {order} LIMIT ?",
            (kind, int(channel_id), before or 1 << 62, after or 0, limit),
        )
        return [json.loads(body) for _, body in sorted(rows)]

    def last(self, kind: str, channel_id: str) -> str | None:
        (found,) = self._db.execute(
            "SELECT max(id) FROM objects WHERE kind = ? AND channel_id = ?", (kind, int(channel_id))
        ).fetchone()
        return None if found is None else str(found)

    def put_file(self, file: StoredFile) -> str:
        file_id = self.new_id()
        self._write_file(int(file_id), file)
        return file_id

    def put_avatar(self, picture: StoredFile) -> str:
        """Store an avatar once for all its uses; returns the hash in its URL."""
        file_id = int(hashlib.sha256(picture.data).hexdigest()[:15], 16)
        self._write_file(file_id, picture)
        return _avatar_hash(file_id)

    def _write_file(self, file_id: int, file: StoredFile) -> None:
        row = (file_id, file.name, file.type, file.data)
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", row)

    def file(self, file_id: int) -> StoredFile | None:
        row = self._db.execute(
            "SELECT name, type, data FROM files WHERE id = ?", (file_id,)
        ).fetchone()
        if row is None:
            return None
        name, kind, data = row
        return StoredFile(name, kind, data)


def _avatar_hash(file_id: int) -> str:
    return f"{file_id:032x}"


def _restrict_permissions(path: Path) -> None:
    """Make the state readable by its owner only; SQLite gives its other files the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if file.exists():
            file.chmod(0o600)
