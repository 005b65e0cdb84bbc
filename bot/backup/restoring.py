"""Putting a backup back in a home's place.

All is made ready aside, in `<home>/.restore/new`: unpacked, brought up to date, told what members and Discord have
decided since, and everybody forgotten again who was forgotten since. Then the old is moved out and the new in, step by
step, each of which can be taken up again after a kill (`finish_restore`). At no moment does a bot find a home in which
somebody is back who was forgotten.
"""

from __future__ import annotations

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

from bot.backup.archive import CONTENT, DATABASE, Archive, BackupError, damaged, reading
from bot.backup.making import FULL, Total, copy_database
from bot.backup.since import Since, bring_up_to_date
from bot.privacy.tombstones import read_tombstones
from bot.store import Store, StoreError, locked
from bot.store.database import advice_on
from personas.consent import read_consent
from personas.durable import sync, sync_tree
from personas.errors import KeyFileError, MaterialError
from personas.exports import EVERYBODY, EXPORTS_FILE, exports, note_export
from personas.keys import KEY_FILE, HomeKey

ASIDE = Path(".restore")
NEW, BEFORE, STATE = ASIDE / "new", ASIDE / "before", ASIDE / "state.json"

REPLACED = (
    DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", *sorted(CONTENT - {DATABASE}), "jobs", "cache", "previews",
    "commands.sha256",
)  # fmt: skip
"""What a restore takes out of a home. Job folders and caches are made anew; they may hold who is in the old home only.
Whatever else lies there stays: the local guild, which stands for Discord, and lists of files elsewhere."""

SPARE = 1.1
"""How much room there must be, relative to what is unpacked."""

Replay = Callable[[Path, Store], object]
"""Forgets again, in the home and its open store, everybody for whom there is a tombstone."""


@dataclass(frozen=True)
class Restored:
    """What was put back: a backup made at `made_at`. `kept` is where the home lies as it was, None where nowhere."""

    home: Path
    made_at: str
    since: Since
    kept: Path | None


@dataclass(frozen=True)
class State:
    """How far the exchange is: the step to take next, and where the old home is to be kept (empty: nowhere)."""

    step: Literal["out", "in", "tidy"]
    keep: str = ""


def restore(file: Path, home: Path, *, now: float, keep_previous: bool, replay: Replay, total: Total) -> Restored:
    """Put a backup in the place of a home, which need not exist.

    Raises `BackupError`, and `StoreError` when a bot runs on the home; the home is then as it was.
    """
    with ExitStack() as stack:
        archive = stack.enter_context(reading(file))
        stack.enter_context(_no_new_home_by_halves(home))
        is_new = not os.path.lexists(home)  # also where nothing can be: Path's own raises
        keep = _kept_at(home, now) if keep_previous and not is_new else None
        if not is_new:  # a bot that runs is said at once
            stack.callback(locked(home / DATABASE).release)
        heard = total(2 * archive.unpacked_bytes)
        archive.verify(heard)
        if is_new:
            stack.callback(locked(home / DATABASE).release)
        _finish(home)
        with _nothing_left_behind(home):
            _check_room(home, archive)
            (home / NEW).mkdir(mode=0o700, parents=True)
            archive.extract(home / NEW, heard)
            _check_rules(home / NEW, file)
            since = _made_ready(home, archive, replay)
            _list_copies(home / NEW, file, keep)
            sync_tree(home / NEW)
        _write_state(home, State("out", str(keep or "")))
        _finish(home)
        return Restored(home, archive.manifest.made_at, since, keep)


def finish_restore(home: Path) -> bool:
    """Take up a restore that was cut off: to its end where all was ready, back to the beginning otherwise.

    False, at once, where there is none. Call it before a home's store is opened. Raises `StoreError` when another
    process is at it, and `OSError`.
    """
    if not (home / ASIDE).exists():
        return False
    lock = locked(home / DATABASE)
    try:
        _finish(home)
    finally:
        lock.release()
    return True


def _made_ready(home: Path, archive: Archive, replay: Replay) -> Since:
    new, made_at = home / NEW, datetime.fromisoformat(archive.manifest.made_at).timestamp()
    with Store.open(new / DATABASE) as store:  # brings an older schema up to date
        with _later(home) as (later, lost):
            since = bring_up_to_date(new, store, home, later, made_at, lost)
        replay(new, store)
        store.compact()
    (new / DATABASE).with_suffix(".lock").unlink(missing_ok=True)
    return since


def _list_copies(new: Path, file: Path, keep: Path | None) -> None:
    """What forgetting does not reach from now on: the backup itself, on another machine, and the old home."""
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    if digest not in {export.sha256 for export in exports(new)}:
        note_export(new, "backup", str(file.absolute()), {EVERYBODY}, digest)
    if keep:
        note_export(new, "backup", str(keep), {EVERYBODY})


