"""Keeps the requests and identifies of all processes of one application within Discord's limits.

They reserve their time in the shared database. A reservation is one statement (the generic cell
rate algorithm, GCRA), so that nothing is locked while a process waits, and a process that is killed
while it waits only leaves its time unused.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bot.operations.shards.database_choice import postgres_database
from bot.operations.shards.shared_log import Session, SharedDatabase, SqliteDatabase

log = logging.getLogger(__name__)

LIMITS_FILE = "rate_limits.sqlite"
IDENTIFY_INTERVAL_S = 5.0
IDENTIFY_MARGIN_S = 0.2
"""Added to Discord's interval, because the frame is sent some time after its reservation."""
INVALID_STATUSES = (401, 403, 429)
LOAD_SMOOTHING = 0.2
EDIT_STRETCH = 10.0
MAX_EDIT_STRETCH_S = 10.0
RETRY_DELAY_S = 5.0


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
    return RequestLimiter(Reservations(postgres_database(shared_db), local))
