"""Edits `catalogue.toml` without touching comments and other entries."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from personas.errors import MaterialError
from personas.home.atomic_files import write_file
from personas.home.dataset_catalogue import (
    CATALOGUE_FILE,
    parse_catalogue,
    read_catalogue_bytes,
)
from personas.home.toml_text import toml_table

CATALOGUE_LOCK = f".{CATALOGUE_FILE}.lock"
LOCK_TIMEOUT_S = 10.0


def edit_catalogue(home: Path, name: str, fields: Mapping[str, Any] | None) -> None:
    """Write an entry of `catalogue.toml`, or remove it (None); comments and the other entries stay
    as they are.

    Raises `MaterialError` if the file cannot be read or is being edited, and `OSError`.
    """
    file = (home / CATALOGUE_FILE).resolve()  # a link stays a link
    try:
        with FileLock(home / CATALOGUE_LOCK, timeout=LOCK_TIMEOUT_S):
            while True:
                old = read_catalogue_bytes(home)
                new = _edited(old, parse_catalogue(old, home), name, fields)
                if read_catalogue_bytes(home) != old:  # somebody has saved it in an editor
                    continue
                mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
                write_file(file, new, mode)
                return
    except Timeout:
        raise MaterialError(
            f"{CATALOGUE_FILE} is being edited by another process.", "Try again."
        ) from None


def _edited(
    old: bytes, tables: dict[str, Any], name: str, fields: Mapping[str, Any] | None
) -> bytes:
    """Return the file's content with an entry written or removed; each result is parsed to make
    sure.
    """
    wanted = {key: table for key, table in tables.items() if key != name}
    text = old.decode()
    newline = "\r\n" if "\r\n" in text else "\n"
    block = ""
    if fields:
        wanted[name] = dict(fields)
        block = toml_table(name, fields).replace("\n", newline)
    if name not in tables:
        return _appended(text, block, newline).encode()
    for before, after in _splits_at_entry(text, name):
        if not fields and before.endswith(2 * newline):  # one of the blank lines goes with it
            before = before.removesuffix(newline)
        new = f"{before}{block}{after}"
        try:
            if tomllib.loads(new.removeprefix("\ufeff")) == wanted:
                return new.encode()
        except (ValueError, RecursionError):
            continue
    raise MaterialError(
        f"{CATALOGUE_FILE}: {name!r} is not a table of its own under [{name}].",
        "Edit it by hand; it was not changed.",
    )


def _appended(text: str, block: str, newline: str) -> str:
    """Append a table after a blank line."""
    if text and not text.endswith("\n"):
        text += newline
    if text and block:
        text += newline
    return text + block


def _splits_at_entry(text: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield the text before and after what may be the entry; comments before the next table stay
    with that.
    """
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    headers = [number for number, line in enumerate(lines) if _header(line) is not None]
    for start in headers:
        if _header(lines[start]) != name:
            continue
        # The entry may have tables of its own, so it may end at any later header.
        ends = [number for number in headers if number > start]
        for end in (*ends, len(lines)):
            last = end
            while lines[last - 1].strip() == "" or lines[last - 1].lstrip().startswith("#"):
                last -= 1
            for cut in (last, end):
                yield "".join(lines[:start]), "".join(lines[cut:])


def _header(line: str) -> str | None:
    """Return the first part of a table's name; None if the line is not the head of a table."""
    if not line.lstrip("\ufeff \t").startswith("["):
        return None
    try:
        return next(iter(tomllib.loads(line.lstrip("\ufeff"))))
    except (ValueError, RecursionError):
        return None
