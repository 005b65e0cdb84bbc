"""The database of the state that processes share: PostgreSQL with SHARED_DB, else a file in the
home.
"""

from pathlib import Path

from bot.operations.shards.shared_log import SharedDatabase, SqliteDatabase
from bot.store import StoreError

STATE_FILE = "shared.sqlite"
SHARED_DB_ADVICE = (
    "Check SHARED_DB, and that PostgreSQL runs; in its password @, : and / are written %40, %3A "
    "and %2F."
)


def shared_database(home: Path, shared_db: str) -> SharedDatabase:
    """Return the database of the state that processes share. Raises `StoreError` where its driver
    is missing.
    """
    if shared_db:
        return postgres_database(shared_db)
    return SqliteDatabase(home / STATE_FILE)


def postgres_database(url: str) -> SharedDatabase:
    """Return the database at SHARED_DB. Raises `StoreError` where its driver is missing."""
    try:
        from bot.operations.shards.postgres import (
            PostgresDatabase,  # only with SHARED_DB: its driver is an optional package
        )
    except ModuleNotFoundError as error:
        raise StoreError(
            f"SHARED_DB is set, but the package {error.name} is missing.",
            "Install it: pip install '.[shards]'.",
        ) from error
    return PostgresDatabase(url)
