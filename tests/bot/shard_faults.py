"""`make test-shards`: two bot processes on one sandbox and a real PostgreSQL, killed and suspended
in turn.

Prints fault × tried × lost × doubled × recovery. Model and trainer are fakes; everything else is
real.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psycopg

from bot.demo_guild import MEMBER, SKERROW_SEED
from sandbox import Sandbox
from tests.bot.conftest import QUAY
from tests.fakes import until

ROOT = Path(__file__).parent.parent.parent
GUILDS = [replace(SKERROW_SEED, name=f"Harbour {number}", bot_avatar=None) for number in (2, 3, 4)]
REPLIES = 10
KILLS = 4
CHANGES = 10
TIMEOUT_S = 300.0
CONSENTS = "select count(*) from consents where opted_in = 1"


@dataclass
class Outcome:
    """A row of the table; `recovery_s` is the longest."""

    fault: str
    tried: int = 0
    lost: int = 0
    doubled: int = 0
    recovery_s: float = 0.0


class Postgres:
    """A PostgreSQL server of its own, with Debian's binaries."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("postgres") or max(
            map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")), default=""
        )
        if not found:
            sys.exit("PostgreSQL is missing: apt-get install postgresql-15")
        self.programs = Path(found).parent
        self.folder = folder
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.url = f"postgresql://understudy@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(mode=0o700)
        self._as_owner = []
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(folder, "postgres", "postgres")
            self._as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self._run("initdb", "-U", "understudy", "--auth=trust", "-E", "UTF8")

    def _run(self, program: str, *arguments: str) -> None:
        command = [
            *self._as_owner,
            str(self.programs / program),
            "-D",
            str(self.folder / "data"),
            *arguments,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        command = [*self._as_owner, str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-p",
                   str(self.port), "-k", str(self.folder), "-c", "listen_addresses=127.0.0.1"]  # fmt: skip
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
        for _ in range(600):
            try:
                psycopg.connect(self.url, connect_timeout=1).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.1)
        sys.exit(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-500:]}")

    def stop(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGINT)  # a fast shutdown: connections are ended
        self._process.wait(30)

    def signal_all(self, number: int) -> None:
        """Suspend or continue the server with all of its processes."""
        assert self._process
        group = subprocess.run(
            ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True
        ).stdout.split()
        for pid in (str(self._process.pid), *group):
            os.kill(int(pid), number)


class Process:
    """A bot process with some of the shards."""

    def __init__(
        self, home: Path, sandbox: Sandbox, shards: str, url: str, seconds: str = "0"
    ) -> None:
        self.home = home
        self.shards = shards
        self._command = [sys.executable, "-m", "tests.bot.shard_stage", str(home), sandbox.url, sandbox.token, shards,
                         url, seconds]  # fmt: skip
        self._running: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._running = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=(self.home / "log").open("ab"),
        )
        assert self._running.stdout
        line = await asyncio.wait_for(self._running.stdout.readline(), TIMEOUT_S)
        if line.strip() != b"ready":
            raise RuntimeError((self.home / "log").read_text()[-2000:])

    def signal(self, number: int) -> None:
        assert self._running
        self._running.send_signal(number)

    async def ended(self) -> None:
        assert self._running
        await asyncio.wait_for(self._running.wait(), TIMEOUT_S)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.ended()

    async def stop(self) -> None:
        if self._running and self._running.returncode is None:
            self.signal(signal.SIGTERM)
            await self.ended()

    def read(self, sql: str) -> object:
        """The first value of a query on this process's file."""
        first, _, count = self.shards.replace("/", "-of-").partition("-of-")
        file = self.home / f"shards-{first}-{first}-of-{count}.sqlite"
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as db:
            row = db.execute(sql).fetchone()
            return row and row[0]


