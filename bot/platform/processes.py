"""The end of child processes."""

import asyncio
import os
import signal
from contextlib import suppress

KILL_TIMEOUT_S = 10.0


async def terminate_group(process: asyncio.subprocess.Process) -> None:
    """End a process and its group: SIGTERM, then SIGKILL after `KILL_TIMEOUT_S`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(TimeoutError):
            async with asyncio.timeout(KILL_TIMEOUT_S):
                await process.wait()
                return
