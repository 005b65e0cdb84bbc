"""Two locks of discord.py that a request which is cancelled while it waits would leave locked for
ever.

Requests are cancelled by their timeouts. One lock holds back all requests of the bot while
Discord's global limit is reached, the other those of a webhook until its limit is reset.
"""

import asyncio
from types import TracebackType
from typing import Any

import discord
from discord.webhook import async_


class ReleasingLock(async_.AsyncDeferredLock):
    """The lock of a webhook's requests, which is released also if its pause is cancelled."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            if self.delta:
                await asyncio.sleep(self.delta)
        finally:
            self.lock.release()


def release_locks(http: discord.http.HTTPClient) -> None:
    """Have cancelled requests release what they hold: those of this client, and of all webhooks of
    the process.
    """
    async_.AsyncDeferredLock = ReleasingLock  # type: ignore[misc]
    request = http.request
    global_limit = http._global_over

    async def release_when_cancelled(*arguments: Any, **options: Any) -> Any:
        try:
            return await request(*arguments, **options)
        except asyncio.CancelledError:
            global_limit.set()
            raise

    http.request = release_when_cancelled  # type: ignore[method-assign]
