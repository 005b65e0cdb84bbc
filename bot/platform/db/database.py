"""The SQLite connection: how the file is opened, and how its errors are reported."""

import errno
import logging
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bot.platform.db.schema import FIRST_VERSION, schema_version, scripts_after
from personas.errors import UnderstudyError
from personas.home.data_subjects import CONSENT_FILE


@contextmanager
def _without_pandas() -> Iterator[None]:
    """Make the import of pandas fail inside the block."""
    modules: dict[str, Any] = sys.modules
    pandas = modules.get("pandas")
    modules["pandas"] = None
    try:
        yield
    finally:
        if pandas is None:
            del modules["pandas"]
        else:
            modules["pandas"] = pandas


# sqlite_utils imports pandas where it is installed, to store its types: a third of a second of CPU
# at every start. No row here has such a type.
with _without_pandas():
    from sqlite_utils import Database

HOME_DATABASE = "understudy.sqlite"
SPLIT_HOME_FILES = "shards-*-of-*.sqlite"
Row = dict[str, Any]
T = TypeVar("T")
INCREMENTAL = 2
"""SQLite's number of the `auto_vacuum` that returns free pages when asked."""
log = logging.getLogger(__name__)
MAX_TIMESTAMP_S = 1e18
"""Later than every other time, in seconds since 1970."""
BUSY_TIMEOUT_S = 1.0
"""Timeout for a file that another program has locked, in seconds; the event loop is blocked
meanwhile.
"""
WRITE_CHECK_KEY = b"write check"
"""Key of the row that `check_writable` writes; the keys of requests are hashes."""
EARLIER_ADVICE = (
    "Start with a new UNDERSTUDY_HOME, or keep using the version that wrote it. With that version, "
    "export cards and lore that the new home is to have (docs/upgrading.md)."
)
MAX_FREE_PAGE_SHARE = 0.25
"""Share of free pages, which are used again, from which on the file is shrunk."""
TRIM_STEP_PAGES = 256
"""Pages by which the file is shrunk at once: the event loop waits so long."""


class StoreError(UnderstudyError):
    """The database cannot be opened, read or written. Data stored before is intact."""


class EarlierFormatError(StoreError):
    """The database is from before the first release."""


class StoreLockedError(StoreError):
    """Another program has locked the database."""


class DatabaseConnection:
    """One SQLite connection, for the thread that opened it. Every method raises `StoreError`."""

    def __init__(self, raw: sqlite3.Connection, path: Path) -> None:
        self._raw = raw
        self._path = path
        self.path = path
        self._is_locked = False
        raw.execute("pragma foreign_keys = on")
        self._db = Database(raw, execute_plugins=False)

    def read(self, sql: str, /, **values: object) -> list[Row]:
        """Return all rows of a query."""
        with translate_errors(self._path):
            return list(self._db.query(sql, values))

    def first(self, sql: str, /, **values: object) -> Row | None:
        """Return the first row of a query, or of a statement with `returning`; None when there is
        none.
        """
        return next(iter(self.read(sql, **values)), None)

    def all(self, make: Callable[..., T], sql: str, /, **values: object) -> list[T]:
        """Return all rows of a query as objects: `make` is called with the columns as keyword
        arguments.
        """
        return [make(**row) for row in self.read(sql, **values)]

    def one(self, make: Callable[..., T], sql: str, /, **values: object) -> T | None:
        """Return the first row of a query as an object; None when there is none."""
        return next(iter(self.all(make, sql, **values)), None)

    def column(self, kind: Callable[[Any], T], sql: str, /, **values: object) -> list[T]:
        """Return the values of a query's first column, without nulls."""
        first = (next(iter(row.values())) for row in self.read(sql, **values))
        return [kind(value) for value in first if value is not None]

    def value(self, kind: Callable[[Any], T], sql: str, /, **values: object) -> T | None:
        """Return the first value of a query's first column; None when there is no row, or for
        null.
        """
        return next(iter(self.column(kind, sql, **values)), None)

    def write(self, sql: str, /, **values: object) -> int:
        """Run one statement and commit it, unless inside `atomic`. Returns the number of changed
        rows.
        """
        with self._writing():
            return int(self._db.execute(sql, values).rowcount)

    def insert(
        self, table: str, row: Mapping[str, object], *, ignore: bool = False, replace: bool = False
    ) -> int:
        """Insert a row, unless inside `atomic` in its own transaction, and return its rowid.

        A row with the same key raises `sqlite3.IntegrityError`, stays (`ignore`) or is replaced
        (`replace`).
        """
        with self._writing():
            return int(
                self._db.table(table).insert(dict(row), ignore=ignore, replace=replace).last_rowid
            )

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Run the block as one transaction."""
        with self._writing(), self._db.atomic():
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Translate errors. Only the first write that meets a lock waits for its end: the event
        loop is blocked.
        """
        try:
            with translate_errors(self._path):
                yield
        except StoreLockedError:
            if not self._is_locked:
                self._is_locked = True
                self._raw.execute("pragma busy_timeout = 0")
            raise
        if self._is_locked:
            self._is_locked = False
            self._raw.execute(f"pragma busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")

    def check_writable(self, at: float) -> None:
        """Write a row. Raises `StoreError` if nothing can be stored."""
        self.insert("answered", {"key": WRITE_CHECK_KEY, "request": b"", "status": None, "body": "", "at": at},
                    replace=True)  # fmt: skip

    def trim(self) -> bool:
        """Shrink the file by a step where much of it is empty, or else truncate the WAL. False at
        the end.
        """
        with translate_errors(self._path):
            (mode,) = self._raw.execute("pragma auto_vacuum").fetchone()
            (pages,) = self._raw.execute("pragma page_count").fetchone()
            (empty,) = self._raw.execute("pragma freelist_count").fetchone()
            # A step at a time: the event loop goes on in between.
            if mode == INCREMENTAL and empty > pages * MAX_FREE_PAGE_SHARE:
                self._raw.execute(f"pragma incremental_vacuum({TRIM_STEP_PAGES})").fetchall()
                return True
        self.truncate_wal()
        return False

    def truncate_wal(self) -> None:
        """Write the WAL into the file and empty it, so that nothing deleted remains: in the file, it
        is overwritten. Not inside `atomic`.
        """
        with translate_errors(self._path):
            self._raw.execute("pragma wal_checkpoint(truncate)").fetchall()

    def close(self) -> None:
        """Checkpoint and close the file."""
        self._raw.close()


