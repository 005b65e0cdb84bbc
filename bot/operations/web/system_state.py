"""State of the bot, its processes and its machine at one moment."""

import asyncio
import functools
import importlib.metadata
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import psutil
from aiohttp import web

from bot.operations.doctor import local_checks
from bot.operations.doctor.checks import BotCheck
from bot.operations.doctor.connection_checks import PermissionReport
from bot.operations.metrics import LoggedWarning, Percentiles
from bot.platform.errors import redact_paths
from bot.services import Bot, Services
from bot.store import JobState, Store, StoreError
from bot.versions.effects import REFUSED_VERDICTS, latest_results, result_text
from personas.engine import EngineState
from personas.models.loading import load_torch
from personas.schemas.effect_probe import EffectResult

REPORTED_PACKAGES = ("understudy", "torch", "transformers", "peft", "discord.py", "aiohttp")
JOB_STATES: tuple[str, ...] = get_args(JobState)
SLOW_HEARTBEAT_S = 2.0
"""A slower heartbeat means an unstable connection."""
MAX_DISCONNECTED_S = 60.0
"""Time without a session after which the bot does not count as connected; reconnecting mostly takes
seconds.
"""
REPLIES_CHECK = "replies"
CONNECTION_CHECK = "connection"
WRITE_PROBE_BYTES = 2**16
WRITE_PROBE_INTERVAL_S = 5.0


PERMISSION_REPORT = web.AppKey("permission report", PermissionReport)


class WriteProbe:
    """Writes a file and a row as a trial, once in some seconds however often it is asked, one trial
    at a time.
    """

    def __init__(self) -> None:
        self._begun = 0.0
        self._trial: asyncio.Future[str] | None = None

    async def error(self, folder: Path, store: Store) -> str:
        """Return why nothing can be written into a folder or a database; empty if something can."""
        now = time.monotonic()
        if self._trial is None or (
            self._trial.done() and now > self._begun + WRITE_PROBE_INTERVAL_S
        ):
            self._begun = now
            self._trial = asyncio.ensure_future(_write_both(folder, store))
        return await asyncio.shield(self._trial)


async def _write_both(folder: Path, store: Store) -> str:
    if why := await asyncio.to_thread(_write_error, folder):
        return why
    try:
        store.check_writable(time.time())  # over the one connection that may write
    except StoreError as error:
        return redact_paths(error.message, folder).removesuffix(".")
    return ""


def _write_error(folder: Path) -> str:
    try:
        # A file without a name: a killed process leaves nothing behind.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(WRITE_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


@dataclass(frozen=True)
class ProcessStats:
    """A process of the bot. `what` is "bot", or what it was started as; `memory_bytes` is resident
    memory.
    """

    what: str
    pid: int
    memory_bytes: int
    cpu_s: float
    threads: int
    started_at: float


@dataclass(frozen=True)
class HostResources:
    """Memory of the machine and space on the home's disk, in bytes; GPU figures are None without a
    GPU.
    """

    memory_bytes: int
    available_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    gpu_bytes: int | None
    gpu_free_bytes: int | None


@dataclass(frozen=True)
class DiscordConnection:
    """The connection to Discord, or to the guild on this machine. `heartbeat_s` is None before the
    first.
    """

    to: str
    is_ready: bool
    servers: int
    heartbeat_s: float | None


@dataclass(frozen=True)
class SystemState:
    """All of it, at `at`; times in seconds since 1970. `jobs` are counted by state,
    `safety_answers` (messages that were answered with helplines) by language. The beginning of a
    reply is chosen among `reply_candidates`, 1 for none, unless a guild has another number.
    """

    at: float
    started_at: float
    versions: dict[str, str]
    processes: tuple[ProcessStats, ...]
    machine: HostResources
    connection: DiscordConnection | None
    jobs: dict[str, int]
    safety_answers: dict[str, int]
    engine: EngineState
    reply_candidates: int
    first_text: Percentiles
    whole_reply: Percentiles
    warnings: tuple[LoggedWarning, ...]
    health: tuple[BotCheck, ...]


async def read_system_state(services: Services) -> SystemState:
    """Read the current state; disk and kernel figures are read in a thread."""
    watch = services.metrics
    engine = services.engine.state()
    processes, machine, disk = await asyncio.to_thread(
        _host_stats, services.home, engine.device == "cuda"
    )
    results = await asyncio.to_thread(latest_results, services.home)
    connection = _discord_connection(services)
    jobs = dict.fromkeys(JOB_STATES, 0)
    for state, count in services.store.jobs.counts().items():
        jobs[str(state)] = count
    warnings = []
    for line in reversed(list(watch.warnings.lines)):
        warnings.append(replace(line, words=redact_paths(line.words, services.home)))
    return SystemState(
        at=time.time(),
        started_at=watch.started_at,
        versions=package_versions(),
        processes=processes,
        machine=machine,
        connection=connection,
        jobs=jobs,
        safety_answers=services.store.safety_answers.by_language(),
        engine=engine,
        reply_candidates=min(engine.candidates, services.reply_candidates.default),
        first_text=watch.first_text,
        whole_reply=watch.whole_reply,
        warnings=tuple(warnings),
        health=(
            _check_replies(engine),
            *_check_connection(connection),
            *_check_background(services),
            *_check_effects(services, results),
            disk,
        ),
    )


