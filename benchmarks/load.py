"""`python -m benchmarks.load`: measures replies under overload, with members and servers who flood.

50 members talk to six personas in the 12 channels of three servers. All of it is the bot's: store,
prompts, engine with the bundled model, streaming, and the trainer beside it. Only Discord is
replaced, by channels that keep messages in memory: the sandbox would spend the machine's cores on
its HTTP server. The rates follow from the machine: a closed loop finds how many replies it makes,
and the overload offers half as many again. A soak (`benchmarks.soak`) comes first.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import os
import platform
import random
import shutil
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from benchmarks import soak
from benchmarks.chat_latency import (
    PERSONAS,
    benchmark_guild,
    first_progress,
    install_adapters,
    member_messages,
    training_progress,
    write_cards,
)
from bot.app import App, open_app
from bot.chat.message_reader import IncomingMessage
from bot.demo_guild import MODERATOR
from bot.safety.actions import SelfHarmError
from bot.settings import Settings, load_settings
from bot.store import StoredReply
from personas.engine import Engine, ReplyStream
from personas.errors import EngineBusyError, UnderstudyError
from personas.home.job_attempt import find_trainer
from personas.home.job_material import ShippedData
from personas.prompt.renderer import RECENT_BLOCK_MESSAGES, RECENT_MESSAGES
from personas.schemas.chat import ChatReply, ChatRequest, Persona

HOME_FOLDER = Path("build/bench/load-home")
RESULT_FILE = Path("build/bench/load.json")
PERSONA_COUNT = 6
OVERLOAD = 1.5
IN_FLIGHT = 32
"""Replies at a time while the machine's capacity is measured."""
MIN_CAPACITY_S = 15.0
"""The time that this takes at least."""
FULL_TALK_REPLIES = (RECENT_MESSAGES + RECENT_BLOCK_MESSAGES) // 2
"""Replies after which a channel's talk fills a prompt's window, half of whose messages are
replies.
"""
SHORT_SOAK = (60_000, 60)
LONG_SOAK = (1_000_000, 1_000)
"""Events and reconnects."""
CAPACITY_SHARE = 0.07
"""Share of the duration of the measurement of capacity."""
WINDOW_SHARE = 0.116
"""Share of the duration of each of eight windows, which are equally long.

Order of arrival and the load beside a training have two windows each: a queue that grows for twice
as long has other percentiles. Fair order has three, before, between and after those, and each pair
is compared with the two around it: the machine gets slower in ten minutes, by a tenth without any
training, and that should not count against what is last.
"""
BARS = {
    "lost": ("<=", 0.0),
    "light_ttft_p50_s": ("<=", 0.9),
    "light_ttft_p95_s": ("<=", 9.0),
    "throughput_vs_fcfs": (">=", 0.99),
    "quiet_guild_p95_ratio": ("<=", 1.5),
    "training_p95_ratio": ("<=", 1.2),
    "memory_growth": ("<=", 0.02),
}
Outcome = Literal["done", "refused", "helped", "lost"]
"""`helped`: a message that speaks of self-harm was given the fixed text."""
FLOOD_KINDS = (*["text"] * 8, "parts", "two personas", "quick lines", "self-harm")
"""What those who flood send."""
PARTS = "[a sticker: Wave]\n[a poll: Tea? (yes / no)]\n[a file: notes.txt, 20 B]"
SELF_HARM = "I want to kill myself"
LINES = 3
LINE_WAIT_S = 0.1
POLL_S = 0.05


@dataclass(frozen=True)
class Group:
    """Members of one server who ask at a rate, relative to the machine's capacity."""

    name: str
    guild_id: int
    members: int
    channels: int
    rate: float


GROUPS = (
    Group("light", guild_id=1, members=24, channels=6, rate=0.25),
    Group("flooding member", guild_id=1, members=1, channels=6, rate=0.5),
    Group("flooding server", guild_id=2, members=20, channels=4, rate=0.65),
    Group("quiet server", guild_id=3, members=5, channels=2, rate=0.1),
)
LIGHT = ("light", "quiet server")
"""Groups that ask for less than their share."""


