"""Has a process of its own recognise speech: `bot.transcription.worker`, one file at a time."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from bot.transcription.audio import MAX_AUDIO_S
from bot.transcription.worker import REQUEST_HEAD

LOAD_TIMEOUT_S = 300.0
RETRY_DELAY_S = 300.0
"""Pause after a start that failed."""
IDLE_S = 600.0
"""Time after which a process without work is ended: its model takes memory."""
PIECE_S = 30
"""Length of the pieces of a file that comes last. Whisper hears as much at once."""
MAX_ANSWER_BYTES = 2**20
SOURCE_TREE = Path(__file__).resolve().parents[2]
PASSED_VARIABLES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG")
"""The environment of the process: no secrets."""


class TranscriptionError(Exception):
    """A voice message that is not recognised."""


def worker_command(model: Path) -> list[str]:
    """Return the command of a recogniser on half of the processor."""
    threads = max(1, (os.cpu_count() or 1) // 2)
    return [sys.executable, "-m", "bot.transcription.worker", str(model), str(threads)]


def worker_environ() -> dict[str, str]:
    """Return the environment of a recogniser, which asks no hub and imports nothing from the current
    folder.
    """
    passed = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}
    paths = filter(None, [str(SOURCE_TREE), passed.get("PYTHONPATH")])
    safe = {"HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"}
    return passed | {"PYTHONPATH": os.pathsep.join(paths)} | safe


def find_load_problem(model: Path) -> str:
    """Start a recogniser, and return why it does not load its model; empty if it does."""
    try:
        done = subprocess.run(
            worker_command(model),
            stdin=subprocess.DEVNULL,  # it ends once it has loaded
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=worker_environ(),
            timeout=LOAD_TIMEOUT_S,
        )
        answer = json.loads(done.stdout.partition(b"\n")[0])
    except subprocess.TimeoutExpired:
        return f"its model was not loaded in {LOAD_TIMEOUT_S:.0f} s"
    except (OSError, ValueError) as error:
        return f"the recogniser does not start ({type(error).__name__})"
    return str(answer.get("problem", ""))


class Transcriber:
    """Starts the command when the first file comes, and again after it has ended."""

    def __init__(self, command: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._command = command
        self._clock = clock
        self._turn = asyncio.Lock()
        self._waiting = 0
        """Files that wait, but for those that let others go first."""
        self._loading: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._failed_at = -RETRY_DELAY_S
        self._failure = ""
        self._idle: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def transcribe(self, audio: bytes, *, is_last: bool = False) -> str:
        """Return the words of an Ogg Opus file; empty where nobody speaks. One with `is_last` is
        recognised in pieces of `PIECE_S`, each of which waits until no other file waits. Raises
        `TranscriptionError`.

        If the call is cancelled while the process computes, the process is ended; one that loads
        its model goes on.
        """
        step_s = PIECE_S if is_last else MAX_AUDIO_S
        pieces = []
        for start_s in range(0, MAX_AUDIO_S, step_s):
            pieces.append(await self._transcribe(audio, start_s, start_s + step_s, is_last=is_last))
        return " ".join(pieces)

    async def _transcribe(self, audio: bytes, start_s: int, end_s: int, *, is_last: bool) -> str:
        async with self._taking_turn(is_last=is_last):
            if self._idle:
                self._idle.cancel()
            process = await asyncio.shield(self._load())
            try:
                answer = await _ask(process, audio, start_s, end_s)
            except BaseException:
                await self._end()
                raise
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, _kill, process)
        if "text" not in answer:
            raise TranscriptionError(str(answer.get("problem")))
        return str(answer["text"])

    async def close(self) -> None:
        """End the process; files that wait are not recognised."""
        self._is_closed = True
        if self._idle:
            self._idle.cancel()
        await self._end()

    @asynccontextmanager
    async def _taking_turn(self, *, is_last: bool) -> AsyncIterator[None]:
        self._waiting += not is_last
        try:
            await self._turn.acquire()
            while is_last and self._waiting:
                self._turn.release()
                await asyncio.sleep(0)  # else it might have it again, while a cancelled one leaves
                await self._turn.acquire()
        finally:
            self._waiting -= not is_last
        try:
            yield
        finally:
            self._turn.release()

    def _load(self) -> asyncio.Task[asyncio.subprocess.Process]:
        """Return the process that runs or is being started, else a new one."""
        task = self._loading
        if task and not task.done():
            return task
        if task and not task.exception() and task.result().returncode is None:
            return task
        if self._is_closed:
            raise TranscriptionError("the bot is stopping")
        if self._clock() - self._failed_at < RETRY_DELAY_S:
            raise TranscriptionError(self._failure)
        self._loading = asyncio.create_task(self._start(), name="recogniser of voice messages")
        # Nobody may wait any more when it fails.
        self._loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._loading

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            return await self._start_process()
        except (TranscriptionError, TimeoutError, OSError) as error:
            self._failed_at = self._clock()
            self._failure = str(error) or f"its model was not loaded in {LOAD_TIMEOUT_S:.0f} s"
            raise TranscriptionError(self._failure) from error

    async def _start_process(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,  # it closes with this process, and ends the other
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=worker_environ(),
            limit=MAX_ANSWER_BYTES,
            # The bot handles Ctrl-C. No new session: Linux schedules sessions before niceness.
            process_group=0,
        )
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                answer = await _read_answer(process)
            if "ready" not in answer:
                raise TranscriptionError(str(answer.get("problem")))
        except BaseException:
            _kill(process)
            await process.wait()
            raise
        return process

    async def _end(self) -> None:
        task = self._loading
        self._loading = None
        if task is None:
            return
        task.cancel()  # which changes nothing once it is done
        await asyncio.wait({task})
        if not task.cancelled() and not task.exception():
            _kill(task.result())
            await task.result().wait()


async def _ask(
    process: asyncio.subprocess.Process, audio: bytes, start_s: int, end_s: int
) -> dict[str, Any]:
    assert process.stdin is not None  # it is a pipe
    try:
        process.stdin.write(REQUEST_HEAD.pack(len(audio), start_s, end_s) + audio)
        await process.stdin.drain()
    except OSError as error:
        raise TranscriptionError("the recogniser has ended") from error
    return await _read_answer(process)


async def _read_answer(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None  # it is a pipe
    try:
        answer = json.loads(await process.stdout.readline())
    except ValueError as error:  # nothing, or a line that is no JSON or too long
        raise TranscriptionError("the recogniser has ended") from error
    if not isinstance(answer, dict):
        raise TranscriptionError("the recogniser's answer is not an object")
    return answer


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