@dataclass
class Bench:
    """Both processes, their server and the sandbox; shard 0 is `low`'s."""

    sandbox: Sandbox
    postgres: Postgres
    low: Process
    high: Process
    home: Path

    def guild_of(self, shard: int) -> int:
        return next(one for one in self.sandbox.guild_ids if (one >> 22) % 2 == shard)

    def finished(self, guild_id: int, text: str) -> int:
        """Count the finished replies to a text."""
        said = self.sandbox.messages(QUAY, guild_id)
        return sum(
            f"hears: {text}" in one["content"] and "AI-written" in one["content"] for one in said
        )

    async def say(self, guild_id: int, text: str) -> None:
        await self.sandbox.member(MEMBER, guild_id).say("#" + QUAY, text)

    async def opt_in(self, guild_id: int, name: str = MEMBER) -> str:
        """Press the button of `/privacy opt-in`, a write of the shared state; returns the bot's
        words.
        """
        member = self.sandbox.member(name, guild_id)
        answer = await member.slash(QUAY, "privacy opt-in")
        await until(lambda: answer.message and answer.message["components"], TIMEOUT_S)
        mark = len(self.sandbox.events)
        await member.click(
            answer.message, answer.message["components"][0]["components"][0]["label"]
        )
        await asyncio.sleep(0.5)
        return " ".join(
            d.get("content", "") for k, d in self.sandbox.events[mark:] if k in ("message", "edit")
        )


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    home = folder / "home"
    home.mkdir()
    postgres = Postgres(folder / "postgres")
    postgres.start()
    sandbox = Sandbox(SKERROW_SEED, rate_window=0.01, more_guilds=GUILDS, shards=2)
    await sandbox.start()
    low, high = (Process(home, sandbox, shards, postgres.url, "0.4") for shards in ("0/2", "1/2"))
    try:
        await low.start()
        await high.start()
        yield Bench(sandbox, postgres, low, high, home)
    finally:
        await high.stop()
        await low.stop()
        await sandbox.stop()
        postgres.stop()


async def measured(condition: Callable[[], object]) -> float:
    """Wait for a condition; returns the seconds."""
    began = time.monotonic()
    await until(condition, TIMEOUT_S)
    return time.monotonic() - began


async def shard_killed(at: Bench) -> Outcome:
    """Replies whose placeholder is posted are finished once after a kill, and the other shard goes
    on.
    """
    row = Outcome("shard killed in mid-reply")
    other = at.guild_of(0)
    own = at.guild_of(1)
    for kill in range(KILLS):
        texts = [f"kill {kill}, message {number}" for number in range(REPLIES)]
        for text in texts:
            await at.say(own, text)
        sql = (
            f"select count(*) from messages where text like 'kill {kill}, message%' and persona_id "
            "is null"
        )
        await until(lambda sql=sql: at.high.read(sql) == REPLIES, TIMEOUT_S)
        await at.high.kill()
        await at.say(other, f"beside {kill}")
        await until(lambda kill=kill: at.finished(other, f"beside {kill}"), TIMEOUT_S)
        began = time.monotonic()
        await at.high.start()
        await until(lambda texts=texts: all(at.finished(own, text) for text in texts), TIMEOUT_S)
        row.recovery_s = max(row.recovery_s, time.monotonic() - began)
        await asyncio.sleep(0.5)
        counts = [at.finished(own, text) for text in texts] + [at.finished(other, f"beside {kill}")]
        row.tried, row.lost = row.tried + len(counts), row.lost + counts.count(0)
        row.doubled += sum(max(count - 1, 0) for count in counts)
    return row


async def postgres_away(
    at: Bench, name: str, leave: Callable[[], None], back: Callable[[], None]
) -> Outcome:
    """Chat goes on, changes are refused, and a change is taken up once the server is back."""
    row = Outcome(name)
    guild_id = at.guild_of(1)
    leave()
    for number in range(CHANGES):
        await at.say(guild_id, f"{name} {number}")
    await at.opt_in(guild_id)
    await until(
        lambda: all(at.finished(guild_id, f"{name} {number}") for number in range(CHANGES)),
        TIMEOUT_S,
    )
    counts = [at.finished(guild_id, f"{name} {number}") for number in range(CHANGES)]
    await asyncio.sleep(4)  # longer than a statement may take
    back()
    await asyncio.sleep(
        2
    )  # in which a statement that was refused here could still be carried out there
    sql = (
        "select count(*) from understudy.rows where name = 'consents' and row like '%\"opted_in\": "
        "1%'"
    )
    with psycopg.connect(at.postgres.url) as connection:
        accepted = int(
            (connection.execute(sql).fetchone() or (0,))[0] or at.high.read(CONSENTS) != 0
        )
    began = time.monotonic()
    while at.low.read(CONSENTS) != 1:
        await at.opt_in(guild_id)
        if time.monotonic() - began > TIMEOUT_S:
            raise TimeoutError(name)
    row.recovery_s = time.monotonic() - began
    row.tried, row.lost, row.doubled = (
        CHANGES + 1,
        counts.count(0),
        sum(max(one - 1, 0) for one in counts) + accepted,
    )
    await at.sandbox.member(MEMBER, guild_id).slash(QUAY, "privacy opt-out")
    with psycopg.connect(at.postgres.url) as connection:
        sql = "select row from understudy.rows where name = 'consents'"
        await until(lambda: '"opted_in": 0' in str(connection.execute(sql).fetchone()), TIMEOUT_S)
    return row


