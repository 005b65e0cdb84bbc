"""Columns of tables as people have mapped them, in `columns.toml` beside the files, so that a later
build knows.
"""

import threading
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from personas.errors import MaterialError
from personas.home.atomic_files import write_private_file
from personas.home.toml_text import toml_table

COLUMNS_FILE = "columns.toml"
MAP_FIELD = "map"
MAX_PAIRS = 20
MAX_PAIR_CHARACTERS = 200
HEADER = (
    "# Which column is what in the tables of this folder. The dashboard writes it; comments are "
    "lost.\n"
)
_lock = threading.Lock()


def split_pairs(pairs: Sequence[str]) -> dict[str, str]:
    """Split pairs such as `speaker=Absender` at their first `=`."""
    mapping = {}
    for pair in pairs:
        left, _, right = pair.partition("=")
        mapping[left] = right
    return mapping


def pairs_error(pairs: object) -> str:
    """Describe what is wrong with a list of pairs, as the end of a sentence; empty if it is
    valid.
    """
    if not isinstance(pairs, list | tuple) or not all(isinstance(pair, str) for pair in pairs):
        return (
            'has a map that is not a list of pairs, such as ["speaker=Absender", "text=Nachricht"]'
        )
    if len(pairs) > MAX_PAIRS:
        return f"has a map of more than {MAX_PAIRS} pairs"
    roles = []
    for pair in pairs:
        left, equals, right = pair.partition("=")
        is_pair = bool(left and equals and right)
        if not is_pair or len(pair) > MAX_PAIR_CHARACTERS or not pair.isprintable():
            return f"has {pair[:40]!r} in its map, which is not role=column"
        roles.append(left)
    for role in roles:
        if roles.count(role) > 1:
            return f"gives {role!r} twice in its map"
    return ""


def read_mapping(file: Path) -> tuple[str, ...]:
    """Read the pairs for a file or folder from `columns.toml` beside it; empty without. Raises
    `MaterialError`.
    """
    table = _read_tables(file.parent).get(file.name)
    if table is None:
        return ()
    pairs = table.get(MAP_FIELD) if isinstance(table, dict) else None
    if wrong := pairs_error(pairs):
        raise MaterialError(
            f"{file.parent.name}/{COLUMNS_FILE} {wrong} for {file.name}.", "Correct it."
        )
    return tuple(pairs or ())


def write_mapping(file: Path, pairs: Sequence[str]) -> None:
    """Store the pairs for a file; none removes them. Raises `MaterialError` if `columns.toml`
    cannot be read.
    """
    with _lock:
        tables = _read_tables(file.parent)
        tables.pop(file.name, None)
        if pairs:
            tables[file.name] = {MAP_FIELD: list(pairs)}
        if tables:
            write_private_file(file.parent / COLUMNS_FILE, _format(tables).encode())
        else:
            (file.parent / COLUMNS_FILE).unlink(missing_ok=True)


def _read_tables(folder: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((folder / COLUMNS_FILE).read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, OSError):
            reason = error.strerror or type(error).__name__
        raise MaterialError(
            f"{folder.name}/{COLUMNS_FILE} cannot be read: {reason}.", "Correct it."
        ) from error


def _format(tables: Mapping[str, Any]) -> str:
    blocks = [toml_table(name, table) for name, table in sorted(tables.items())]
    return "\n".join([HEADER, *blocks])
