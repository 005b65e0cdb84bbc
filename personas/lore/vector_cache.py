"""The cache file of lore vectors."""

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from personas.lore.minilm import Vectors

log = logging.getLogger(__name__)
CACHE_LAYOUT = 2
"""Version of the cache's tables, its `user_version`."""
# Vectors take 10 ms each to compute. Words are indexed in memory, so that the file has no text.
CREATE_CACHE = "create table vectors (owner text, key text, vector blob, primary key (owner, key))"


class VectorCache:
    """A SQLite file with the vectors of each owner. It is expendable: nothing fails without it."""

    def __init__(self, path: Path) -> None:
        """Open or create the file, and read it. Raises `sqlite3.DatabaseError` and `OSError`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._db.execute("pragma secure_delete = on").fetchall()  # overwrites what is deleted
            (layout,) = self._db.execute("pragma user_version").fetchone()
            if not self._db.execute("select count(*) from sqlite_master").fetchone()[0]:
                self._create()
            elif layout != CACHE_LAYOUT:
                raise sqlite3.DatabaseError(f"the cache has layout {layout}")
            # Reads the whole file, so that damage shows now.
            sql = "select sum(length(vector)) from vectors where owner != ''"
            self._db.execute(sql).fetchall()
        except BaseException:
            self._db.close()
            raise

    @classmethod
    def open(cls, path: Path) -> "VectorCache | None":
        """Open the file; a damaged or foreign one is deleted. None where it cannot be written."""
        for _ in range(2):
            with suppress(sqlite3.DatabaseError, OSError):
                return cls(path)
            with suppress(OSError):
                path.unlink()
        log.warning(
            "The vectors of lore cannot be kept in %s: they are computed again at each start.", path
        )
        return None

    def vectors(self, owner: str, dimensions: int) -> dict[str, Vectors]:
        """Return an owner's vectors by key."""
        rows: list[tuple[str, bytes]] = []
        with self._errors():
            sql = "select key, vector from vectors where owner = ?"
            rows = self._db.execute(sql, [owner]).fetchall()
        vectors = {}
        for key, vector in rows:
            if len(vector) == 4 * dimensions:
                vectors[key] = np.frombuffer(vector, np.float32)
        return vectors

    def keep_owners(self, owners: Iterable[str]) -> None:
        """Delete the vectors of all other owners."""
        with self._errors(), self._transaction():
            stored = {owner for (owner,) in self._db.execute("select distinct owner from vectors")}
            others = [(owner,) for owner in stored - {*owners}]
            self._db.executemany("delete from vectors where owner = ?", others)

    def store(self, owner: str, wanted: Mapping[str, Vectors]) -> None:
        """Store exactly these vectors of an owner."""
        with self._errors(), self._transaction():
            self._change(owner, wanted)

    def compact(self) -> None:
        with self._errors():
            self._db.execute("vacuum")

    def close(self) -> None:
        self._db.close()

    def _create(self) -> None:
        self._db.execute(CREATE_CACHE)
        self._db.execute(f"pragma user_version = {CACHE_LAYOUT}")

    def _change(self, owner: str, wanted: Mapping[str, Vectors]) -> None:
        sql = "select key, length(vector) from vectors where owner = ?"
        stored = dict(self._db.execute(sql, [owner]))
        gone = [(owner, key) for key in stored.keys() - wanted.keys()]
        new = []
        for key in sorted(wanted):
            if stored.get(key) != wanted[key].nbytes:
                new.append((owner, key, wanted[key].tobytes()))
        self._db.executemany("delete from vectors where owner = ? and key = ?", gone)
        self._db.executemany("insert or replace into vectors values (?, ?, ?)", new)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin")
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled it back already
                self._db.execute("rollback")
            raise
        self._db.execute("commit")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            log.warning("The vectors of lore in %s could not be updated: %s.", self._path, error)
