"""A trainer process on this machine: start, pause, watch, end, and the end of one that an earlier
bot has left.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from bot.platform.clock import Clock
from bot.training.backends.trainer_events import MAX_LINE_BYTES, OutputReader
from personas.errors import RunLimitError
from personas.home.job_attempt import find_trainer
from personas.home.job_folder import limit_log
from personas.schemas.training_events import PauseDemand

KILL_TIMEOUT_S = 20.0
"""Time in which a trainer has to stop before it is killed."""
DEATH_TIMEOUT_S = 30.0
"""Time in which a killed trainer has to end; one that waits for a broken disk or device may never
do.
"""
EXIT_POLL_INTERVAL_S = 0.1
WATCH_INTERVAL_S = 5.0
OUTPUT_TIMEOUT_S = 5.0
"""Time in which the output has to end after the trainer: another process may keep it open."""
log = logging.getLogger(__name__)


class TrainerProcess:
    """A running trainer. Call `wait` at once: the process does not outlive it."""

    def __init__(
        self, process: asyncio.subprocess.Process, output: OutputReader, home: Path, clock: Clock
    ) -> None:
        assert process.stdout is not None  # it is a pipe
        self._process = process
        self._output = output
        self._home = home
        self._clock = clock
        self._reading = asyncio.create_task(output.read(process.stdout))
        self._watched_at = time.monotonic()

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        output: OutputReader,
        home: Path,
        clock: Clock,
    ) -> "TrainerProcess":
        """Start a command; its standard error is appended to the log."""
        with output.log_file.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,  # for `hold`; it closes with this process
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=environ,
                limit=MAX_LINE_BYTES,
                # The bot handles Ctrl-C. No new session: Linux schedules sessions before niceness.
                process_group=0,
            )
        return cls(process, output, home, clock)

    def hold(self, demand: PauseDemand) -> None:
        """Ask the trainer to pause or to go on."""
        stdin = self._process.stdin
        if stdin and not stdin.is_closing():
            # Not drained: the trainer may not read any more.
            stdin.write(f"{demand}\n".encode())

    async def wait(self, stop: asyncio.Event) -> int:
        """Wait for the exit and return its code. `stop` ends the process, and so do its limits, with
        `RunLimitError`.
        """
        try:
            code = await self._wait_for_exit(stop)
            # Processes that the trainer started and left.
            signal_group(self._process.pid, signal.SIGKILL)
            await asyncio.wait({self._reading}, timeout=OUTPUT_TIMEOUT_S)
            if self._reading.done():
                self._reading.result()
            return code
        finally:
            await self._release()

    async def _wait_for_exit(self, stop: asyncio.Event) -> int:
        ending: asyncio.Task[None] | None = None
        limit: RunLimitError | None = None
        # `Process.wait` also waits for others that hold the output, in some Pythons.
        while self._process.returncode is None:
            await asyncio.sleep(EXIT_POLL_INTERVAL_S)
            if self._reading.done():
                self._reading.result()  # raises what a listener raised
            if ending is None:
                limit = await self._exceeded_limit()
                if limit or stop.is_set():
                    ending = asyncio.create_task(self._end())
            if ending and ending.done() and self._process.returncode is None:
                raise RunLimitError(
                    f"The trainer (process {self._process.pid}) does not end, even when killed.",
                    "It waits for a disk or device: restart the machine, then resume the job.",
                )
        if ending:
            ending.cancel()
        if limit:
            raise limit
        return self._process.returncode

    async def _exceeded_limit(self) -> RunLimitError | None:
        """Compare the run with its limits, every `WATCH_INTERVAL_S`."""
        if time.monotonic() - self._watched_at < WATCH_INTERVAL_S:
            return None
        watch = self._output.watch
        try:
            watch.require_time()
            await asyncio.to_thread(limit_log, self._output.log_file)
            held_bytes = await asyncio.to_thread(_held_bytes, self._process.pid)
            await asyncio.to_thread(watch.require_resources, self._home, held_bytes)
        except RunLimitError as error:
            log.warning("%s", error)
            return error
        finally:
            self._watched_at = time.monotonic()
        return None

    async def _end(self) -> None:
        """SIGTERM for the group, then SIGKILL; returns when it should have ended."""
        signal_group(self._process.pid, signal.SIGTERM)
        await self._clock.sleep(KILL_TIMEOUT_S)
        signal_group(self._process.pid, signal.SIGKILL)
        await asyncio.sleep(DEATH_TIMEOUT_S)

    async def _release(self) -> None:
        process = self._process
        self._reading.cancel()
        if process.returncode is None:
            signal_group(process.pid, signal.SIGKILL)
        await wait_until(lambda: process.returncode is not None, DEATH_TIMEOUT_S)
        # Other processes may hold the pipes; there is no public way to close this end of them.
        process._transport.close()  # type: ignore[attr-defined]


async def end_orphan(folder: Path, stop: asyncio.Event) -> None:
    """End the trainer that a killed bot has left on a job folder; returns early on `stop`.

    It ends by itself, but after its step, and until then it holds the folder's lock.
    """
    orphan = await asyncio.to_thread(find_trainer, folder)
    if orphan is None:
        return
    log.warning(
        "the trainer %d of a bot that was killed still works on %s: it is ended", orphan.pid, folder
    )
    for number, timeout_s in (
        (signal.SIGTERM, KILL_TIMEOUT_S),
        (signal.SIGKILL, DEATH_TIMEOUT_S),
    ):
        with suppress(ProcessLookupError):
            if os.getpgid(orphan.pid) == orphan.pid:
                signal_group(orphan.pid, number)
            else:  # started by hand
                os.kill(orphan.pid, number)
        await wait_until(lambda: stop.is_set() or not orphan.is_running, timeout_s)
        if not orphan.is_running:
            return


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process's group; does nothing if it has none left."""
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses for a group of zombies
        os.killpg(pid, number)


async def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Wait for a condition, at most so long."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110  a process is waited for
        await asyncio.sleep(EXIT_POLL_INTERVAL_S)


def _held_bytes(pid: int) -> int:
    """Return the memory of a process and of those that it started; 0 once one of them has ended
    meanwhile.
    """
    try:
        trainer = psutil.Process(pid)
        processes = [trainer, *trainer.children(recursive=True)]
        return sum(int(process.memory_info().rss) for process in processes)
    except psutil.Error:
        return 0
