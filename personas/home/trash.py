"""What was removed or replaced, kept for a day so that it can be brought back.

`trash/GUILD/KIND/ID/STAMP/` of the home has the files and folders that were moved there at one time,
and `entry.json` with their name and time. An erasure searches it as it searches the rest of the
home.
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from personas.errors import MaterialError
from personas.home.atomic_files import read_model, replace_durably, write_model
from personas.outside_names import path_inside
from personas.schemas.base import FrozenModel

TRASH_FOLDER = "trash"
ENTRY_FILE = "entry.json"
KEPT_S = 24 * 3600.0

TrashKind = Literal["persona", "card", "lore-file", "lore-set", "dataset", "upload"]
"""`card` is the state of a persona before its card was replaced; the id of a `lore-file` is that of
its persona, as a name of a file may be too long for a button.
"""


def _new_stamp() -> str:
    """Make the key of an entry: nanoseconds since 1970, and a few random digits for processes that
    remove at the same time.
    """
    return f"{time.time_ns():019}-{secrets.token_hex(2)}"


class TrashEntry(FrozenModel):
    """Something that was removed or replaced: whose it is (a guild, 0 for the operator), its id and
    name, when (seconds since 1970), and what bringing it back needs beside its files. The stamp
    tells it from other entries of the same id, and sorts them by age.
    """

    guild_id: int
    kind: TrashKind
    id: str
    name: str
    at: float
    stamp: str = Field(default_factory=_new_stamp)
    facts: dict[str, Any] = Field(default_factory=dict)

    def is_kept(self, now: float) -> bool:
        """Report whether it can still be brought back."""
        return now < self.at + KEPT_S


def is_recent(stamp: str) -> bool:
    """Report whether an entry of this stamp was made within the last day."""
    nanoseconds = stamp.partition("-")[0]
    return nanoseconds.isdecimal() and time.time() < int(nanoseconds) / 1e9 + KEPT_S


def entry_folder(home: Path, entry: TrashEntry) -> Path:
    """Return the folder of an entry, which may be missing."""
    return _folder_of_id(home, entry.guild_id, entry.kind, entry.id) / entry.stamp


def _folder_of_id(home: Path, guild_id: int, kind: TrashKind, id: str) -> Path:
    return path_inside(home / TRASH_FOLDER / str(guild_id) / kind, id)


def throw_away(
    home: Path,
    entry: TrashEntry,
    parts: Mapping[str, Path],
    *,
    copies: Mapping[str, Path] | None = None,
) -> None:
    """Move files and folders into the trash, each under a path of its own in the entry, and keep
    `copies` of others, whose files are about to be replaced by new ones; those that are missing are
    left out. Raises `OSError`, and then leaves no entry and moves nothing.
    """
    folder = entry_folder(home, entry)
    folder.mkdir(mode=0o700, parents=True)
    try:
        write_model(folder / ENTRY_FILE, entry)
        for name, path in (copies or {}).items():
            _copy(path, folder / name)
        for name, path in parts.items():
            if path.exists():
                _move(path, folder / name)
    except OSError:
        take_back(home, entry, parts)
        raise


def _copy(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, target, copy_function=_link_or_copy)
    elif path.exists():
        _link_or_copy(path, target)


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    """Link where the file system can, so that large files take no room twice."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_durably(path, target)


def find_entry(
    home: Path, guild_id: int, kind: TrashKind, id: str, *, stamp: str
) -> TrashEntry | None:
    """Find the entry of a stamp; None where it can be brought back no more."""
    now = time.time()
    for entry in entries_of(home, guild_id, kind, id):
        if entry.is_kept(now) and entry.stamp == stamp:
            return entry
    return None


def entries_of(home: Path, guild_id: int, kind: TrashKind, id: str) -> list[TrashEntry]:
    """List the entries of an id, newest first, those included that are about to be deleted."""
    return _read_all(_folder_of_id(home, guild_id, kind, id).glob("*/"))


def list_entries(home: Path, kind: TrashKind | None = None) -> list[TrashEntry]:
    """List the entries of one kind, or of all, newest first."""
    return _read_all(home.glob(f"{TRASH_FOLDER}/*/{kind or '*'}/*/*/"))


def _read_all(folders: Iterable[Path]) -> list[TrashEntry]:
    entries = [entry for folder in folders if (entry := _read(folder))]
    return sorted(entries, key=lambda entry: (entry.at, entry.stamp), reverse=True)


def find_parts(home: Path, guild_id: int, id: str, part: str) -> list[Path]:
    """Find a file or folder, by its path inside an entry, in all entries of an id, of any kind."""
    return sorted(home.glob(f"{TRASH_FOLDER}/{guild_id}/*/{id}/*/{part}"))


def take_back(home: Path, entry: TrashEntry, targets: Mapping[str, Path]) -> None:
    """Move the parts of an entry back, and delete it. Raises `FileExistsError` where something is at
    a target by now, and other `OSError`s, and then moves nothing.
    """
    folder = entry_folder(home, entry)
    found = {name: path for name, path in targets.items() if (folder / name).exists()}
    for path in found.values():
        if path.exists():
            raise FileExistsError(path)
    moved: dict[Path, Path] = {}
    try:
        for name, path in found.items():
            _move(folder / name, path)
            moved[path] = folder / name
    except OSError:
        for path, part in moved.items():
            _move(path, part)
        raise
    delete_entry(home, entry)


def swap(
    home: Path,
    entry: TrashEntry,
    present: TrashEntry | None,
    targets: Mapping[str, Path],
    *,
    copies: Mapping[str, Path] | None = None,
) -> None:
    """Bring an entry back; what is `present` at its targets takes its place in the trash, with
    `copies` of other files. Raises `OSError`, and then moves nothing.
    """
    if present:
        throw_away(home, present, targets, copies=copies)
    try:
        take_back(home, entry, targets)
    except OSError:
        if present:
            take_back(home, present, targets)
        raise


def delete_entry(home: Path, entry: TrashEntry) -> None:
    """Delete an entry for good. Raises `OSError`."""
    folder = entry_folder(home, entry)
    shutil.rmtree(folder)
    with suppress(OSError):  # other entries are in it
        folder.parent.rmdir()


def _read(folder: Path) -> TrashEntry | None:
    try:
        return read_model(folder / ENTRY_FILE, TrashEntry, "Delete the folder.")
    except MaterialError:
        return None