class MemoryChannel:
    """A channel that keeps its messages in memory; `ReplyService` speaks in it as the bot."""

    ids = itertools.count(10**17)

    def __init__(self, guild_id: int) -> None:
        self.id = next(self.ids)
        self.guild = SimpleNamespace(id=guild_id)
        self.texts: dict[int, str] = {}

    async def send(self, content: str, **_: Any) -> Any:
        message_id = next(self.ids)
        self.texts[message_id] = content
        return SimpleNamespace(id=message_id)

    async def typing(self) -> None:
        return

    def get_partial_message(self, message_id: int) -> Any:
        async def edit(content: str, **_: Any) -> None:
            self.texts[message_id] = content

        return SimpleNamespace(edit=edit)


@dataclass
class Talk:
    """One message and its reply, in seconds of the monotonic clock."""

    group: str
    asked_at: float
    first_at: float | None = None
    ended_at: float = 0.0
    outcome: Outcome = "lost"


CURRENT_TALK: ContextVar[Talk] = ContextVar("CURRENT_TALK")


class TimedStream:
    """A reply stream that notes when its first text comes, and counts its pieces."""

    def __init__(self, stream: ReplyStream, talk: Talk, pieces: list[int]) -> None:
        self._stream = stream
        self._talk = talk
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[str]:
        async for piece in self._stream:
            self._talk.first_at = self._talk.first_at or time.monotonic()
            self._pieces[0] += 1
            yield piece

    @property
    def reply(self) -> ChatReply:
        return self._stream.reply

    def cancel(self) -> None:
        self._stream.cancel()


