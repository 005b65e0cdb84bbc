"""Backups at regular intervals into a folder outside of the home, for a damaged database; the oldest
are deleted.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bot.operations.backup.archive import BackupError
from bot.operations.backup.create import create_backup
from bot.platform.backup_folder import (
    FOLDER_ADVICE,
    NAME_FORMAT,
    automatic_backups,
    automatic_folder,
    find_write_problem,
)
from bot.platform.clock import BackgroundTask, Clock
from bot.store import Store
from personas.home.atomic_files import write_file
from personas.home.pseudonyms import KEY_FILE, HomeKey
from personas.schemas.formatting import format_size

log = logging.getLogger(__name__)
FIRST_DELAY_S = 3600.0
"""Age of a home at its first backup."""
CHECK_INTERVAL_S = 600.0
OWNER_FILE = "home-id"
"""In a folder that was chosen: the id of the home whose backups are in it."""
OWN_FOLDER_ADVICE = "Name a folder for this bot alone in BACKUP_FOLDER."


def latest_backup(folder: Path, now: float) -> Path:
    """Return the newest automatic backup in a folder. Raises `BackupError` when there is none."""
    if backups := automatic_backups(folder, now):
        return list(backups)[-1]
    raise BackupError(
        f"There is no automatic backup in {folder}.",
        "Name a backup's file, or the folder of the backups in BACKUP_FOLDER.",
    )


@dataclass(frozen=True)
class BackupSchedule:
    """Seconds between two backups, the number of backups to keep, and their folder."""

    every_s: float
    keep: int
    folder: Path


class AutomaticBackup:
    """Backs a home up while the bot runs.

    A member's erasure does not wait until backups that contain them are old enough: a new one
    replaces them at once.
    """

    def __init__(self, home: Path, store: Store, clock: Clock, schedule: BackupSchedule) -> None:
        self._home = home
        self._store = store
        self._clock = clock
        self._schedule = schedule
        key = home / KEY_FILE  # as old as the home
        self._begun_at = min(clock.now(), key.stat().st_mtime) if key.exists() else clock.now()
        self.task = BackgroundTask(
            "automatic backup", self.back_up_if_due, lambda: clock.sleep(CHECK_INTERVAL_S), clock
        )
        """The task that backs up."""

    async def back_up_if_due(self) -> bool:
        """Back up, and delete what is too old or contains erased members. Raises `UnderstudyError`,
        `OSError`: of a folder that cannot be written also while no backup is due.
        """
        now = self._clock.now()
        folder = self._schedule.folder
        if problem := await asyncio.to_thread(find_write_problem, folder):
            raise BackupError(problem, FOLDER_ADVICE)
        await asyncio.to_thread(self._claim, now)
        backups = automatic_backups(folder, now)
        erased_at = max(self._store.people.tombstones().values(), default=0.0)
        outdated = [file for file, at in backups.items() if at <= erased_at]
        due = self._begun_at + FIRST_DELAY_S
        if backups:
            due = max(backups.values()) + self._schedule.every_s
        # A backup that still has an erased member is replaced at once.
        if not outdated and now < due:
            return False
        await asyncio.shield(asyncio.to_thread(self._back_up, now))
        current = [file for file in automatic_backups(folder, now) if file not in outdated]
        for file in [*outdated, *current[: -self._schedule.keep]]:
            file.unlink(missing_ok=True)
        return True

    def _claim(self, now: float) -> None:
        """Mark a folder that was chosen as this home's. Raises `BackupError` for one with backups that
        it did not make: the oldest would be deleted.
        """
        folder = self._schedule.folder
        if folder == automatic_folder(self._home):
            return
        mark = folder / OWNER_FILE
        owner = HomeKey.of(self._home).home_id()
        if mark.exists():
            if mark.read_text(encoding="ascii").strip() != owner:
                raise BackupError(f"{folder} has the backups of another bot.", OWN_FOLDER_ADVICE)
            return
        if automatic_backups(folder, now):
            raise BackupError(
                f"{folder} has backups that were not made automatically.", OWN_FOLDER_ADVICE
            )
        folder.mkdir(mode=0o700, exist_ok=True)
        write_file(mark, f"{owner}\n".encode())

    def _back_up(self, now: float) -> None:
        folder = self._schedule.folder
        folder.mkdir(mode=0o700, exist_ok=True)
        out = folder / datetime.fromtimestamp(now, UTC).strftime(NAME_FORMAT)
        backup = create_backup(self._home, out, now, lambda size: lambda more: None, listed=False)
        log.info("automatic backup: %s (%s)", backup.path, format_size(backup.bytes))
