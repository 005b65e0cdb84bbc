"""How the bot, its processes and its machine stand at one moment."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import psutil

from bot.doctor import here
from bot.doctor.check import Check
from bot.house import House
from bot.store import JobState
from bot.watch import Percentiles, Warned
from bot.web.words import without_places
from personas.engine.state import EngineState

PACKAGES = ("understudy", "torch", "transformers", "peft", "discord.py", "aiohttp")
JOB_STATES: tuple[str, ...] = get_args(JobState)
FAR_S = 2.0
"""A heartbeat that takes so long means a connection that stutters."""


@dataclass(frozen=True)
class Process:
    """A process of the bot. `what` is "bot", or what it was started as; `memory_bytes` is resident memory."""

    what: str
    pid: int
    memory_bytes: int
    cpu_s: float
    threads: int
    started_at: float


@dataclass(frozen=True)
class Machine:
    """What is on the machine and on the disk of the bot's home, in bytes; the graphics card's None without one."""

    memory_bytes: int
    available_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    gpu_bytes: int | None
    gpu_free_bytes: int | None


@dataclass(frozen=True)
class Connection:
    """The connection to Discord, or to the guild on this machine. `heartbeat_s` is None before the first."""

    to: str
    is_ready: bool
    servers: int
    heartbeat_s: float | None


@dataclass(frozen=True)
class State:
    """All of it, at `at`; times in seconds since 1970. `jobs` are counted by state."""

    at: float
    started_at: float
    versions: dict[str, str]
    processes: tuple[Process, ...]
    machine: Machine
    connection: Connection | None
    jobs: dict[str, int]
    engine: EngineState
    first_text: Percentiles
    whole_reply: Percentiles
    warnings: tuple[Warned, ...]
    health: tuple[Check, ...]


async def state_of(house: House) -> State:
    """The state now. What is read from disk and from the kernel is read in a thread."""
    watch, engine = house.watch, house.answerer.engine.state()
    processes, machine, disk = await asyncio.to_thread(_of_the_system, house.home, engine.device == "cuda")
    connection = _connection(house)
    return State(
        at=time.time(),
        started_at=watch.started_at,
        versions=versions(),
        processes=processes,
        machine=machine,
        connection=connection,
        jobs=dict.fromkeys(JOB_STATES, 0) | {str(name): count for name, count in house.store.jobs.counts().items()},
        engine=engine,
        first_text=watch.first_text,
        whole_reply=watch.whole_reply,
        warnings=tuple(_without_places(one, house.home) for one in reversed(list(watch.warnings.lines))),
        health=(_replies(engine), *_connected(connection), disk),
    )


@functools.cache
def versions() -> dict[str, str]:
    """The versions of Python and of what matters most."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a folder that was not installed
            continue
    return found


def _of_the_system(home: Path, has_gpu: bool) -> tuple[tuple[Process, ...], Machine, Check]:
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(home)
    gpu = _gpu() if has_gpu else (None, None)
    machine = Machine(int(memory.total), int(memory.available), disk.total, disk.free, *gpu)
    return tuple(_processes()), machine, here.disk(home)


def _processes() -> Iterator[Process]:
    own = psutil.Process()
    yield _process(own, "bot")
    for child in own.children(recursive=True):
        try:
            if what := _named(child.cmdline()):
                yield _process(child, what)
        except psutil.Error:  # it has just ended
            continue


def _process(of: psutil.Process, what: str) -> Process:
    with of.oneshot():
        times = of.cpu_times()
        return Process(
            what, of.pid, of.memory_info().rss, times.user + times.system, of.num_threads(), of.create_time()
        )


def _named(command: list[str]) -> str:
    """What a child process is: "trainer run 3f9a2c41d0"; empty for one that is nothing of the bot's."""
    if "-m" not in command[1:3]:
        return ""
    module, *words = command[command.index("-m") + 1 :]
    named = [Path(word).name for word in words[:2] if not word.startswith("-")]
    return " ".join([module, *named])


def _gpu() -> tuple[int | None, int | None]:
    from personas.base_model import load_torch

    torch = load_torch()
    if not torch.cuda.is_available():
        return None, None
    free, total = torch.cuda.mem_get_info()
    return int(total), int(free)


def _connection(house: House) -> Connection | None:
    client = house.client
    if client is None:
        return None
    to = "the guild on this machine" if house.keeping.in_sandbox else "Discord"
    beat = client.latency
    return Connection(to, client.is_ready(), len(client.guilds), beat if 0 <= beat < float("inf") else None)


def _replies(engine: EngineState) -> Check:
    words = f"{engine.running} of {engine.rows} at once, {engine.waiting} waiting"
    if engine.waiting >= engine.rows:
        return Check("replies", "warn", words, "a faster machine or a smaller BASE_MODEL answers more at once")
    return Check("replies", "ok", words)


def _connected(connection: Connection | None) -> Iterator[Check]:
    if connection is None:
        return
    if not connection.is_ready:
        yield Check("connection", "fail", f"not connected to {connection.to}", "it tries again by itself; see the log")
    elif connection.heartbeat_s and connection.heartbeat_s > FAR_S:
        yield Check("connection", "warn", f"{connection.to} answers after {connection.heartbeat_s:.1f} s",
                    "check the network")  # fmt: skip
    else:
        yield Check("connection", "ok", f"connected to {connection.to}")


def _without_places(one: Warned, home: Path) -> Warned:
    return Warned(one.at, one.level, one.logger, without_places(one.words, home))