class TimedEngine:
    """The engine, with times for each reply. Without fairness all requests are one member's: the
    oldest is next.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.is_fair = True
        self.pieces = [0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def submit(self, request: ChatRequest) -> TimedStream:
        if not self.is_fair:
            request = replace(request, guild_id=0, member_id=0)
        return TimedStream(self._engine.submit(request), CURRENT_TALK.get(), self.pieces)


@dataclass
class Phase:
    """The talks of one phase, and the pieces of text per second while members asked."""

    talks: list[Talk] = field(default_factory=list)
    pieces_per_s: float = 0.0

    @classmethod
    def joined(cls, windows: Sequence[Phase]) -> Phase:
        """Join windows of the same length."""
        talks = itertools.chain.from_iterable(window.talks for window in windows)
        return cls(list(talks), statistics.mean(window.pieces_per_s for window in windows))

    def of(self, names: Iterable[str], outcome: Outcome | None = None) -> list[Talk]:
        return [
            talk for talk in self.talks if talk.group in names and outcome in (None, talk.outcome)
        ]

    def ttft(self, names: Iterable[str]) -> list[float]:
        return [talk.first_at - talk.asked_at for talk in self.of(names, "done") if talk.first_at]

    def whole(self, names: Iterable[str]) -> list[float]:
        return [talk.ended_at - talk.asked_at for talk in self.of(names, "done")]


class Load:
    """Members who talk to a running bot."""

    def __init__(self, app: App, seed: int) -> None:
        self._services = app.services
        self._seed = seed
        self._service = app.services.reply_service
        self.engine = TimedEngine(app.services.engine)
        self._service.engine = self.engine
        self._personas = [app.services.personas.of(0)[name] for name in PERSONAS[:PERSONA_COUNT]]
        self._channels: dict[int, list[MemoryChannel]] = {}
        self._members = {}
        first = 1
        for group in GROUPS:
            if group.guild_id not in self._channels:  # groups of a guild share its channels
                channels = [MemoryChannel(group.guild_id) for _ in range(group.channels)]
                self._channels[group.guild_id] = channels
            self._members[group.name] = range(first, first + group.members)
            first += group.members
        self._all_channels = list(itertools.chain(*self._channels.values()))
        self._messages = member_messages()

    async def ask(self, group: Group, generator: random.Random) -> Talk:
        """Send one message, and wait for the end of its reply."""
        talk = Talk(group.name, time.monotonic())
        CURRENT_TALK.set(talk)
        channel: Any = generator.choice(self._channels[group.guild_id])
        kind = generator.choice(FLOOD_KINDS) if group.name.startswith("flooding") else "text"
        at = self._all_channels.index(channel)
        personas = [self._personas[at % len(self._personas)]]
        if kind == "two personas":
            personas.append(self._personas[(at + 1) % len(self._personas)])
        member = generator.choice(self._members[group.name])
        messages = []
        for _ in range(LINES if kind == "quick lines" else 1):
            text = generator.choice(self._messages)
            text = {"parts": f"{text}\n{PARTS}", "self-harm": SELF_HARM}.get(kind, text)
            message_id = next(MemoryChannel.ids)
            messages.append(IncomingMessage(message_id, member, f"Member {member}", text))
        try:
            await self._answer(messages, personas, channel)
        except EngineBusyError:
            talk.outcome = "refused"
        except SelfHarmError:
            talk.outcome = "helped"
        talk.ended_at = time.monotonic()
        if all(self._is_answered(message, personas, channel) for message in messages):
            talk.outcome = "done"
        return talk

    async def _answer(
        self, messages: Sequence[IncomingMessage], personas: Sequence[Persona], channel: Any
    ) -> None:
        """Have one message answered, or lines together; those may join lines said before."""
        service = self._service
        accept = service.accept
        if len(messages) > 1:
            accept = partial(service.accept_line, wait_s=LINE_WAIT_S)
        rounds = []
        refusal: EngineBusyError | None = None
        for message in messages:
            try:
                one = await service.events.store(partial(accept, message, personas, channel))
            except EngineBusyError as error:  # the lines before it are answered all the same
                refusal = error
                break
            rounds.append(one)
        for one in filter(None, rounds):
            await one.answer()
        if refusal:
            raise refusal
        while any(reply.is_unfinished for reply in self._replies(messages[-1])):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        if not any(rounds) and not self._replies(messages[-1]):
            raise EngineBusyError("The reply that these lines have joined was refused.", "", 0.0)

    def _replies(self, message: IncomingMessage) -> list[StoredReply]:
        return self._services.store.replies.of_asked(message.event_id)

    def _is_answered(
        self, message: IncomingMessage, personas: Sequence[Persona], channel: MemoryChannel
    ) -> bool:
        """Report whether each persona that was asked has replied, and members see all of it."""
        replies = self._replies(message)
        for reply in replies:
            shown = channel.texts.get(reply.parts[-1], "") if reply.parts else ""
            if reply.state != "done" or "-# AI-written" not in shown:
                return False
        answered = sorted(reply.persona_id for reply in replies)
        return answered == sorted(persona.id for persona in personas)

    async def capacity(self, seconds: float) -> float:
        """Return how many replies the machine makes in a second when so many are asked for at once.

        Counted are pieces of text once each channel has filled a prompt's window: short talks are
        quickly computed, and replies that begin together end together.
        """
        generator = random.Random(self._seed)
        talks = list[Talk]()
        is_filled = asyncio.Event()
        is_over = asyncio.Event()

        async def keep_asking() -> None:
            while not is_over.is_set():
                talks.append(await self.ask(generator.choice(GROUPS), generator))
                if min(len(channel.texts) for channel in self._all_channels) >= FULL_TALK_REPLIES:
                    is_filled.set()

        self.engine.is_fair = False
        asking = asyncio.gather(*(keep_asking() for _ in range(IN_FLIGHT)))
        await is_filled.wait()
        mark = self.engine.pieces[0]
        await asyncio.sleep(seconds)
        per_s = (self.engine.pieces[0] - mark) / seconds
        is_over.set()
        await asking
        done = sum(talk.outcome == "done" for talk in talks)
        return per_s * done / self.engine.pieces[0]

    async def play(
        self, groups: Sequence[Group], seconds: float, capacity: float, *, is_fair: bool = True
    ) -> Phase:
        """Have groups ask at random times, and wait until all replies have ended."""
        self.engine.is_fair = is_fair
        phase = Phase()
        tasks = []
        began = time.monotonic()
        pieces = self.engine.pieces[0]
        for at, group, generator in _arrivals(groups, seconds, capacity, self._seed):
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            tasks.append(asyncio.create_task(self.ask(group, generator)))
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
        phase.pieces_per_s = (self.engine.pieces[0] - pieces) / (time.monotonic() - began)
        phase.talks = list(await asyncio.gather(*tasks))
        return phase


def _arrivals(
    groups: Sequence[Group], seconds: float, capacity: float, seed: int
) -> list[tuple[float, Group, random.Random]]:
    """Draw Poisson arrivals; a group's are the same whoever else asks."""
    arrivals = []
    for group in groups:
        generator = random.Random(f"{seed} {group.name}")
        at = 0.0
        while (at := at + generator.expovariate(group.rate * capacity)) < seconds:
            arrivals.append((at, group, generator))
    return sorted(arrivals, key=lambda arrival: arrival[0])


