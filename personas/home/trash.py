"""What was removed or replaced, kept for a day so that it can be brought back.

`trash/GUILD/KIND/ID/` of the home has the files and folders that were moved there, and `entry.json`
with their name and time. An erasure searches it as it searches the rest of the home.
"""

import os
import shutil
from collections.abc import Mapping
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

TrashKind = Literal["persona", "card", "lore-set", "dataset", "upload"]
"""`card` is the state of a persona before its card was replaced."""


class TrashEntry(FrozenModel):
    """Something that was removed or replaced: whose it is (a guild, 0 for the operator), its id and
    name, when (seconds since 1970), and what bringing it back needs beside its files.
    """

    guild_id: int
    kind: TrashKind
    id: str
    name: str
    at: float
    facts: dict[str, Any] = Field(default_factory=dict)

    def is_kept(self, now: float) -> bool:
        """Report whether it can still be brought back."""
        return now < self.at + KEPT_S


def entry_folder(home: Path, guild_id: int, kind: TrashKind, id: str) -> Path:
    """Return the folder of an entry, which may be missing."""
    return path_inside(home / TRASH_FOLDER / str(guild_id) / kind, id)


def throw_away(home: Path, entry: TrashEntry, parts: Mapping[str, Path]) -> None:
    """Move files and folders into the trash, each under a name of its own; those that are missing
    are left out. An earlier entry of this id is deleted. Raises `OSError`, and then moves nothing.
    """
    folder = _make_folder(home, entry)
    try:
        for name, path in parts.items():
            if path.exists():
                replace_durably(path, folder / name)
    except OSError:
        take_back(home, entry, parts)
        raise


def keep_copy(home: Path, entry: TrashEntry, parts: Mapping[str, Path]) -> None:
    """Keep files and folders whose files are about to be replaced by new ones, as `throw_away` moves
    them. They are linked where the file system can, so that large ones take no room twice.
    """
    folder = _make_folder(home, entry)
    for name, path in parts.items():
        if path.is_dir():
            shutil.copytree(path, folder / name, copy_function=_link_or_copy)
        elif path.exists():
            _link_or_copy(path, folder / name)


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _make_folder(home: Path, entry: TrashEntry) -> Path:
    folder = entry_folder(home, entry.guild_id, entry.kind, entry.id)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True)
    write_model(folder / ENTRY_FILE, entry)
    return folder


def find_entry(home: Path, guild_id: int, kind: TrashKind, id: str) -> TrashEntry | None:
    """Find an entry; None where there is none, or none that can be read."""
    return _read(entry_folder(home, guild_id, kind, id))


def list_entries(home: Path, kind: TrashKind | None = None) -> list[TrashEntry]:
    """List the entries of one kind, or of all, newest first."""
    pattern = f"{TRASH_FOLDER}/*/{kind or '*'}/*/"
    entries = [entry for folder in home.glob(pattern) if (entry := _read(folder))]
    return sorted(entries, key=lambda entry: -entry.at)


def find_parts(home: Path, guild_id: int, id: str, part: str) -> list[Path]:
    """Find a file or folder, by its path inside an entry, in the entries of an id, of any kind."""
    return sorted(home.glob(f"{TRASH_FOLDER}/{guild_id}/*/{id}/{part}"))


def take_back(home: Path, entry: TrashEntry, targets: Mapping[str, Path]) -> None:
    """Move the parts of an entry back, and delete it. Raises `FileExistsError` where something is at
    a target by now, and then moves nothing.
    """
    folder = entry_folder(home, entry.guild_id, entry.kind, entry.id)
    found = {name: path for name, path in targets.items() if (folder / name).exists()}
    for path in found.values():
        if path.exists():
            raise FileExistsError(path)
    for name, path in found.items():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_durably(folder / name, path)
    delete_entry(home, entry)


def delete_entry(home: Path, entry: TrashEntry) -> None:
    """Delete an entry for good. Raises `OSError`."""
    shutil.rmtree(entry_folder(home, entry.guild_id, entry.kind, entry.id))


def _read(folder: Path) -> TrashEntry | None:
    try:
        return read_model(folder / ENTRY_FILE, TrashEntry, "Delete the folder.")
    except MaterialError:
        return None
