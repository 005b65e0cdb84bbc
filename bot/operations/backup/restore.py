"""Restores a backup in the place of a home, in steps that can be resumed after a crash."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from bot.operations.backup.archive import (
    HOME_CONTENT,
    ArchiveReader,
    BackupError,
    damaged_error,
    open_archive,
)
from bot.operations.backup.create import ProgressFactory, copy_database
from bot.operations.backup.reconcile import ReconcileResult, reconcile_home
from bot.platform.db.database import EarlierFormatError, filesystem_advice, refuse_split_home
from bot.privacy.consent_files import read_tombstones
from bot.store import HOME_DATABASE, Store, StoreError, acquire_home_lock
from personas.cli_entry import DISK_FULL_ERRNOS
from personas.errors import KeyFileError, MaterialError
from personas.home.atomic_files import fsync_path, fsync_tree, replace_durably, write_private_file
from personas.home.data_subjects import read_consent
from personas.home.external_files import EVERYBODY, EXPORTS_FILE, read_exports, record_export
from personas.home.pseudonyms import KEY_FILE, HomeKey

STAGING_FOLDER = Path(".restore")
NEW_FOLDER = STAGING_FOLDER / "new"
PREVIOUS_FOLDER = STAGING_FOLDER / "before"
STATE_FILE = STAGING_FOLDER / "state.json"

REPLACED_NAMES = (
    *(HOME_DATABASE, f"{HOME_DATABASE}-wal", f"{HOME_DATABASE}-shm"), *sorted(HOME_CONTENT - {HOME_DATABASE}),
    "jobs", "cache", "previews", "commands.sha256",
)  # fmt: skip
"""Paths that a restore replaces. Job folders and caches are rebuilt; they may contain people of the
old home only. Everything else stays: the sandbox, which stands in for Discord, and lists of files
elsewhere.
"""

FREE_SPACE_FACTOR = 1.1  # free space that is required, relative to the unpacked size
ReapplyDeletions = Callable[[Path, Store], object]
"""Erases everybody with a tombstone again, from the home and its open store."""


@dataclass(frozen=True)
class RestoreResult:
    """A restored backup, created at `made_at`. `kept` is the old home's new path, None where it was
    not kept.
    """

    home: Path
    made_at: str
    since: ReconcileResult
    kept: Path | None


@dataclass(frozen=True)
class RestoreState:
    """The progress of the exchange: the next step, and the path for the old home (empty: none)."""

    step: Literal["out", "in", "tidy"]
    keep: str = ""


def restore_backup(
    file: Path,
    home: Path,
    *,
    now: float,
    keep_previous: bool,
    replay: ReapplyDeletions,
    start_progress: ProgressFactory,
) -> RestoreResult:
    """Restore a backup over a home, if there is one. Raises `BackupError`, or `StoreError` while a
    bot runs there.
    """
    with ExitStack() as stack:
        archive = stack.enter_context(open_archive(file))
        stack.enter_context(_clean_up_refused_restore(home))
        is_new = not os.path.lexists(home)  # Path's own method raises for unusable paths
        keep = None
        if keep_previous and not is_new:
            keep = _previous_home_path(home, now)
        if not is_new:  # reports a running bot at once
            stack.callback(acquire_home_lock(home / HOME_DATABASE).release)
        progress = start_progress(2 * archive.unpacked_bytes)
        archive.verify(progress)
        if is_new:
            stack.callback(acquire_home_lock(home / HOME_DATABASE).release)
        _finish(home)
        with _clean_up_staging(home):
            _check_free_space(home, archive)
            (home / NEW_FOLDER).mkdir(mode=0o700, parents=True)
            archive.extract(home / NEW_FOLDER, progress)
            _check_rules(home / NEW_FOLDER, file)
            since = _prepare(home, archive, replay)
            _list_copies(home / NEW_FOLDER, file, keep)
            fsync_tree(home / NEW_FOLDER)
        # From here on, a restore that is interrupted is completed; before, it is rolled back.
        _write_state(home, RestoreState("out", str(keep or "")))
        _finish(home)
        return RestoreResult(home, archive.manifest.made_at, since, keep)


def finish_restore(home: Path) -> bool:
    """Complete an interrupted restore where everything was ready, or else roll it back.

    False, at once, where there is none. Call it before a home's store is opened. Raises
    `StoreError` when another process is restoring, and `OSError`.
    """
    if not (home / STAGING_FOLDER).exists():
        return False
    lock = acquire_home_lock(home / HOME_DATABASE)
    try:
        _finish(home)
    finally:
        lock.release()
    return True


def _prepare(home: Path, archive: ArchiveReader, replay: ReapplyDeletions) -> ReconcileResult:
    new = home / NEW_FOLDER
    made_at = datetime.fromisoformat(archive.manifest.made_at).timestamp()
    with Store.open(new / HOME_DATABASE) as store:  # migrates it
        with _old_store(home) as (later, lost):
            since = reconcile_home(new, store, old=home, later=later, made_at=made_at, lost=lost)
        # The backup may still have people who were erased since: they must not come back, nor stay
        # in the WAL.
        replay(new, store)
        store.truncate_wal()
    (new / HOME_DATABASE).with_suffix(".lock").unlink(missing_ok=True)
    return since


def _list_copies(new: Path, file: Path, keep: Path | None) -> None:
    """List copies that erasure does not reach from now on: the backup itself, on another machine,
    and the old home.
    """
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    if digest not in {export.sha256 for export in read_exports(new)}:
        record_export(new, "backup", path=str(file.absolute()), people={EVERYBODY}, sha256=digest)
    if keep:
        record_export(new, "backup", str(keep), {EVERYBODY})


@contextmanager
def _old_store(home: Path) -> Iterator[tuple[Store | None, str]]:
    """Open a copy of the old home's store that can be migrated; None where there is none or it
    cannot be read.
    """
    refuse_split_home(home)
    if not (home / HOME_DATABASE).exists():
        yield None, ""
        return
    copy = home / STAGING_FOLDER / "later" / HOME_DATABASE
    copy.parent.mkdir(mode=0o700)
    try:
        copy_database(home, copy)
        store = Store.open(copy)
    except EarlierFormatError:  # it is not replaced: nothing of it could be taken over
        raise
    except StoreError as error:
        yield None, error.message
        return
    with store:
        yield store, ""


def _finish(home: Path) -> None:
    """Run the remaining steps. Each can be interrupted anywhere and repeated."""
    state = _read_state(home)
    if state is None:
        if (home / STAGING_FOLDER).exists():
            shutil.rmtree(home / STAGING_FOLDER)
        return
    if state.step == "out":
        (home / PREVIOUS_FOLDER).mkdir(mode=0o700, exist_ok=True)
        _move(home, home / PREVIOUS_FOLDER, REPLACED_NAMES)
        state = _write_state(home, RestoreState("in", state.keep))
    if state.step == "in":
        _move(home / NEW_FOLDER, home, sorted(path.name for path in (home / NEW_FOLDER).iterdir()))
        state = _write_state(home, RestoreState("tidy", state.keep))
    if state.keep and (home / PREVIOUS_FOLDER).exists():
        replace_durably(home / PREVIOUS_FOLDER, Path(state.keep))
    shutil.rmtree(home / STAGING_FOLDER)


def _move(source: Path, target: Path, names: tuple[str, ...] | list[str]) -> None:
    for name in names:
        # What is missing was moved before an interruption.
        if os.path.lexists(source / name):
            (source / name).rename(target / name)
    fsync_path(source)
    fsync_path(target)


def _read_state(home: Path) -> RestoreState | None:
    try:
        return RestoreState(**json.loads((home / STATE_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _write_state(home: Path, state: RestoreState) -> RestoreState:
    write_private_file(home / STATE_FILE, json.dumps(asdict(state)).encode())
    fsync_path(home / STAGING_FOLDER)
    return state


def _previous_home_path(home: Path, now: float) -> Path:
    """Return the path for the old home. Raises `BackupError` where it cannot be moved in one
    step.
    """
    home = home.resolve()
    keep = home.with_name(
        f"{home.name}.before-restore-{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}"
    )
    # A home that is a mount, as in a container, cannot be renamed.
    is_mount = home.parent.stat().st_dev != home.stat().st_dev
    if is_mount or not os.access(home.parent, os.W_OK) or keep.exists():
        raise BackupError(
            f"The current home cannot be moved to {keep}.",
            "Back it up instead (`python -m bot backup`), then restore without --keep-previous.",
        )
    return keep


def _check_free_space(home: Path, archive: ArchiveReader) -> None:
    free = shutil.disk_usage(home).free
    needed = int(archive.unpacked_bytes * FREE_SPACE_FACTOR)
    if free < needed:
        raise BackupError(
            f"The backup takes {needed / 2**20:.0f} MB in {home}, and {free / 2**20:.0f} MB are "
            "free.",
            "Free disk space; nothing was changed.",
        )


def _check_rules(new: Path, file: Path) -> None:
    """Check files that are read later. Raises `BackupError` naming the damaged file of the
    backup.
    """
    try:
        for key_file in ((new / KEY_FILE).parent).glob("*.key"):
            HomeKey.in_file(key_file)
        read_tombstones(new)
        read_consent(new)
        exports = new / EXPORTS_FILE
        has_exports = exports.exists() and bool(exports.read_text(encoding="utf-8").split())
        # The last line may have been truncated by a crash, but not all of them.
        if has_exports and not read_exports(new):
            raise MaterialError(f"{exports} cannot be read.", "")
    except UnicodeDecodeError as error:
        raise damaged_error(file, f"{EXPORTS_FILE} is no text") from error
    except (KeyFileError, MaterialError) as error:
        raise damaged_error(file, error.message.replace(f"{new}/", "").rstrip(".")) from error


@contextmanager
def _clean_up_refused_restore(home: Path) -> Iterator[None]:
    """Remove a home or lock that did not exist before, when a restore is refused."""
    lock = (home / HOME_DATABASE).with_suffix(".lock")
    had_home = os.path.lexists(home)
    had_lock = os.path.lexists(lock)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if not had_lock:
                lock.unlink()
            if not had_home:
                home.rmdir()
        raise


@contextmanager
def _clean_up_staging(home: Path) -> Iterator[None]:
    """Remove a new home that cannot be prepared, and leave the old one."""
    try:
        yield
    except BaseException as error:
        shutil.rmtree(home / STAGING_FOLDER, ignore_errors=True)
        if isinstance(error, OSError):
            advice = "Free disk space"
            if error.errno not in DISK_FULL_ERRNOS:
                advice = filesystem_advice(error).rstrip(".")
            raise BackupError(
                f"The backup cannot be restored to {home}: {error.strerror}.",
                f"{advice}; nothing was changed.",
            ) from error
        raise