async def measure(app: App, minutes: float, seed: int) -> dict[str, Any]:
    """Play all phases; returns the figures."""
    assert app.sandbox is not None  # the settings have no token
    install_adapters(app)
    load = Load(app, seed)
    window = WINDOW_SHARE * minutes * 60
    quiet = [group for group in GROUPS if group.name == "quiet server"]
    capacity = await load.capacity(max(CAPACITY_SHARE * minutes * 60, MIN_CAPACITY_S))
    print(f"{capacity:.2f} replies a second; asked for: {capacity * OVERLOAD:.2f}", flush=True)
    alone = await load.play(quiet, window, capacity)
    fair = [await load.play(GROUPS, window, capacity)]
    arrival = [await load.play(GROUPS, window, capacity, is_fair=False) for _ in range(2)]
    fair.append(await load.play(GROUPS, window, capacity))
    await app.sandbox.member(MODERATOR).slash(PERSONAS[0], "finetune start", persona=PERSONAS[0])
    first = await first_progress(app)
    beside = [await load.play(GROUPS, window, capacity) for _ in range(2)]
    with suppress(UnderstudyError):  # it has ended
        print(
            f"the training made {(training_progress(app) or first).step - first.step} steps",
            flush=True,
        )
    await app.sandbox.member(MODERATOR).slash(PERSONAS[0], "finetune cancel")
    while any(find_trainer(folder) for folder in (app.services.home / "jobs").glob("*/")):  # noqa: ASYNC110  a process
        await asyncio.sleep(0.2)
    fair.append(await load.play(GROUPS, window, capacity))
    played = {
        "overload": fair[:2],
        "order of arrival": arrival,
        "with training": beside,
        "around it": fair[1:],
    }
    phases = {"alone": alone}
    for name, windows in played.items():
        phases[name] = Phase.joined(windows)
    return {"minutes": minutes, "seed": seed, "capacity_per_s": capacity, **summarise(phases)}


def summarise(phases: dict[str, Phase]) -> dict[str, Any]:
    """Return the figures that the bars are about, and a table's row for each phase and group."""
    alone, fair, arrival, beside, around = phases.values()
    compared = [
        (alone, ["quiet server"]),
        (fair, ["quiet server"]),
        (beside, LIGHT),
        (around, LIGHT),
    ]
    if any(len(phase.ttft(names)) < 2 for phase, names in compared):
        raise UnderstudyError("Too few members were answered.", "Measure longer: --minutes.")
    rows = []
    for name, phase in phases.items():
        for group in GROUPS:
            if phase.of([group.name]):
                rows.append(_row(name, phase, group.name))
    names = [group.name for group in GROUPS]
    lost = sum(len(phase.of(names, "lost")) for phase in phases.values())
    quiet = ["quiet server"]
    return {
        "lost": lost,
        "light_ttft_p50_s": statistics.median(fair.ttft(LIGHT)),
        "light_ttft_p95_s": p95(fair.ttft(LIGHT)),
        "throughput_vs_fcfs": fair.pieces_per_s / arrival.pieces_per_s,
        "quiet_guild_p95_ratio": p95(fair.ttft(quiet)) / p95(alone.ttft(quiet)),
        "quiet_guild_whole_p95_ratio": p95(fair.whole(quiet)) / p95(alone.whole(quiet)),
        "training_p95_ratio": p95(beside.whole(LIGHT)) / p95(around.whole(LIGHT)),
        "training_ttft_p95_ratio": p95(beside.ttft(LIGHT)) / p95(around.ttft(LIGHT)),
        "pieces_per_s": {name: phase.pieces_per_s for name, phase in phases.items()},
        "rows": rows,
    }