@functools.cache
def package_versions() -> dict[str, str]:
    versions = {"Python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a folder that was not installed
            continue
    return versions


def _host_stats(
    home: Path, has_gpu: bool
) -> tuple[tuple[ProcessStats, ...], HostResources, BotCheck]:
    memory = psutil.virtual_memory()
    disk = shutil.disk_usage(home)
    gpu_bytes, gpu_free_bytes = _gpu_memory() if has_gpu else (None, None)
    machine = HostResources(
        memory_bytes=int(memory.total),
        available_bytes=int(memory.available),
        disk_bytes=disk.total,
        disk_free_bytes=disk.free,
        gpu_bytes=gpu_bytes,
        gpu_free_bytes=gpu_free_bytes,
    )
    return tuple(_list_processes()), machine, local_checks.check_disk(home)


def _list_processes() -> Iterator[ProcessStats]:
    own = psutil.Process()
    yield _process_stats(own, "bot")
    for child in own.children(recursive=True):
        try:
            if what := _process_name(child.cmdline()):
                yield _process_stats(child, what)
        except psutil.Error:  # it has just ended
            continue


def _process_stats(process: psutil.Process, what: str) -> ProcessStats:
    with process.oneshot():
        times = process.cpu_times()
        return ProcessStats(
            what=what,
            pid=process.pid,
            memory_bytes=process.memory_info().rss,
            cpu_s=times.user + times.system,
            threads=process.num_threads(),
            started_at=process.create_time(),
        )


def _process_name(command: list[str]) -> str:
    """Name of a child process such as "trainer run 3f9a2c41d0"; empty if it is not one of the
    bot's.
    """
    if "-m" not in command[1:3]:
        return ""
    module, *words = command[command.index("-m") + 1 :]
    named = [Path(word).name for word in words[:2] if not word.startswith("-")]
    return " ".join([module, *named])


def _gpu_memory() -> tuple[int | None, int | None]:
    torch = load_torch()
    if not torch.cuda.is_available():
        return None, None
    free, total = torch.cuda.mem_get_info()
    return int(total), int(free)


def _discord_connection(services: Services) -> DiscordConnection | None:
    client = services.client
    if client is None:
        return None
    has_heartbeat = 0 <= client.latency < float("inf")
    return DiscordConnection(
        to="the guild on this machine" if services.privacy.in_sandbox else "Discord",
        is_ready=client.is_ready() and disconnected_s(services) < MAX_DISCONNECTED_S,
        servers=len(client.guilds),
        heartbeat_s=client.latency if has_heartbeat else None,
    )


def disconnected_s(services: Services) -> float:
    """Return the seconds since which the connection is lost; 0 while there is one."""
    if isinstance(services.client, Bot):
        return services.client.disconnected_s
    return 0.0


def _check_background(services: Services) -> Iterator[BotCheck]:
    for task in services.background:
        if task.error:
            error = task.error.removesuffix(task.advice).rstrip()
            found = f"failed, to be tried again: {redact_paths(error, services.home)}"
            remedy = redact_paths(task.advice, services.home)
            if not remedy:
                remedy = "see the log; mostly the disk is full"
            yield BotCheck(task.name, "warn", found, remedy)


def _check_effects(services: Services, results: Iterable[EffectResult]) -> Iterator[BotCheck]:
    """Report the versions that an engine refuses; those that were deleted since are left out."""
    installed = {row[:2] for row in services.store.versions.all_installed()}
    for result in results:
        is_installed = (result.persona, result.version) in installed
        if is_installed and result.verdict in REFUSED_VERDICTS:
            found = f"{result.persona} {result.version}: {result_text(result)}"
            remedy = "the base model answers instead; see the log, and docs/models.md"
            yield BotCheck("effect", "warn", found, remedy)


def _check_replies(engine: EngineState) -> BotCheck:
    if engine.problems:
        remedy = " ".join(engine.problems)
        if engine.rows:
            found = "some servers compute no replies"
            return BotCheck(REPLIES_CHECK, "warn", found, remedy)
        return BotCheck(REPLIES_CHECK, "fail", "no replies are computed", remedy)
    words = f"{engine.running} of {engine.rows} at once, {engine.waiting} waiting"
    if engine.waiting >= engine.rows:
        remedy = "a faster machine or a smaller BASE_MODEL answers more at once"
        return BotCheck(REPLIES_CHECK, "warn", words, remedy)
    return BotCheck(REPLIES_CHECK, "ok", words)


def _check_connection(connection: DiscordConnection | None) -> Iterator[BotCheck]:
    if connection is None:
        return
    if not connection.is_ready:
        yield BotCheck(
            CONNECTION_CHECK,
            "fail",
            f"not connected to {connection.to}",
            "it tries again by itself; see the log",
        )
    elif connection.heartbeat_s and connection.heartbeat_s > SLOW_HEARTBEAT_S:
        found = f"{connection.to} answers after {connection.heartbeat_s:.1f} s"
        yield BotCheck(CONNECTION_CHECK, "warn", found, "check the network")
    else:
        found = f"connected to {connection.to}"
        yield BotCheck(CONNECTION_CHECK, "ok", found)
