"""The parts that a process with some of the shards shares with the others: Discord's limits, state,
and guild data.

Requests and identifies reserve their time in the shared database. A reservation is one statement
(the generic cell rate algorithm, GCRA), so that nothing is locked while a process waits, and a
process that is killed while it waits only leaves its time unused.
"""

import asyncio
import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from filelock import FileLock, Timeout

from bot.operations.shards import ShardRange
from bot.operations.shards.shared_state import (
    Session,
    ShardProcess,
    SharedConnection,
    SharedDatabase,
    SharedLog,
    SharedRow,
    SharedStateAwayError,
    SqliteDatabase,
)
from bot.store import HOME_DATABASE, Store, StoreError
from personas.home.atomic_files import replace_durably

log = logging.getLogger(__name__)

LIMITS_FILE = "rate_limits.sqlite"
STATE_FILE = "shared.sqlite"
IDENTIFY_INTERVAL_S = 5.0
IDENTIFY_MARGIN_S = 0.2
"""Added to Discord's interval, because the frame is sent some time after its reservation."""
INVALID_STATUSES = (401, 403, 429)
LOAD_SMOOTHING = 0.2
EDIT_STRETCH = 10.0
MAX_EDIT_STRETCH_S = 10.0
RETRY_DELAY_S = 5.0
HEARTBEAT_S = 2.0
WAIT_S = 0.5
SPLIT_TIMEOUT_S = 60.0
SHARED_DB_ADVICE = (
    "Check SHARED_DB, and that PostgreSQL runs; in its password @, : and / are written %40, %3A "
    "and %2F."
)
LOCAL_TABLES = ("messages", "quoted_messages", "replies", "channels", "webhooks", "mutes", "gifts", "taught",
                "comparisons", "memories", "guilds", "departed_guilds", "reply_candidates", "threads")  # fmt: skip
"""Tables of one guild's data, which lie with its shard."""


# ------------------------------------------------------------------------------------------- limits


@dataclass(frozen=True)
class RateBudget:
    """At most `burst` at once, then one each `interval_s` seconds."""

    interval_s: float
    burst: int = 1


REQUESTS = RateBudget(1 / 45, burst=5)
"""Discord allows 50 requests in any second: never more than 45 + 5."""
INVALID_REQUESTS = RateBudget(600 / 1_000, burst=8_500)
"""Discord bans an address for 10,000 responses 401, 403 and 429 in 10 minutes: never more than
8,500 + 1,000.
"""
IDENTIFIES = RateBudget(IDENTIFY_INTERVAL_S + IDENTIFY_MARGIN_S)

CREATE_SQL = (
    "create table if not exists {p}reservations (name text primary key, free_at double precision "
    "not null)"
)
RESERVE_SQL = """insert into {p}reservations as own (name, free_at) values (:name, {now} + :interval)
    on conflict (name) do update set free_at = {greatest}(own.free_at, {now}) + :interval
    returning free_at - {now} - :interval * :burst"""