class Table:
    """Base of the classes for the rows of one concern."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self._db = connection

    def _store_vectors(
        self, vectors: Mapping[tuple[int, str], bytes], encoder: str, table: str, of: str
    ) -> None:
        """Store vectors, by `seq` and text of the rows they are `of`; those deleted or edited
        meanwhile get none.
        """
        sql = f"""insert or replace into {table} select seq, :encoder, :vector from {of}
            where seq = :seq and text = :text"""
        with self._db.atomic():
            for (seq, text), vector in vectors.items():
                self._db.write(sql, seq=seq, text=text, vector=vector, encoder=encoder)


def open_for_writing(path: Path) -> DatabaseConnection:
    """Open or create the database and migrate its schema. The caller holds the lock."""
    with translate_errors(path):
        refuse_other_formats(path)
        _refuse_lost(path)
        if not path.exists():
            path.touch(mode=0o600)  # it holds webhook tokens and private messages
        raw = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
        try:
            # Checked before the first write, so that a foreign or damaged file stays unchanged.
            version = _checked_version(raw, path)
            if not version:  # a new file, which can be shrunk in steps then
                raw.execute(f"pragma auto_vacuum = {INCREMENTAL}")
            # One connection writes, all others read: before SQLite 3.51.3 (Python 3.11 has an
            # older one), two that write or checkpoint at once can corrupt a WAL database.
            raw.execute("pragma journal_mode = wal")
            raw.execute("pragma synchronous = full")
            raw.execute("pragma secure_delete = on")  # overwrites what is deleted
            _migrate(raw, version)
            return DatabaseConnection(raw, path)
        except BaseException:
            raw.close()
            raise


def open_read_only(path: Path) -> DatabaseConnection:
    """Open an existing database for reading; the bot may be running on it."""
    with translate_errors(path):
        refuse_other_formats(path)
        _refuse_lost(path)
        if not path.exists():
            raise StoreError(
                f"There is no database at {path}.", "Start the bot once, or check UNDERSTUDY_HOME."
            )
        raw = _connect_read_only(path)
        try:
            if _checked_version(raw, path) < schema_version():
                raise StoreError(
                    f"The database {path} has an older schema.",
                    "Start the bot once to bring it up to date.",
                )
        except BaseException:
            raw.close()
            raise
        return DatabaseConnection(raw, path)


def _refuse_lost(path: Path) -> None:
    """Refuse a file that is gone or lost all its pages, as after a crash of the machine: SQLite
    would start over.

    The first start creates an empty file, too, but stores `consent.json` only once there are
    tables.
    """
    consent = path.parent / CONSENT_FILE
    is_lost = not path.exists() or path.stat().st_size == 0
    if is_lost and consent.exists():
        what = "damaged: it is empty, and" if path.exists() else "gone, although"
        raise StoreError(
            f"The database {path} is {what} this home was in use.",
            "Nothing was changed. `python -m bot restore --latest` restores the newest automatic "
            "backup. "
            f"Without one, delete {consent}: the bot then starts anew.",
        )


def refuse_other_formats(path: Path) -> None:
    """Refuse a database of a newer program (`StoreError`), or of one from before the first release
    (`EarlierFormatError`). Writes nothing: a connection that may write merges the WAL when it
    closes.
    """
    refuse_split_home(path.parent)
    if not path.exists():
        return
    has_wal = path.with_name(f"{path.name}-wal").exists()
    with translate_errors(path), closing(_connect_read_only(path, immutable=not has_wal)) as raw:
        (version,) = raw.execute("pragma user_version").fetchone()
    if version > schema_version():
        raise StoreError(
            f"The database {path} was written by a newer Understudy (schema {version}, known here "
            f"{schema_version()}).",
            "Update the project, or name another UNDERSTUDY_HOME.",
        )
    if 0 < version < FIRST_VERSION:
        raise EarlierFormatError(
            f"The database {path} was written by an Understudy from before the first release "
            f"(schema {version}, read here from {FIRST_VERSION} on).",
            f"{EARLIER_ADVICE} Nothing was changed.",
        )


def refuse_split_home(home: Path) -> None:
    """Refuse a home that was split among several processes, likewise."""
    if any(home.glob(SPLIT_HOME_FILES)):
        raise EarlierFormatError(
            f"The home {home} was split among several processes, by an Understudy from before the "
            "first release.",
            f"{EARLIER_ADVICE} Nothing was changed.",
        )


def _connect_read_only(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """Connect without the right to write; `immutable`: without a file beside it for locks, which
    SQLite would leave there.
    """
    options = "mode=ro&immutable=1" if immutable else "mode=ro"
    uri = f"{path.absolute().as_uri()}?{options}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)


def _checked_version(raw: sqlite3.Connection, path: Path) -> int:
    (version,) = raw.execute("pragma user_version").fetchone()
    (tables,) = raw.execute("select count(*) from sqlite_master").fetchone()
    if tables and not version:
        raise StoreError(
            f"The database {path} was not made by Understudy.", "Name another UNDERSTUDY_HOME."
        )
    (fault,) = raw.execute("pragma quick_check(1)").fetchone()
    if fault != "ok":
        raise sqlite3.DatabaseError(fault)
    return int(version)


def _migrate(raw: sqlite3.Connection, version: int) -> None:
    for number, script in scripts_after(version):
        # One transaction per step, its number included: a step that is killed starts over.
        raw.executescript(f"begin; {script}; pragma user_version = {number}; commit;")


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Convert errors of the disk or SQLite into `StoreError` with advice; mistakes in our own SQL
    pass through.
    """
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.OperationalError as error:
        kind = StoreLockedError if "locked" in str(error) else StoreError
        raise kind(f"The database {path} cannot be used: {error}.", _advice(error)) from error
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"The database {path} is damaged or no database: {error}.",
            "Nothing was changed. `python -m bot restore --latest` restores the newest automatic "
            "backup.",
        ) from error
    except OSError as error:
        raise StoreError(
            f"The database {path} cannot be used: {error.strerror}.", filesystem_advice(error)
        ) from error


def filesystem_advice(error: OSError) -> str:
    """Return advice about a folder or file that cannot be used."""
    if error.errno == errno.ENAMETOOLONG:
        return "Name a folder with a shorter path."
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return "A file lies where a folder has to be: name another folder."
    if error.errno == errno.EROFS:
        return "The file system is read-only: mount it for writing, or name a folder on another."
    return "Check the folder's rights."


def _advice(error: sqlite3.OperationalError) -> str:
    if "full" in str(error) or "disk I/O" in str(error):
        return "Free disk space; what was stored before is safe."
    if "locked" in str(error):
        return "Another program is writing to it: end that one."
    return "Check the folder's rights and the disk."
