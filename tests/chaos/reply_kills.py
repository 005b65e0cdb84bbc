"""Kills the bot at every write and request while it replies, also while it recovers, and checks the conversation.

`python -m tests.chaos.reply_kills --kills 300 --seed 1` prints what was tried, lost, doubled and orphaned.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bot.demo_guild import MEMBER, MODERATOR, SKERROW_SEED
from bot.sandbox import Sandbox, SandboxRefusal
from bot.store import HOME_DATABASE, Channel, Store
from bot.store.database import open_read_only
from tests.chaos.bot_process import BotProcesses

CHANNELS = {"weighbridge-quay": "ballast", "the-damp-lantern": "oda"}
HITS_OF_A_ROUND = 120
"""Hits of failpoints in one life, about: start, three replies and a vote."""
QUIET_S = 6.0
UNSETTLED = "select count(*) from replies where state in ('waiting', 'streaming') or end_note is not null"


@dataclass
class Outcome:
    """What a suite found. `killed_at` counts kills by point."""

    tried: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    killed_at: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        counts = (self.tried, len(self.lost), len(self.doubled), len(self.orphans))
        return "tried {} · lost {} · doubled {} · orphans {}".format(*counts)


class ReplyKills:
    """One home and one sandbox, through many lives of the bot."""

    def __init__(self, home: Path, sandbox: Sandbox, processes: BotProcesses, seed: int) -> None:
        self.home, self.sandbox, self._processes = home, sandbox, processes
        self._random = random.Random(seed)
        self.outcome = Outcome()
        self._said = 0
        self._votes: dict[tuple[int, int], bool] = {}

    async def prepare(self) -> None:
        """Create the database, and give the channels their personas."""
        with Store.open(self.home / HOME_DATABASE) as store:
            for name, persona in CHANNELS.items():
                place = self.sandbox.guild_id, int(self.sandbox.channel(name)["id"])
                store.channels.assign(Channel(*place, persona, "everything", 1, time.time()))

    async def kill_once(self) -> None:
        """Start the bot with a plan, talk to it until it is dead, and note where it died."""
        trace = self.home / "trace"
        trace.unlink(missing_ok=True)
        plan = f"kill@{self._random.randint(1, HITS_OF_A_ROUND)}"
        process = self._start(plan, trace)
        talking = asyncio.create_task(self._talk())
        deadline = time.monotonic() + QUIET_S
        while process.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110  a process is waited for
            await asyncio.sleep(0.01)
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
        if process.is_alive():  # the plan's hit never came
            process.kill()
        process.join()
        self.outcome.tried += 1
        points = trace.read_text().splitlines() if trace.exists() else []
        self.outcome.killed_at[points[-1] if process.exitcode == -signal.SIGKILL and points else "outside"] += 1

    async def recover(self) -> None:
        """Run the bot without faults until every reply has ended, stop it, and check what is left."""
        process = self._start()
        try:
            async with asyncio.timeout(30):
                await self._say(self._random.choice(list(CHANNELS)))
                await asyncio.sleep(0.3)
                while process.is_alive() and self._unsettled():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.outcome.lost.append("replies did not end within 30 s")
        process.terminate()
        await asyncio.to_thread(process.join, 20)
        if process.exitcode != 0:
            self.outcome.lost.append(f"the bot ended with exit code {process.exitcode}")
        self.check()

    def _start(self, plan: str = "", trace: Path | None = None) -> BaseProcess:
        return self._processes.start(self.home, self.sandbox.url, self.sandbox.token, plan, trace)

    # ------------------------------------------------------------------------------------------ members

    async def _talk(self) -> None:
        while True:
            name = self._random.choice(list(CHANNELS))
            await self._say(name)
            await asyncio.sleep(self._random.uniform(0.02, 0.2))
            with suppress(SandboxRefusal, TimeoutError, KeyError, LookupError):
                await asyncio.wait_for(self._vote(name), 0.5)

    async def _say(self, channel: str) -> None:
        self._said += 1
        more = " at length" if self._random.random() < 0.3 else ""
        member = self._random.choice((MEMBER, MODERATOR))
        await self.sandbox.member(member).say(channel, f"question {self._said}{more}")

    async def _vote(self, channel: str) -> None:
        ended = [one for one in self.sandbox.messages(channel)[-6:] if "vote+1:" in str(one["components"])]
        if ended:
            await self.sandbox.member(MEMBER).click(self._random.choice(ended), "👍")

    # ------------------------------------------------------------------------------------------ invariants

    def _unsettled(self) -> bool:
        db = open_read_only(self.home / HOME_DATABASE)
        try:
            return bool(
                db.value(
                    int, "select count(*) from replies where state in ('waiting', 'streaming') or end_note is not null"
                )
            )
        finally:
            db.close()

    def check(self) -> None:
        """Compare the database with what members see."""
        db = open_read_only(self.home / HOME_DATABASE)
        try:
            replies = {row["event_id"]: row for row in db.read("select * from replies")}
            owner = {row["message_id"]: row["event_id"] for row in db.read("select * from reply_parts")}
        finally:
            db.close()
        visible: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for channel in CHANNELS:
            for message in self.sandbox.messages(channel):
                is_bots = message.get("webhook_id") or message["author"]["id"] == str(self.sandbox.bot_id)
                if not is_bots:
                    continue
                if event_id := owner.get(int(message["id"])):
                    visible[event_id].append(message)
                else:
                    buttons = [item["custom_id"] for row in message["components"] for item in row["components"]]
                    self.outcome.orphans.append(f"{message['id']}: {message['content'][:60]!r} {buttons[:2]}")
        for event_id, row in replies.items():
            texts = [message["content"] for message in visible[event_id]]
            self._check_reply(event_id, row, texts)

    def _check_reply(self, event_id: int, row: dict[str, Any], texts: list[str]) -> None:
        what = f"reply {event_id} ({row['state']}): {[text[:40] for text in texts]}"
        if row["state"] in ("waiting", "streaming") or not texts or "-# " not in texts[-1]:
            self.outcome.lost.append(what)
        elif row["state"] == "done":
            whole = " ".join(texts)
            if "…" in whole or not ("Aye." in whole or whole.count("word") == 420):
                self.outcome.lost.append(what)
            if whole.count("I hear:") != 1:
                self.outcome.doubled.append(what)


@asynccontextmanager
async def stage(seed: int) -> AsyncIterator[ReplyKills]:
    """A home, a sandbox and the members."""
    home = Path(tempfile.mkdtemp(prefix="understudy-chaos-"))
    sandbox = Sandbox(SKERROW_SEED, None, rate_window=0.0001)
    await sandbox.start()
    try:
        kills = ReplyKills(home, sandbox, BotProcesses(), seed)
        await kills.prepare()
        yield kills
    finally:
        await sandbox.stop()
        shutil.rmtree(home, ignore_errors=True)


async def run(kills: int, seed: int, per_check: int = 5) -> Outcome:
    """Kill the bot so often; every few kills it recovers and is checked."""
    outcome = Outcome()
    while outcome.tried < kills:
        async with stage(seed + outcome.tried) as one:
            for _ in range(min(per_check, kills - outcome.tried)):
                await one.kill_once()
            await one.recover()
            outcome.tried += one.outcome.tried
            outcome.lost += one.outcome.lost
            outcome.doubled += one.outcome.doubled
            outcome.orphans += one.outcome.orphans
            outcome.killed_at += one.outcome.killed_at
            if one.outcome.lost or one.outcome.doubled or one.outcome.orphans:
                print("seed", seed + outcome.tried - one.outcome.tried, one.outcome, flush=True)
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    started = time.monotonic()
    outcome = asyncio.run(run(args.kills, args.seed))
    for kind in ("lost", "doubled", "orphans"):
        for line in getattr(outcome, kind)[:20]:
            print(kind, line)
    print(dict(outcome.killed_at))
    print(outcome, f"· {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