class Reservations:
    """Reserves the next free time under a name, in one database; in `fallback` while that is
    away.
    """

    def __init__(
        self,
        database: SharedDatabase,
        fallback: "Reservations | None" = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` is this host's, for a database without one of its own."""
        self._database = database
        self._fallback = fallback
        self._clock = clock
        self._session: Session | None = None
        self._thread = ThreadPoolExecutor(1, "reservations")
        self._retry_at = 0.0

    async def reserve(self, name: str, budget: RateBudget) -> float:
        """Return the seconds to wait until the reserved time, 0 or less for now."""
        if self._fallback is None or time.monotonic() >= self._retry_at:
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._reserve, name, budget
                )
            except Exception:  # the driver's
                if self._fallback is None:
                    raise
                self._retry_at = time.monotonic() + RETRY_DELAY_S
        return await self._fallback.reserve(name, budget)

    def _reserve(self, name: str, budget: RateBudget) -> float:
        try:
            if self._session is None:
                self._session = self._database.open()
                self._session.create([CREATE_SQL.format(p=self._session.prefix)])
            session = self._session
            sql = RESERVE_SQL.format(
                p=session.prefix, now=session.clock_sql, greatest=session.greatest_sql
            )
            values = {
                "name": name,
                "interval": budget.interval_s,
                "burst": budget.burst,
                "now": self._clock(),
            }
            return float(session.run(sql, **values)[0][0])
        except BaseException:
            self._close_session()
            raise

    def _close_session(self) -> None:
        if self._session is not None:
            with suppress(Exception):  # the other side may be gone
                self._session.close()
            self._session = None

    async def close(self) -> None:
        """End the session."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._close_session()
        if self._fallback:
            await self._fallback.close()


class RequestLimiter:
    """Keeps the requests of all processes within Discord's limits, by discord.py's HTTP trace.

    Requests with the bot's token count for the application; others, such as a webhook's, for this
    host's address. Responses to interactions are not limited.
    """

    def __init__(
        self, reservations: Reservations, sleep: Callable[[float], Any] = asyncio.sleep
    ) -> None:
        self._reservations = reservations
        self._sleep = sleep
        self._host = socket.gethostname()
        self._blocked_until = 0.0
        self._load_s = 0.0
        self.max_concurrency = 1

    @property
    def edit_stretch_s(self) -> float:
        """Seconds by which edits of streamed replies are postponed, because requests wait."""
        return min(self._load_s * EDIT_STRETCH, MAX_EDIT_STRETCH_S)

    def trace(self) -> aiohttp.TraceConfig:
        """Return the trace for `discord.Client(http_trace=…)`."""
        config = aiohttp.TraceConfig()
        config.on_request_start.append(self._on_start)
        config.on_request_end.append(self._on_end)
        return config

    async def identify(self, shard_id: int) -> None:
        """Wait until a shard may identify."""
        bucket = shard_id % self.max_concurrency
        if (wait := await self._reservations.reserve(f"identify {bucket}", IDENTIFIES)) > 0:
            log.info("shard %d identifies in %.1f s", shard_id, wait)
            await self._sleep(wait)

    async def close(self) -> None:
        await self._reservations.close()

    async def _on_start(
        self, session: object, context: object, request: aiohttp.TraceRequestStartParams
    ) -> None:
        if "/interactions/" in request.url.path:
            return
        name = "application" if "Authorization" in request.headers else f"address {self._host}"
        wait = await self._reservations.reserve(name, REQUESTS)
        self._load_s += LOAD_SMOOTHING * (max(wait, 0.0) - self._load_s)
        wait = max(wait, self._blocked_until - time.monotonic())
        if wait > 0:
            await self._sleep(wait)

    async def _on_end(
        self, session: object, context: object, request: aiohttp.TraceRequestEndParams
    ) -> None:
        response = request.response
        is_shared = response.headers.get("X-RateLimit-Scope") == "shared"
        if response.status not in INVALID_STATUSES or (response.status == 429 and is_shared):
            return
        wait = await self._reservations.reserve(f"invalid {self._host}", INVALID_REQUESTS)
        if wait > 0:
            self._blocked_until = time.monotonic() + wait
            log.error(
                "Discord refused too many requests (the last one: %d for %s %s). Further ones wait "
                "%.0f s, because it "
                "bans addresses for 10,000 in ten minutes. Check the bot's permissions and its "
                "token.",
                response.status, request.method, request.url.path, wait,
            )  # fmt: skip


def open_limiter(home: Path, shared_db: str) -> RequestLimiter:
    """Open the budget that this process shares with the others of its application."""
    # Processes on this machine share the file; it stands in for a shared database that fails, too.
    local = Reservations(SqliteDatabase(home / LIMITS_FILE))
    if not shared_db:
        return RequestLimiter(local)
    return RequestLimiter(Reservations(_postgres(shared_db), local))


# -------------------------------------------------------------------------------------------- state


class StateFollower:
    """Takes up what other processes write, in a thread of its own; `on_rows` is called with it in
    the event loop.

    `on_fenced` is called when another process has taken over these shards.
    """

    def __init__(
        self,
        mirror: SharedConnection,
        on_rows: Callable[[Sequence[SharedRow]], None],
        on_fenced: Callable[[], Coroutine[None, None, None]],
    ) -> None:
        self._mirror = mirror
        self._on_rows = on_rows
        self._on_fenced = on_fenced
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shared state", daemon=True)
        self.is_connected = True

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        self._stopped.set()
        await asyncio.to_thread(self._thread.join, HEARTBEAT_S + 1)

    def _run(self) -> None:
        session: Session | None = None
        while not self._stopped.is_set():
            try:
                session = session or self._mirror.log.database.open()
                self._follow(session)
            except Exception as error:  # the driver's
                if self.is_connected:
                    log.error(
                        "The shared database is away; chat goes on with the last state: %s", error
                    )
                self.is_connected = False
                if session is not None:
                    with suppress(Exception):
                        session.close()
                session = None
                self._stopped.wait(1.0)
        if session is not None:
            session.close()

    def _follow(self, session: Session) -> None:
        shared = self._mirror.log
        seen_at = 0.0
        acknowledged = -1
        while not self._stopped.is_set():
            rows = shared.read(session, self._mirror.applied)
            if rows or self._mirror.unnoticed:
                self._deliver(rows)
            applied = self._mirror.applied
            if applied != acknowledged or time.monotonic() - seen_at > HEARTBEAT_S:
                shared.seen(session, applied)
                seen_at = time.monotonic()
                acknowledged = applied
            if shared.is_fenced:
                log.error("Another process serves these shards now; this one ends.")
                asyncio.run_coroutine_threadsafe(self._on_fenced(), self._loop)
                self._stopped.set()
            elif not self.is_connected:
                self.is_connected = True
                log.warning("The shared database is back.")
            session.wait(WAIT_S)

    def _deliver(self, rows: Sequence[SharedRow]) -> None:
        done = threading.Event()

        def take_up() -> None:
            try:
                self._on_rows(self._mirror.take_up(rows))
            except Exception:  # it is tried again
                log.exception("changes of other processes could not be taken up")
            finally:
                done.set()

        self._loop.call_soon_threadsafe(take_up)
        done.wait(HEARTBEAT_S)


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


def shared_database(home: Path, shared_db: str) -> SharedDatabase:
    """Return the database of the state that processes share. Raises `StoreError` where its driver
    is missing.
    """
    if shared_db:
        return _postgres(shared_db)
    return SqliteDatabase(home / STATE_FILE)


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


def _postgres(url: str) -> SharedDatabase:
    try:
        from bot.operations.shards.postgres import (
            PostgresDatabase,  # only with SHARED_DB: its driver is an optional package
        )
    except ModuleNotFoundError as error:
        raise StoreError(
            f"SHARED_DB is set, but the package {error.name} is missing.",
            "Install it: pip install '.[shards]'.",
        ) from error
    return PostgresDatabase(url)
