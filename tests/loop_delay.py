"""Measures how long the event loop was blocked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

TICK_S = 0.002


@dataclass
class LoopDelay:
    """The longest time in seconds for which a task that was due did not run, and how often it
    ran.
    """

    longest_s: float = 0.0
    ticks: int = 0


@asynccontextmanager
async def measured_loop() -> AsyncIterator[LoopDelay]:
    """Let a task tick beside the block; it has ticked once before."""
    delay = LoopDelay()
    ticker = asyncio.create_task(_tick(delay))
    await asyncio.sleep(0)
    try:
        yield delay
        await asyncio.sleep(2 * TICK_S)  # what blocked at the end counts too
    finally:
        ticker.cancel()
        with suppress(asyncio.CancelledError):
            await ticker


async def _tick(delay: LoopDelay) -> None:
    while True:
        delay.ticks += 1
        began = time.perf_counter()
        await asyncio.sleep(TICK_S)
        delay.longest_s = max(delay.longest_s, time.perf_counter() - began - TICK_S)
