"""Backup of a home into one file, and its restoration."""

from bot.backup.archive import BackupError
from bot.backup.create import CreatedBackup, create_backup
from bot.backup.restore import RestoreResult, finish_restore, restore_backup

__all__ = [
    "BackupError",
    "CreatedBackup",
    "RestoreResult",
    "create_backup",
    "finish_restore",
    "restore_backup",
]
