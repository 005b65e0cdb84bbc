"""`python -m bot backup` and `python -m bot restore`, for the operator."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bot.operations.backup.archive import BackupError, ProgressCallback
from bot.operations.backup.automatic import latest_backup
from bot.operations.backup.create import ProgressFactory, create_backup
from bot.operations.backup.restore import RestoreResult, restore_backup
from bot.personas.registry import PersonaRegistry
from bot.platform.backup_folder import automatic_backups, automatic_folder
from bot.privacy.consent_files import ConsentMirror
from bot.privacy.erasure_runner import ErasureRunner
from bot.privacy.erasure_service import replay_erasures
from bot.store import Store
from personas.cli_common import LogProgress
from personas.home.data_subjects import read_consent
from personas.home.job_material import ShippedData
from personas.schemas.formatting import format_size


def run_backup(arguments: argparse.Namespace, home: Path) -> int:
    """Create a backup and print its path. Raises `UnderstudyError`."""
    with _progress_bar("backing up") as start_progress:
        backup = create_backup(home, arguments.out, time.time(), start_progress)
    if arguments.json:
        members = {name: member.model_dump() for name, member in backup.manifest.members.items()}
        summary = {
            "path": str(backup.path),
            "bytes": backup.bytes,
            "made_at": backup.manifest.made_at,
        }
        _print_json({**summary, "members": members})
    else:
        print(f"{backup.path}  ({format_size(backup.bytes)}, {len(backup.manifest.members)} files)")
        print(
            "It contains private messages and the keys to pseudonyms. Members erased later are "
            "still in it."
        )
    return 0


def run_restore(arguments: argparse.Namespace, home: Path) -> int:
    """Restore a backup and print a summary. Raises `UnderstudyError`."""
    target = (arguments.home or home).expanduser().absolute()
    now = time.time()
    # Another home's are beside it.
    chosen = arguments.settings.backup_folder if target == home.absolute() else None
    folder = automatic_folder(target, chosen)
    file = latest_backup(folder, now) if arguments.latest else arguments.file
    with _progress_bar("restoring") as start_progress, _naming_the_backup_before(file, folder, now):
        restored = restore_backup(
            file,
            target,
            now=now,
            keep_previous=arguments.keep_previous,
            replay=reapply_deletions,
            start_progress=start_progress,
        )
    if arguments.json:
        _print_json(_as_json(restored))
    else:
        print("\n".join(_restore_lines(restored)))
    return 0


@contextmanager
def _naming_the_backup_before(file: Path, folder: Path, now: float) -> Iterator[None]:
    """Advise to take the automatic backup before this one, if this one cannot be restored."""
    try:
        yield
    except BackupError as error:
        backups = list(automatic_backups(folder, now))
        if file not in backups[1:]:
            raise
        before = backups[backups.index(file) - 1]
        raise BackupError(
            error.message, f"{error.advice} The one before: python -m bot restore {before}"
        ) from error


def reapply_deletions(home: Path, store: Store) -> None:
    """Erase everybody again from a restored home who has a tombstone or an unfinished erasure."""
    names = PersonaRegistry(ShippedData.from_source_tree().cards, home).all_names()
    consents = ConsentMirror(home, store, read_consent(home).permission)
    runner = ErasureRunner(home, store, consents, time.time, personas=names)

    async def forget() -> None:
        await runner.finish()
        await replay_erasures(runner, files=True)

    asyncio.run(forget())


def _as_json(restored: RestoreResult) -> dict[str, Any]:
    since = restored.since
    taken = restored.since.taken_over
    return {
        "home": str(restored.home),
        "made_at": restored.made_at,
        "since": {
            "decisions": taken.decisions,
            "messages_deleted": taken.deleted,
            "messages_edited": taken.edited,
            "servers_deleted": since.guilds,
        },
        "tombstones": since.tombstones,
        "other_key": since.other_key,
        "database_not_read": since.lost or None,
        "kept": str(restored.kept) if restored.kept else None,
    }


def _restore_lines(restored: RestoreResult) -> Iterator[str]:
    since = restored.since
    taken = restored.since.taken_over
    yield f"{restored.home} is as it was at {restored.made_at}."
    yield (
        f"Changes since then stay: {taken.decisions} decisions of members, {taken.deleted} "
        "messages deleted and "
        f"{taken.edited} edited on Discord, {since.guilds} servers deleted, {since.tombstones} "
        "tombstones "
        "(one for each id and name of a forgotten member)."
    )
    if since.lost:
        yield f"WARNING: the database that was there could not be read ({since.lost})"
        yield (
            "Members who opted out and messages that were deleted since the backup may be back; "
            "tombstones held."
        )
    if since.other_key:
        yield (
            "The home had another key than the backup. It is kept in keys/, and who was forgotten "
            "under it was "
            "looked for under both."
        )
    if restored.kept:
        yield f"WARNING: the home as it was lies in {restored.kept}."
        yield "Erasure does not reach it. Delete it as soon as you no longer need it."


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


@contextmanager
def _progress_bar(doing: str) -> Iterator[ProgressFactory]:
    """Show a progress bar on a terminal, or a line from time to time elsewhere, on standard
    error.
    """
    progress = LogProgress()
    with tqdm(
        desc=doing, unit="B", unit_scale=True, file=sys.stderr, disable=None, leave=False
    ) as bar:

        def start_progress(size: int) -> ProgressCallback:
            bar.reset(total=size)
            done = 0

            def advance(more: int) -> None:
                nonlocal done
                done += more
                bar.update(more)
                progress.update(f"{doing}: {done / 2**20:,.0f} of {size / 2**20:,.0f} MB")

            return advance

        yield start_progress
