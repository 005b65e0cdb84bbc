"""Creates a backup of a home, also while a bot runs on it."""

import errno
import hashlib
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from bot.operations.backup.archive import (
    HOME_FILES,
    HOME_FOLDERS,
    ArchiveWriter,
    BackupError,
    BackupManifest,
    ProgressCallback,
)
from bot.platform.db.database import BUSY_TIMEOUT_S, refuse_other_formats, translate_errors
from bot.store import HOME_DATABASE, StoreError
from personas.cli_entry import DISK_FULL_ERRNOS
from personas.home.adapters import adapter_ref, dialogue_adapter_folder
from personas.home.atomic_files import fsync_path, lock_folder, replace_durably
from personas.home.external_files import EVERYBODY, record_export

STAGING_PREFIX = ".understudy-backup."
SNAPSHOT_PAGES = 2048
ProgressFactory = Callable[[int], ProgressCallback]
"""Receives the total number of bytes, and returns the callback for each part."""


@dataclass(frozen=True)
class CreatedBackup:
    """A backup's path, and its size in bytes."""

    path: Path
    bytes: int
    manifest: BackupManifest


def create_backup(
    home: Path, out: Path, now: float, start_progress: ProgressFactory, *, listed: bool = True
) -> CreatedBackup:
    """Back a home up into the file or folder `out`. Raises `BackupError` or `StoreError`; leaves
    nothing then.

    A `listed` backup is in the home's list of exports, which erasures show to the operator.
    """
    out = _output_path(home, out, now)
    with _translate_disk_full(out.parent), _staging_folder(out.parent) as staging:
        backup = _write_backup(home, staging, name=out.name, now=now, start_progress=start_progress)
        fsync_path(backup.path)
        with backup.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if out.exists():
            raise _exists_error(out)
        # Listed first: better one line too many than an unlisted copy of everybody's data.
        if listed:
            record_export(home, "backup", path=str(out), people={EVERYBODY}, sha256=digest)
        replace_durably(backup.path, out)
    return CreatedBackup(out, backup.bytes, backup.manifest)


def _output_path(home: Path, out: Path, now: float) -> Path:
    if not (home / HOME_DATABASE).exists():
        raise StoreError(
            f"There is no database in {home}.", "Start the bot once, or check UNDERSTUDY_HOME."
        )
    if out.is_dir():
        out = out / f"understudy-{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}.zip"
    out = out.absolute()
    if out.resolve().is_relative_to(home.resolve()):
        raise BackupError(
            f"{out} is inside the bot's home, which is to be backed up.",
            "Name a path outside of it with --out, best on another disk.",
        )
    if out.exists():
        raise _exists_error(out)
    if not out.parent.is_dir():
        raise BackupError(
            f"There is no folder {out.parent}.", "Create it, or name another path with --out."
        )
    return out


def _exists_error(out: Path) -> BackupError:
    return BackupError(f"{out} exists already.", "Name another file with --out, or a folder.")


def _write_backup(
    home: Path, staging: Path, name: str, now: float, start_progress: ProgressFactory
) -> CreatedBackup:
    copy = staging / HOME_DATABASE
    file = staging / name
    schema_version, unfinished = copy_database(home, copy)
    # The copied database does not list the adapters of unfinished jobs yet.
    left_out = set()
    for persona, job_version, job_name in unfinished:
        if persona:
            left_out.add(adapter_ref(home, persona, job_version).folder)
        else:
            left_out.add(dialogue_adapter_folder(home, job_name))
    total_bytes = copy.stat().st_size
    for path in _home_files(home, left_out):
        total_bytes += path.stat().st_size
    progress = start_progress(total_bytes)
    with file.open("xb") as out:
        file.chmod(0o600)
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
            archive = ArchiveWriter(packed, progress)
            with copy.open("rb") as source:
                archive.add(HOME_DATABASE, source)
            for path in _home_files(home, left_out):
                with _open_if_present(path) as source:
                    archive.add(path.relative_to(home).as_posix(), source)
            made_at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
            manifest = archive.seal(made_at, version("understudy"), schema_version)
        out.flush()
    return CreatedBackup(file, file.stat().st_size, manifest)


def copy_database(home: Path, copy: Path) -> tuple[int, list[tuple[str | None, str, str]]]:
    """Copy the database; returns schema version and unfinished jobs. Raises `StoreError`, or
    `OSError` for the copy.
    """
    refuse_other_formats(home / HOME_DATABASE)
    with translate_errors(home / HOME_DATABASE):
        uri = f"{(home / HOME_DATABASE).absolute().as_uri()}?mode=ro"
        source = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    target = sqlite3.connect(copy, isolation_level=None)
    try:
        copy.chmod(0o600)
        with translate_errors(home / HOME_DATABASE):
            # A snapshot: later writes are not seen, however long copying takes.
            source.execute("begin")
            (schema_version,) = source.execute("pragma user_version").fetchone()
            (fault,) = source.execute("pragma quick_check(1)").fetchone()
            if fault != "ok":
                raise sqlite3.DatabaseError(fault)
        if not schema_version:
            raise StoreError(
                f"{home / HOME_DATABASE} was not made by Understudy.", "Check UNDERSTUDY_HOME."
            )
        source.backup(target, pages=SNAPSHOT_PAGES)
        target.execute("pragma journal_mode = delete")  # a single file, without a WAL
        # Whoever has the backup could edit the latest replies with them.
        target.execute("pragma secure_delete = on")
        target.execute("delete from interaction_tokens")
        query = (
            "select persona, version, request ->> 'job_name' from jobs where state in ('queued', "
            "'running')"
        )
        return schema_version, target.execute(query).fetchall()
    except sqlite3.OperationalError as error:  # of the copy: the source's are translated
        raise OSError(errno.ENOSPC, str(error)) from error
    finally:
        target.close()
        source.close()


def _home_files(home: Path, left_out: set[Path]) -> Iterator[Path]:
    """List the files that a backup includes beside the database, keys last, without files that are
    being written.
    """
    for name in HOME_FILES:
        if (home / name).is_file():
            yield home / name
    for name in HOME_FOLDERS:
        for path in sorted((home / name).rglob("*")):
            parts = path.relative_to(home).parts
            is_partial = path.suffix == ".part" or any(part.startswith(".") for part in parts)
            if path.is_file() and not is_partial and left_out.isdisjoint(path.parents):
                yield path


@contextmanager
def _open_if_present(path: Path) -> Iterator[BinaryIO]:
    try:
        source = path.open("rb")
    except FileNotFoundError:
        raise BackupError(
            f"{path} was deleted while the backup was made.", "Create it again."
        ) from None
    except OSError as error:
        raise BackupError(
            f"{path} cannot be read: {error.strerror}.", "Check its rights."
        ) from error
    with source:
        yield source


@contextmanager
def _staging_folder(folder: Path) -> Iterator[Path]:
    """Create a folder to write in, deleted at the end, and delete one that a killed backup left
    behind.
    """
    for leftover in folder.glob(f"{STAGING_PREFIX}*"):
        with lock_folder(leftover) as is_ours:
            if is_ours:
                shutil.rmtree(leftover, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=folder))  # mkdtemp makes it 0700
    try:
        with lock_folder(staging):
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _translate_disk_full(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "Check the folder's rights"
        if error.errno in DISK_FULL_ERRNOS:
            advice = "Free disk space there"
        raise BackupError(
            f"The backup cannot be written in {folder}: {error.strerror or error}.",
            f"{advice}, or name another path with --out. Nothing was left behind.",
        ) from error