@contextmanager
def _later(home: Path) -> Iterator[tuple[Store | None, str]]:
    """The old home's store, in a copy that can be brought up to date; None where there is none or it cannot be read."""
    if not (home / DATABASE).exists():
        yield None, ""
        return
    copy = home / ASIDE / "later" / DATABASE
    copy.parent.mkdir(mode=0o700)
    try:
        copy_database(home, copy)
        store = Store.open(copy)
    except StoreError as error:
        yield None, error.message
        return
    with store:
        yield store, ""


# ------------------------------------------------------------------------------------------------ the exchange


def _finish(home: Path) -> None:
    """Take the steps that are left. Each can be cut off anywhere and taken again."""
    state = _read_state(home)
    if state is None:
        if (home / ASIDE).exists():
            shutil.rmtree(home / ASIDE)
        return
    if state.step == "out":
        (home / BEFORE).mkdir(mode=0o700, exist_ok=True)
        _move(home, home / BEFORE, REPLACED)
        state = _write_state(home, State("in", state.keep))
    if state.step == "in":
        _move(home / NEW, home, sorted(path.name for path in (home / NEW).iterdir()))
        state = _write_state(home, State("tidy", state.keep))
    if state.keep and (home / BEFORE).exists():
        (home / BEFORE).rename(state.keep)
    shutil.rmtree(home / ASIDE)


def _move(source: Path, target: Path, names: tuple[str, ...] | list[str]) -> None:
    for name in names:
        if os.path.lexists(source / name):
            (source / name).rename(target / name)
    sync(source)
    sync(target)


def _read_state(home: Path) -> State | None:
    try:
        return State(**json.loads((home / STATE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _write_state(home: Path, state: State) -> State:
    aside = (home / STATE).with_suffix(".part")
    with aside.open("w", encoding="utf-8") as out:
        json.dump(asdict(state), out)
        out.flush()
        os.fsync(out.fileno())
    aside.replace(home / STATE)
    sync(home / ASIDE)
    return state


# ------------------------------------------------------------------------------------------------ before it


def _kept_at(home: Path, now: float) -> Path:
    """Where the old home is to lie. Raises `BackupError` where it cannot be moved in one step."""
    home = home.resolve()
    keep = home.with_name(f"{home.name}.before-restore-{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}")
    if home.parent.stat().st_dev != home.stat().st_dev or not os.access(home.parent, os.W_OK) or keep.exists():
        raise BackupError(
            f"The home as it is cannot be kept as {keep}.",
            "Back it up instead (`python -m bot backup`), then restore without --keep-previous.",
        )
    return keep


def _check_room(home: Path, archive: Archive) -> None:
    free, needed = shutil.disk_usage(home).free, int(archive.unpacked_bytes * SPARE)
    if free < needed:
        raise BackupError(
            f"The backup takes {needed / 2**20:.0f} MB in {home}, and {free / 2**20:.0f} MB are free.",
            "Free disk space; nothing was changed.",
        )


def _check_rules(new: Path, file: Path) -> None:
    """Whoever reads these later must be able to. Raises `BackupError` naming the file of the backup that is damaged."""
    try:
        for key_file in ((new / KEY_FILE).parent).glob("*.key"):
            HomeKey.in_file(key_file)
        read_tombstones(new)
        read_consent(new)
        lines = (new / EXPORTS_FILE).read_text(encoding="utf-8").split() if (new / EXPORTS_FILE).exists() else []
        if lines and not exports(new):  # one line may well have been cut off by a crash
            raise MaterialError(f"{new / EXPORTS_FILE} cannot be read.", "")
    except UnicodeDecodeError as error:
        raise damaged(file, f"{EXPORTS_FILE} is no text") from error
    except (KeyFileError, MaterialError) as error:
        raise damaged(file, error.message.replace(f"{new}/", "").rstrip(".")) from error


@contextmanager
def _no_new_home_by_halves(home: Path) -> Iterator[None]:
    """Where a restore is refused, nothing is left of a home, or of a lock, that was not there before."""
    lock = (home / DATABASE).with_suffix(".lock")
    had_home, had_lock = os.path.lexists(home), os.path.lexists(lock)
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
def _nothing_left_behind(home: Path) -> Iterator[None]:
    """Where the new home cannot be made ready, the old one stays and nothing else."""
    try:
        yield
    except BaseException as error:
        shutil.rmtree(home / ASIDE, ignore_errors=True)
        if isinstance(error, OSError):
            advice = "Free disk space" if error.errno in FULL else advice_on(error).rstrip(".")
            raise BackupError(
                f"The backup cannot be put into {home}: {error.strerror}.", f"{advice}; nothing was changed."
            ) from error
        raise