def _row(name: str, phase: Phase, group: str) -> dict[str, Any]:
    asked = phase.of([group])
    first = phase.ttft([group])
    whole = phase.whole([group])
    row: dict[str, Any] = {"phase": name, "group": group, "asked": len(asked)}
    for outcome in ("done", "refused", "lost"):
        row[outcome] = sum(talk.outcome == outcome for talk in asked)
    if len(first) > 1:
        row |= {
            "ttft_p50_s": statistics.median(first),
            "ttft_p95_s": p95(first),
            "whole_p95_s": p95(whole),
        }
    return row


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile of two values or more."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def _cell(row: dict[str, Any], column: str) -> str:
    value = row.get(column, "–")
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    return f"{text:>11}"


def print_table(figures: dict[str, Any]) -> None:
    """Print the rows, then each figure with its bar."""
    columns = ("asked", "done", "refused", "lost", "ttft_p50_s", "ttft_p95_s", "whole_p95_s")
    if rows := figures.get("rows"):
        print(f"{'':17}{'':17}" + "".join(f"{column.removesuffix('_s'):>11}" for column in columns))
        for row in rows:
            cells = "".join(_cell(row, column) for column in columns)
            print(f"{row['phase']:17}{row['group']:17}{cells}")
    for name, (relation, bar) in BARS.items():
        if name in figures:
            value = figures[name]
            is_met = value <= bar if relation == "<=" else value >= bar
            print(f"{name:24}{value:9.3f}  {relation} {bar:g}  {'met' if is_met else 'NOT MET'}")


async def _run(
    settings: Settings, shipped: ShippedData, minutes: float, seed: int
) -> dict[str, Any]:
    async with open_app(settings, shipped, benchmark_guild()) as app:
        return await measure(app, minutes, seed)


def measure_load(minutes: float, seed: int) -> dict[str, Any]:
    """Set up a home, and measure in it."""
    shutil.rmtree(HOME_FOLDER, ignore_errors=True)
    settings = load_settings(
        None,
        {
            "UNDERSTUDY_HOME": str(HOME_FOLDER.absolute()),
            "WEB_PORT": "0",
            "OWN_WORDS": "false",  # the engine is measured
        },
    )
    write_cards(settings.home / "cards")
    # Without the shipped versions: the base model answers, as in earlier measurements.
    shipped = replace(ShippedData.from_source_tree(), cards=settings.home / "cards", adapters=None)
    return asyncio.run(_run(settings, shipped, minutes, seed))


def main() -> int:
    """Measure, print, and write or update the file."""
    parser = argparse.ArgumentParser("python -m benchmarks.load", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="duration of the load (default: 10)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--soak", action="store_true", help="only send events to a bot without a model, a million"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    try:
        figures = soak.measure(*(LONG_SOAK if arguments.soak else SHORT_SOAK), arguments.seed)
        if not arguments.soak:
            figures |= measure_load(arguments.minutes, arguments.seed)
    except UnderstudyError as error:
        print(f"The benchmark broke off. {error}", file=sys.stderr)
        return 1
    print_table(figures)
    earlier = {}
    if arguments.soak and RESULT_FILE.exists():  # the figures of the load stay
        earlier = json.loads(RESULT_FILE.read_text())
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    RESULT_FILE.parent.mkdir(parents=True, exist_ok=True)
    RESULT_FILE.write_text(json.dumps({**earlier, **figures, "machine": machine}, indent=2) + "\n")
    print(f"written to {RESULT_FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
