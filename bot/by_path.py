"""A data set that the operator names by its path, and the right that is stated to it.

A relative path is looked for in `UNDERSTUDY_HOME`, then where the bot was started; `owner/name` that is no path is a
data set of a hub that was fetched before. Nothing trains without a right that somebody has signed for: in `rights.toml`
beside the file or folder, or in the entry of `catalogue.toml` that names the same. A folder that `dataset build` made
holds the rights to its samples itself.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from personas.catalogue import CATALOGUE_FILE, HUB_ID, Entry, read_catalogue
from personas.consent import read_consent
from personas.data_set import is_data_set, statement_of_set
from personas.errors import MaterialError
from personas.rights import Statement, decide, statement_beside

WHERE = (
    "Give a path from UNDERSTUDY_HOME, from where the bot was started, or an absolute one; or the id of a data set "
    "that was fetched from a hub before."
)


@dataclass(frozen=True)
class Named:
    """What a path names: where it lies, how it is called in front of others, and who states which right to it."""

    path: Path
    origin: str
    statement: Statement
    format: str | None = None


def named_by_path(home: Path, text: str) -> Named:
    """Find what `dataset_path` names. Raises `MaterialError` when it is not there or may not be trained on."""
    entries = read_catalogue(home).entries.values()
    path = _on_disk(home, text)
    if path:
        origin, advice = path.name or text, ""
        entry = next((entry for entry in entries if entry.path and _same(entry.path, path)), None)
        statement = _stated(path, entry)
    else:
        path, origin, advice = _fetched(text), text, _how_to_sign_for_hub(text)
        entry = next((entry for entry in entries if entry.hub == text), None)
        statement = entry.statement if entry else None
    if path is None:
        raise MaterialError(f"There is no {text!r} on this machine.", WHERE)
    if home.is_relative_to(path):
        raise MaterialError(f"{text!r} holds the bot's own home.", "Name the data set alone.")
    verdict = decide(origin, signed=statement.right if statement else "", consent=read_consent(home))
    if statement is None:
        raise MaterialError(verdict.refused, advice or verdict.advice)
    verdict.require()
    return Named(path, origin, statement, entry.format if entry else None)


def require_copies(path: Path, home: Path) -> None:
    """Raise `MaterialError` when it cannot be copied into a job: for want of room, or because it is no plain file.

    May take long for a large folder.
    """
    try:
        needed = sum(_sizes(path))
    except OSError as error:
        raise MaterialError(f"The data set cannot be read: {error.strerror}.", "Check its rights and links.") from error
    for place in {home, Path(tempfile.gettempdir())}:
        if needed > shutil.disk_usage(place).free:
            what = "UNDERSTUDY_HOME" if place == home else "the folder for temporary files"
            raise MaterialError(
                f"The data set of {needed / 2**30:.1f} GiB is copied before it is trained on, and {what} has no room.",
                "Free the disk, or name a part of it.",
            )


def _stated(path: Path, entry: Entry | None) -> Statement | None:
    """What is stated of what lies at a path; a data set that `dataset build` made says so itself."""
    if is_data_set(path):
        return statement_of_set(path)
    return entry.statement if entry else statement_beside(path)


def _on_disk(home: Path, text: str) -> Path | None:
    if not text.isprintable():
        raise MaterialError("The path holds unprintable characters.", WHERE)
    try:
        given = Path(text).expanduser()
        for place in (home / given, Path.cwd() / given):
            path = Path(os.path.normpath(place))  # not resolved: a right is stated beside the name that is given
            if path.is_file() or path.is_dir():
                return path
    except (OSError, RuntimeError):  # too long, may not be looked at, or the home of nobody known
        return None
    return None


def _fetched(text: str) -> Path | None:
    if not HUB_ID.fullmatch(text):
        return None
    nobody = Statement("", "", "", "")
    try:
        return Entry(text, None, text, None, nobody).located()
    except MaterialError:
        return None


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _how_to_sign_for_hub(hub: str) -> str:
    return (
        f"Whoever holds the rights, or knows its licence, states so in {CATALOGUE_FILE} in UNDERSTUDY_HOME: a table "
        f'with hub = "{hub}", right (licensed:<name>, own-writing, data-package or form), stated_by, stated_on and why.'
    )


def _sizes(path: Path) -> Iterator[int]:
    """Bytes of a file, or of every file of a folder. Raises `MaterialError` at the first that must not be copied."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_dir():
            if file.is_symlink():
                raise MaterialError(f"{file.name!r} is a link to a folder.", "Copy what it leads to into the data set.")
        elif not stat.S_ISREG((about := file.stat()).st_mode):
            raise MaterialError(f"{file.name!r} is no plain file.", "Leave it out of the data set.")
        else:
            yield about.st_size
