"""Uploads and data sets that were deleted or replaced, kept for a day with what was stated of them."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bot.data.errors import UnknownDataError
from bot.data.folders import DataFolders
from bot.data.rights import write_statement
from bot.platform.errors import RefusedError
from bot.platform.trash import require_entry
from bot.training.dataset_catalog import CatalogueListing, DatasetCatalog, DatasetPlace
from personas.errors import UnderstudyError
from personas.home.column_maps import write_mapping
from personas.home.rights import RightsStatement
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.home.trash import TrashEntry, delete_entry, list_entries, swap, throw_away

DataKind = Literal["upload", "dataset"]
DATA_PART = "data"
BUILD_PART = "build"


@dataclass(frozen=True)
class DataItem:
    """An upload, or a data set that was built here, and what is stated of it."""

    kind: DataKind
    name: str
    place: DatasetPlace
    statement: RightsStatement | None
    mapping: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataTrash:
    """Keeps data for a day. Its methods read and write the disk, and raise `OSError`."""

    home: Path
    catalogue: DatasetCatalog

    def throw_away(self, item: DataItem) -> None:
        """Move an item into the trash, with its name for moderators."""
        entry = self._entry(item)
        # First, so that moderators never name a file that is gone.
        self.catalogue.withdraw(item.place)
        throw_away(self.home, entry, self._parts(item.kind, item.name))

    def keep_copy(self, item: DataItem) -> TrashEntry:
        """Keep an item that is about to be replaced."""
        entry = self._entry(item)
        throw_away(self.home, entry, {}, copies=self._parts(item.kind, item.name))
        return entry

    def delete(self, entry: TrashEntry) -> None:
        """Delete what was not replaced after all."""
        delete_entry(self.home, entry)

    def entries(self) -> list[TrashEntry]:
        """List what can be brought back, newest first."""
        now = time.time()
        entries = []
        for entry in list_entries(self.home):
            if entry.kind in ("upload", "dataset") and entry.is_kept(now):
                entries.append(entry)
        return entries

    def require_entry(self, kind: DataKind, name: str, stamp: str) -> TrashEntry:
        """Return what can be brought back. Raises `UnknownDataError` where that is nothing."""
        try:
            return require_entry(self.home, OPERATOR_GUILD_ID, kind=kind, id=name, stamp=stamp)
        except RefusedError as error:
            raise UnknownDataError(error.message, error.advice) from error

    def bring_back(self, entry: TrashEntry, present: DataItem) -> bool:
        """Bring an item back; the one that is `present` under its name takes its place in the trash.
        False where it has no name for moderators any more.
        """
        parts = self._parts(present.kind, present.name)
        is_there = any(path.exists() for path in parts.values())
        swap(self.home, entry, self._entry(present) if is_there else None, parts)
        # What was stated of the one that was there says nothing of this one.
        self.catalogue.withdraw(present.place)
        return self._restate(present.kind, present.name, entry.facts)

    def _restate(self, kind: DataKind, name: str, facts: Mapping[str, Any]) -> bool:
        statement = RightsStatement(**facts["statement"]) if facts["statement"] else None
        if kind == "upload":
            file = DataFolders(self.home).upload(name)
            write_statement(file, statement)
            write_mapping(file, facts["mapping"])
        if not facts["listing"]:
            return True
        listing = CatalogueListing(**facts["listing"])
        if statement is None:
            return False
        try:
            self.catalogue.offer(facts["place"], listing, statement)
        except UnderstudyError:  # another data set has the name by now
            return False
        return True

    def _entry(self, item: DataItem) -> TrashEntry:
        listing = None
        if offered := self.catalogue.entry_at(item.place):
            listing = {
                "name": offered.name,
                "language": offered.language,
                "format": offered.format or "",
                "persona_names": list(offered.persona_names),
                "mapping": list(offered.mapping),
            }
        return TrashEntry(
            guild_id=OPERATOR_GUILD_ID,
            kind=item.kind,
            id=item.name,
            name=item.name,
            at=time.time(),
            facts={
                "place": item.place,
                "listing": listing,
                "statement": asdict(item.statement) if item.statement else None,
                "mapping": list(item.mapping),
            },
        )

    def _parts(self, kind: DataKind, name: str) -> dict[str, Path]:
        folders = DataFolders(self.home)
        if kind == "upload":
            return {DATA_PART: folders.upload(name)}
        return {DATA_PART: folders.set(name), BUILD_PART: folders.build(name)}
