"""A call of the trainer's command line: `dataset inspect`, `dataset build` and `catalogue fetch`."""

import asyncio
import json
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bot.platform.processes import terminate_group
from bot.training.backends.trainer_environment import trainer_environment

MAX_OUTPUT_BYTES = 2**24
MAX_FIRST_LINES = 8
MAX_LAST_LINES = 12
MAX_LINE_CHARS = 400
"""Lines kept of a failed process's output: refusals begin with the reason, crashes end with it."""
PROGRESS_SUFFIXES = (" rows", " fetched")
PROGRESS_ARGUMENTS = ("--json", "--tell-every", "0.5")
"""Have the trainer answer in JSON and report its progress each half second."""
PROCESS_NICENESS = 10


@dataclass(frozen=True)
class TrainerAnswer:
    """What a call printed, and its error, empty if it succeeded."""

    output: bytes
    error: str = ""

    @property
    def question(self) -> dict[str, Any]:
        """The answer of an inspection that asks which column is what; empty for any other."""
        try:
            answer = json.loads(self.output)
        except ValueError:
            return {}
        if isinstance(answer, dict) and "question" in answer:
            return answer
        return {}


async def call_trainer(
    command: Sequence[str], home: Path, on_progress: Callable[[str], None]
) -> TrainerAnswer:
    """Run a trainer's command to its end, in the home; cancelling it ends the process."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=home,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **trainer_environment(os.environ, {}),
            "UNDERSTUDY_HOME": str(home),
            "PYTHONUNBUFFERED": "1",
        },
        process_group=0,  # in the bot's session, where niceness counts
    )
    with suppress(psutil.Error):
        psutil.Process(process.pid).nice(PROCESS_NICENESS)
    assert process.stdout is not None and process.stderr is not None  # they are pipes
    try:
        output, lines = await asyncio.gather(
            _read_output(process.stdout), _read_progress(process.stderr, on_progress)
        )
        code = await process.wait()
    finally:
        if process.returncode is None:
            await terminate_group(process)
    if code:
        return TrainerAnswer(output, "\n".join(lines) or f"The trainer ended with code {code}.")
    if len(output) > MAX_OUTPUT_BYTES:
        return TrainerAnswer(b"", "The trainer's answer is too long.")
    return TrainerAnswer(output)


async def _read_output(stream: asyncio.StreamReader) -> bytes:
    output = bytearray()
    while piece := await stream.read(2**16):
        if len(output) <= MAX_OUTPUT_BYTES:
            output += piece
    return bytes(output)


async def _read_progress(
    stream: asyncio.StreamReader, on_progress: Callable[[str], None]
) -> list[str]:
    """Pass on progress lines; returns the first and last of the others."""
    first: list[str] = []
    last: deque[str] = deque(maxlen=MAX_LAST_LINES)
    left_out = 0
    while True:
        try:
            raw = await stream.readline()
        except ValueError:  # a line longer than the reader's limit, which it has dropped
            continue
        if not raw:
            if left_out:
                first.append("…")
            return [*first, *last]
        line = raw.decode(errors="replace").strip()[:MAX_LINE_CHARS]
        if line.endswith(PROGRESS_SUFFIXES):
            on_progress(line)
        elif line and len(first) < MAX_FIRST_LINES:
            first.append(line)
        elif line:
            left_out += len(last) == MAX_LAST_LINES
            last.append(line)
