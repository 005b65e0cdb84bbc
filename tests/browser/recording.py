"""Records what a page shows, as an animated WebP picture."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.async_api import Page

LONGEST_STILL_MS = 1_500
"""Waits, such as for a reply on a slow machine, are shortened to this."""
LAST_STILL_MS = 4_000
SHORTEST_MS = 80
QUIET_S = 2.0
"""After this long without a frame, none is to come."""


class Recording:
    """The frames of a page. Chromium sends one whenever the picture changes."""

    def __init__(self) -> None:
        self._frames: list[tuple[float, bytes]] = []

    @asynccontextmanager
    async def of(self, page: Page) -> AsyncIterator[None]:
        """Record `page` within the block."""
        session = await page.context.new_cdp_session(page)

        async def on_frame(event: dict[str, Any]) -> None:
            frame = base64.b64decode(event["data"])
            self._frames.append((event["metadata"]["timestamp"], frame))
            await session.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})

        session.on("Page.screencastFrame", on_frame)
        await session.send("Page.startScreencast", {"format": "jpeg", "quality": 95})
        try:
            yield
            await self._all_frames()
        finally:
            await session.send("Page.stopScreencast")
            await session.detach()

    async def _all_frames(self) -> None:
        """Wait for frames that are still to come: a busy machine sends them late."""
        number = -1
        while number != len(self._frames):
            number = len(self._frames)
            await asyncio.sleep(QUIET_S)

    def save(self, path: Path, *, width: int, quality: int) -> int:
        """Write the frames, `width` pixels wide; `quality` is WebP's, from 0 to 100. Returns the
        file's bytes.
        """
        pictures, durations = [], []
        for (started, data), ended in zip(self._frames, self._ends(), strict=True):
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            height = round(picture.height * width / picture.width)
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
            duration = min(LONGEST_STILL_MS, max(SHORTEST_MS, round((ended - started) * 1000)))
            if pictures and picture.tobytes() == pictures[-1].tobytes():
                durations[-1] = min(LONGEST_STILL_MS, durations[-1] + duration)
                continue
            pictures.append(picture)
            durations.append(duration)
        durations[-1] = LAST_STILL_MS
        pictures[0].save(
            path,
            save_all=True,
            append_images=pictures[1:],
            duration=durations,
            loop=0,
            quality=quality,
            method=6,
            minimize_size=True,
        )
        return path.stat().st_size

    def _ends(self) -> list[float]:
        starts = [started for started, _ in self._frames]
        return [*starts[1:], starts[-1]]