async def forgetting_while_down(at: Bench) -> Outcome:
    """A member is forgotten everywhere, although a shard is down when they ask."""
    row = Outcome("forgetting while a shard is down")
    low = at.guild_of(0)
    high = at.guild_of(1)
    for guild_id in (low, high):
        await at.say(guild_id, "my word is xbelkor")
        await until(
            lambda guild_id=guild_id: at.finished(guild_id, "my word is xbelkor"), TIMEOUT_S
        )
    await at.high.kill()
    member = at.sandbox.member(MEMBER, low)
    mark = len(at.sandbox.events)
    answer = await member.slash(QUAY, "privacy forget")
    await until(lambda: answer.message and answer.message["components"], TIMEOUT_S)
    await member.click(answer.message, "Forget me")
    await asyncio.sleep(1)
    print([d.get("content", "")[:150] for _, d in at.sandbox.events[mark:]], file=sys.stderr)
    step = "select step from forgettings order by seq desc limit 1"
    await until(lambda: at.low.read(step) == "erase", TIMEOUT_S)
    began = time.monotonic()
    await at.high.start()
    await until(lambda: at.low.read(step) == "" and at.high.read(step) == "", TIMEOUT_S)
    row.recovery_s = time.monotonic() - began
    row.tried = 2
    await at.low.stop()
    await at.high.stop()
    row.lost = sum(b"xbelkor" in path.read_bytes() for path in at.home.glob("shards-*"))
    with psycopg.connect(at.postgres.url) as connection:
        found = connection.execute(
            "select count(*) from understudy.rows where row like '%xbelkor%'"
        ).fetchone()
        row.doubled = (found or (0,))[0]
    await at.low.start()
    await at.high.start()
    return row


async def suspended_and_replaced(at: Bench, folder: Path) -> Outcome:
    """A suspended process whose shards another host has taken over writes nothing, and ends, when
    it continues.
    """
    row = Outcome("shard suspended, replaced on another host")
    at.high.signal(signal.SIGSTOP)
    with psycopg.connect(at.postgres.url, autocommit=True) as connection:
        # As if it had been on another host, whose processes cannot be looked up, for the time of
        # its lease.
        connection.execute("update understudy.shards set host = 'elsewhere' where shard = 1")
        began = time.monotonic()
        other_home = folder / "other"
        other_home.mkdir()
        replacing = Process(other_home, at.sandbox, "1/2", at.postgres.url)
        while True:
            try:
                await replacing.start()
                break
            except RuntimeError as error:
                if "Stop that one first" not in str(error) or time.monotonic() - began > TIMEOUT_S:
                    raise
                await asyncio.sleep(1)
        row.recovery_s = time.monotonic() - began
        seq = connection.execute("select seq from understudy.head").fetchone()
        at.high.signal(signal.SIGCONT)
        await at.high.ended()
        row.tried, row.doubled = (
            1,
            int(connection.execute("select seq from understudy.head").fetchone() != seq),
        )
    await replacing.stop()
    return row


def show(rows: list[Outcome]) -> None:
    print("| fault | tried | lost | doubled | recovery |\n| --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(
            f"| {row.fault} | {row.tried} | {row.lost} | {row.doubled} | {row.recovery_s:.1f} s |"
        )


async def table(folder: Path) -> list[Outcome]:
    rows = []
    async with bench(folder) as at:
        suspend, resume = (
            partial(at.postgres.signal_all, number) for number in (signal.SIGSTOP, signal.SIGCONT)
        )
        for name, run in {
            "killed": partial(shard_killed, at),
            "stopped": partial(
                postgres_away, at, "PostgreSQL stopped", at.postgres.stop, at.postgres.start
            ),
            "suspended": partial(postgres_away, at, "PostgreSQL suspended", suspend, resume),
            "forgetting": partial(forgetting_while_down, at),
            "replaced": partial(suspended_and_replaced, at, folder),
        }.items():
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            try:
                rows.append(await run())
            except BaseException:
                print((at.home / "log").read_text()[-6000:], file=sys.stderr)
                raise
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="understudy-shards-") as name:
        Path(name).chmod(0o755)  # PostgreSQL's user has to reach its folder
        rows = asyncio.run(table(Path(name)))
    show(rows)
    return int(any(row.lost or row.doubled for row in rows))


if __name__ == "__main__":
    sys.exit(main())
