"""Measures the bot's memory over many events and reconnects, against the sandbox and without a
model.

The whole bot runs in a process of its own, with a fake engine and a fake trainer
(`tests/chaos/bot_process.py`). The sandbox's gateway sends it messages of members who talk and who
flood, edits, deletions and typing: text, files, pictures, stickers, polls, voice messages, forwards,
replies, mentions, what speaks of self-harm, and what a proxy posts again. In one of the channels
replies wait for further lines.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import random
import shutil
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from bot.demo_guild import MEMBER, SKERROW_SEED
from bot.guild_settings.definitions import WAIT_S as ANSWERING_WAIT_S
from bot.store import HOME_DATABASE, Channel, Store
from personas.errors import UnderstudyError
from sandbox import Sandbox
from sandbox.object_store import StoredFile
from tests.bot.scripted_recogniser import sound
from tests.chaos import bot_process
from tests.chaos.message_kinds import SELF_HARM
from tests.personas.cards import PIXEL

CHANNELS = {"weighbridge-quay": "ballast", "the-damp-lantern": "oda", "drowned-stage": "thrip"}
WARM_UP_SHARE = 0.5
"""Share of the events in which the memory of the latest messages and files fills up."""
SAMPLES = 200
MEAN_OF_SAMPLES = 20
NEW_SESSION_EVERY = 10
"""Each so many reconnects the session cannot be resumed."""
MAX_QUEUED_FRAMES = 500
CONNECT_TIMEOUT_S = 60.0
SNOWFLAKE_STEP = 1 << 22
KINDS = {"MESSAGE_CREATE": 80, "MESSAGE_UPDATE": 8, "MESSAGE_DELETE": 8, "TYPING_START": 4}
PLAIN_SHARE = 0.6
"""Share of the messages that are text alone."""
PROXIED_SHARE = 0.03
WAIT_S = 0.2
FLOODER_SHARE = 0.5
STRANGER_SHARE = 0.05
MEMBER_IDS = range(10**17, 10**17 + 50)


class ForgetfulEngine(bot_process.ScriptedEngine):
    """A fake engine that keeps no requests."""

    def submit(self, request: Any) -> Any:
        self.requests.clear()
        return super().submit(request)


def serve(home: Path, url: str, token: str) -> None:
    """Run the bot; the main function of its process."""
    bot_process.ScriptedEngine = ForgetfulEngine  # type: ignore[misc]
    bot_process.main(home, url, token, plan="", trace=None)


class EventSource:
    """Events that members of a guild cause; messages are like those that the sandbox sent: `plain`,
    one of each of the `others`, and a proxy's copy.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        plain: dict[str, Any],
        others: Sequence[dict[str, Any]],
        copy: dict[str, Any],
        seed: int,
    ) -> None:
        self._random = random.Random(seed)
        self._message = plain
        self._others = others
        self._copy = copy
        self._guild_id = str(sandbox.guild_id)
        self._channels = [sandbox.channel(name)["id"] for name in CHANNELS]
        first = int(copy["id"]) + SNOWFLAKE_STEP
        self._ids = itertools.count(first, SNOWFLAKE_STEP)
        self._sent: deque[dict[str, Any]] = deque(maxlen=1000)

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        kinds = list(KINDS)
        weights = list(KINDS.values())
        while True:
            (kind,) = self._random.choices(kinds, weights)
            if kind == "MESSAGE_CREATE" or not self._sent:
                if self._random.random() < PROXIED_SHARE:
                    yield from self._proxied()
                else:
                    yield "MESSAGE_CREATE", self._new_message()
                continue
            earlier = self._random.choice(self._sent)
            place = {"channel_id": earlier["channel_id"], "guild_id": self._guild_id}
            if kind == "MESSAGE_UPDATE":
                yield kind, {**earlier, "content": "or rather something else"}
            elif kind == "MESSAGE_DELETE":
                yield kind, {"id": earlier["id"], **place}
            else:
                yield (
                    kind,
                    {"user_id": earlier["author"]["id"], "timestamp": int(time.time()), **place},
                )

    def _new_message(self) -> dict[str, Any]:
        chance = self._random.random()
        number = next(self._ids)
        if chance < FLOODER_SHARE:
            author = MEMBER_IDS[0]
        elif chance < FLOODER_SHARE + STRANGER_SHARE:
            author = number
        else:
            author = self._random.choice(MEMBER_IDS[1:])
        like = self._message
        if self._random.random() > PLAIN_SHARE:
            like = self._random.choice(self._others)
        content = like["content"]
        message = {
            **like,
            "id": str(number),
            "guild_id": self._guild_id,
            "channel_id": self._random.choice(self._channels),
            "author": {**self._message["author"], "id": str(author), "username": f"m{author}"},
            "content": f"{content} {number}" if content else "",
        }
        self._sent.append(message)
        return message

    def _proxied(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield a message, a proxy's copy of it, and its deletion."""
        message = {**self._new_message(), "content": f"W: {next(self._ids)}"}
        self._sent.pop()
        place = {"channel_id": message["channel_id"], "guild_id": self._guild_id}
        yield "MESSAGE_CREATE", message
        copy = {**self._copy, "id": str(next(self._ids)), **place}
        yield "MESSAGE_CREATE", {**copy, "content": message["content"].removeprefix("W: ")}
        yield "MESSAGE_DELETE", {"id": message["id"], **place}


async def sent_by_members(sandbox: Sandbox) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Send a message of each kind; returns text alone, and the others."""
    channel = next(iter(CHANNELS))
    member = sandbox.member(MEMBER)
    plain = await member.say(channel, "What about")
    others = [
        await member.say(channel, "@Understudy what about"),
        await member.say(channel, f"{SELF_HARM},"),
        await member.say(channel, "Oda, Thrip and Ballast: what about"),
        await member.say(channel, "about", reply_to=plain),
        await member.say(channel, "", files=[StoredFile.named("notes.txt", b"Two crabs.")]),
        await member.say(channel, "look at", files=[StoredFile.named("quay.png", PIXEL)]),
        await member.sticker(channel, "Wave"),
        await member.poll(channel, "Tea?", ["yes", "no"]),
        await member.voice_message(channel, sound=sound("say where is the ferry?")),
        await member.forward(channel, plain),
    ]
    return plain, others


class Soak:
    """A sandbox, the bot's process, and its memory."""

    def __init__(self, sandbox: Sandbox, process: BaseProcess, seed: int) -> None:
        self._sandbox = sandbox
        self._process = process
        self._seed = seed
        self._gateway = sandbox._container.gateway
        self.memory: list[int] = []

    async def run(self, events: int, reconnects: int) -> None:
        """Send the events, with the reconnects in between, and sample the memory."""
        await self._connected()
        plain, others = await sent_by_members(self._sandbox)
        copy = self._sandbox.proxy_bot().copy(plain, "Wren")
        source = iter(EventSource(self._sandbox, plain, others, copy, self._seed))
        every = max(1, events // max(1, reconnects))
        for number in range(1, events + 1):
            self._gateway.dispatch(*next(source))
            if number % 50 == 0:
                await self._read()
            if number % max(1, events // SAMPLES) == 0:
                self.memory.append(self._rss())
            if number % every == 0 and number // every <= reconnects:
                await self._reconnect(is_new=number // every % NEW_SESSION_EVERY == 0)

    async def _read(self) -> None:
        """Wait until the bot has read almost all that was sent."""
        await asyncio.sleep(0)
        while any(one._frames.qsize() > MAX_QUEUED_FRAMES for one in self._gateway._connections):
            self._rss()
            await asyncio.sleep(0.005)

    async def _reconnect(self, *, is_new: bool) -> None:
        if is_new:
            for session in self._gateway._sessions.values():
                session._sent.clear()  # nothing can be replayed: the bot has to identify anew
        await self._sandbox.drop_gateway()
        await self._connected()

    async def _connected(self) -> None:
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while not self._gateway.connected:
            self._rss()
            if time.monotonic() > deadline:
                raise UnderstudyError(
                    "The bot does not connect.", "Its log is bot.log in the soak's folder."
                )
            await asyncio.sleep(0.01)

    def _rss(self) -> int:
        if not self._process.is_alive():
            raise UnderstudyError(f"The bot ended with exit code {self._process.exitcode}.")
        return int(psutil.Process(self._process.pid).memory_info().rss)


async def _measure(home: Path, events: int, reconnects: int, seed: int) -> dict[str, Any]:
    sandbox = Sandbox(SKERROW_SEED, None, rate_window=0.0001)
    await sandbox.start()
    with Store.open(home / HOME_DATABASE) as store:
        for name, persona in CHANNELS.items():
            channel = Channel(
                sandbox.guild_id,
                int(sandbox.channel(name)["id"]),
                persona,
                "everything",
                set_by=1,
                set_at=time.time(),
            )
            further = [other for other in CHANNELS.values() if other != persona]
            store.channels.assign(channel, further)
        waiting = int(sandbox.channel(next(reversed(CHANNELS)))["id"])
        ANSWERING_WAIT_S.write(store, WAIT_S, sandbox.guild_id, channel_id=waiting)
    arguments = home, sandbox.url, sandbox.token
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=arguments, daemon=True
    )
    process.start()
    began = time.monotonic()
    try:
        soak = Soak(sandbox, process, seed)
        await soak.run(events, reconnects)
    finally:
        process.terminate()
        await asyncio.to_thread(process.join, 30)
        await sandbox.stop()
    after = soak.memory[int(len(soak.memory) * WARM_UP_SHARE) :]
    before = statistics.mean(after[:MEAN_OF_SAMPLES])
    at_end = statistics.mean(after[-MEAN_OF_SAMPLES:])
    with Store.open(home / HOME_DATABASE) as store:
        unfinished = len(store.replies.unfinished())
    return {
        "memory_growth": at_end / before - 1,
        "soak_events": events,
        "soak_reconnects": reconnects,
        "soak_memory_mib": [
            round(one / 2**20, 1) for one in soak.memory[:: max(1, len(soak.memory) // 20)]
        ],
        "soak_events_per_s": events / (time.monotonic() - began),
        "soak_unfinished_replies": unfinished,
    }


def measure(events: int, reconnects: int, seed: int) -> dict[str, Any]:
    """Return the growth of the bot's resident memory after the first half of the events, and what
    belongs to it.
    """
    home = Path(tempfile.mkdtemp(prefix="understudy-soak-"))
    try:
        figures = asyncio.run(_measure(home, events, reconnects, seed))
    except UnderstudyError as error:
        raise UnderstudyError(error.message, f"The bot's log is {home}/bot.log.") from error
    shutil.rmtree(home, ignore_errors=True)
    return figures
