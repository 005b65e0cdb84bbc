"""The doctor's checks of shards and of the database that they share."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bot.operations.doctor.checks import BotCheck
from bot.operations.shards import ShardRange
from bot.operations.shards.database_choice import STATE_FILE, shared_database
from bot.operations.shards.shared_log import LEASE_S
from bot.settings import Settings
from bot.store import StoreError


def check_shards(settings: Settings) -> Iterator[BotCheck]:
    """Check the shards against the home, and the shared database; nothing without shards."""
    shards = settings.shards
    parts = ShardRange.in_home(settings.home)
    names = ", ".join(map(str, parts))
    if parts and settings.is_whole_bot:
        found = f"the home is split among the shards {names}, but SHARDS is {shards or 'not set'}"
        yield BotCheck("shards", "fail", found, "set SHARDS to one of these in each process")
    if shards is None or settings.is_whole_bot:
        return
    if any(part.clashes(shards) for part in parts):
        found = f"SHARDS is {shards}, but the home is split among the shards {names}"
        yield BotCheck(
            "shards", "fail", found, "set SHARDS to one of these: data are not moved between ranges"
        )
        return
    missing = set(range(shards.count or 0)).difference(shards.ids or ())
    for part in parts:
        missing.difference_update(part.ids or ())
    if missing and parts:
        found = f"no process has yet begun with the shards {', '.join(map(str, sorted(missing)))}"
        yield BotCheck(
            "shards", "warn", found, "start one for each range, with the same UNDERSTUDY_HOME"
        )
    else:
        rest = f", of {names}" if parts else ""
        yield BotCheck("shards", "ok", f"{shards} here{rest}")
    yield _check_shared_database(settings.home, settings.shared_db)


def _check_shared_database(home: Path, shared_db: str) -> BotCheck:
    if not shared_db and not (home / STATE_FILE).exists():
        return BotCheck("shared database", "ok", f"{STATE_FILE} is created when the bot starts")
    try:
        with closing(shared_database(home, shared_db).open()) as session:
            sql = f"select count(distinct epoch) from {session.prefix}shards where seen > :since"
            ((count,),) = session.run(sql, since=time.time() - LEASE_S)
    except StoreError as error:
        return BotCheck("shared database", "fail", error.message, error.advice)
    except Exception as error:
        # The database driver's own, which is not imported here: only SHARED_DB needs it.
        why = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        if "UndefinedTable" in why or "InvalidSchemaName" in why:
            return BotCheck(
                "shared database", "ok", "reachable; its tables are created when the bot starts"
            )
        remedy = "check SHARED_DB, and that the server runs; chat goes on without it"
        return BotCheck("shared database", "fail", f"it cannot be used: {why}", remedy)
    processes = "1 process runs" if count == 1 else f"{count} processes run"
    return BotCheck("shared database", "ok", f"reachable; {processes}")
