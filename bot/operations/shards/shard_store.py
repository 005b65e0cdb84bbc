"""The guild data of a process with some of the shards: its part of a home, split off if need be."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bot.operations.shards import ShardRange
from bot.operations.shards.database_choice import SHARED_DB_ADVICE, shared_database
from bot.operations.shards.shared_log import ShardProcess, SharedLog, SharedStateAwayError
from bot.operations.shards.shared_state import SharedConnection
from bot.platform.db.database import refuse_other_formats
from bot.store import HOME_DATABASE, Store, StoreError
from personas.home.atomic_files import replace_durably

SPLIT_TIMEOUT_S = 60.0
LOCAL_TABLES = ("messages", "quoted_messages", "replies", "channels", "webhooks", "mutes", "gifts", "taught",
                "comparisons", "memories", "guilds", "departed_guilds", "reply_candidates", "threads",
                "time_zones", "told_topics", "training_schedules", "scheduled_lines", "member_greetings",
                "talks", "minor_guilds", "blocks", "reply_limits", "answering_settings",
                "channel_personas", "persona_aliases", "age_restrictions", "age_notices", "gone_channels",
                "audit_channels", "bot_faces", "reports",
                "action_roles", "greeted_members", "reply_attempts")  # fmt: skip
"""Tables of one guild's data, which lie with its shard."""


def open_shard_store(
    home: Path, shards: ShardRange, shared_db: str
) -> tuple[Store, SharedConnection]:
    """Open this process's part of the guild data, as a mirror of the shared state.

    A home from the time before shards is split at first, and stays as it is where the process
    cannot start. Raises `UnderstudyError`.
    """
    assert shards.ids is not None and shards.count is not None  # a part of the shards
    file = shards.file(home)
    _refuse_other_ranges(home, shards)
    shared = SharedLog(
        shared_database(home, shared_db), ShardProcess(tuple(shards.ids), shards.count)
    )
    is_split = split_home(home, shards)
    try:
        store, mirror = _open_mirror(file, shared)
    except BaseException as error:
        if is_split:
            _undo_split(home, file)
        if isinstance(error, SharedStateAwayError) and shared_db:
            raise StoreError(error.message, SHARED_DB_ADVICE) from error
        raise
    with suppress(StoreError):  # another process is splitting still: the next start ends it
        _end_split(home, shards)
    return store, mirror


def _open_mirror(file: Path, shared: SharedLog) -> tuple[Store, SharedConnection]:
    mirrors: list[SharedConnection] = []

    def connect(raw: sqlite3.Connection, path: Path) -> SharedConnection:
        mirrors.append(SharedConnection(raw, path, shared))
        return mirrors[0]

    store = Store.open(file, connect)
    try:
        shared.register()
        mirrors[0].seed()
        store.guilds.forget_removed_personas()
    except BaseException:
        store.close()
        raise
    return store, mirrors[0]


def _refuse_other_ranges(home: Path, shards: ShardRange) -> None:
    for other in ShardRange.in_home(home):
        if other.clashes(shards):
            raise StoreError(
                f"SHARDS is {shards}, but guilds of these shards have their data in "
                f"{other.file(home).name}.",
                "Set SHARDS as before: data are not moved between ranges.",
            )


def split_home(home: Path, shards: ShardRange) -> bool:
    """Copy this process's part of a home's guild data from the time before shards; False if it has
    its part.
    """
    source = home / HOME_DATABASE
    target = shards.file(home)
    if target.exists() or not source.exists():
        return False
    refuse_other_formats(source)
    with _lock_source(home):
        if target.exists():
            return False
        part = target.with_suffix(".part")
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(part)) as new:
            old.backup(new)
            new.create_function("is_here", 1, shards.has, deterministic=True)
            new.execute("pragma foreign_keys = on")
            for table in LOCAL_TABLES:
                new.execute(f"delete from {table} where not is_here(guild_id)")
            # Counts of all guilds together, which one part keeps.
            new.execute("delete from safety_answers where not is_here(0)")
            new.execute(
                "delete from fresh_starts where channel_id not in (select channel_id from messages)"
            )
            new.commit()
            new.execute("vacuum")
        replace_durably(part, target)
    return True


def _undo_split(home: Path, file: Path) -> None:
    """Delete the part of a process that could not start, unless the original is gone."""
    with _lock_source(home):
        if (home / HOME_DATABASE).exists():
            _delete_database(file)


def _end_split(home: Path, shards: ShardRange) -> None:
    """Delete the original once all processes have their parts."""
    if not (home / HOME_DATABASE).exists():
        return
    with _lock_source(home):
        covered = {shard for part in ShardRange.in_home(home) for shard in part.ids or ()}
        if covered == set(range(shards.count or 0)):
            _delete_database(home / HOME_DATABASE)


@contextmanager
def _lock_source(home: Path) -> Iterator[None]:
    lock = FileLock(
        (home / HOME_DATABASE).with_suffix(".lock"), timeout=SPLIT_TIMEOUT_S, fallback_to_soft=False
    )
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(f"Another bot runs on this home ({home}).", "Stop it first.") from None
    try:
        yield
    finally:
        lock.release()


def _delete_database(file: Path) -> None:
    for path in (file, *file.parent.glob(f"{file.name}-*")):
        path.unlink(missing_ok=True)
