"""The schema of the database: `schema.sql`, and the numbered migrations that came after it."""

from collections.abc import Iterator
from pathlib import Path

SCHEMA_FILE = Path(__file__).with_name("schema.sql")
FIRST_VERSION = 53
"""The number of `schema.sql`, which no longer changes once it is released. Databases of earlier
numbers, which no release made, are refused.
"""
MIGRATIONS: tuple[str, ...] = ()
"""The first one brings a database of `FIRST_VERSION` to the next number, and so on."""


def schema_version() -> int:
    """Return the number of an up-to-date database."""
    return FIRST_VERSION + len(MIGRATIONS)


def scripts_after(version: int) -> Iterator[tuple[int, str]]:
    """List the scripts that bring a database of a version up to date, each with its number; a new
    database has 0.
    """
    scripts = (SCHEMA_FILE.read_text(encoding="utf-8"), *MIGRATIONS)
    for number, script in enumerate(scripts, start=FIRST_VERSION):
        if number > version:
            yield number, script
