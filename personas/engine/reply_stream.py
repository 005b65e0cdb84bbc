"""The stream of a reply: pieces from the engine's thread reach the event loop through a queue."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from personas.engine import RequestMetrics
from personas.schemas.chat import ChatReply

END_OF_STREAM = object()


class QueuedReplyStream:
    """A `ReplyStream` whose pieces come from the engine's thread through a queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop, version: str | None) -> None:
        self._loop = loop
        self._version = version
        self._pieces: asyncio.Queue[Any] = asyncio.Queue()
        self._reply: ChatReply | None = None
        self._lock = threading.Lock()
        self._has_begun = False
        self.cancelled = threading.Event()
        self._submitted_at = time.monotonic()
        self._first_text_at: float | None = None

    @property
    def metrics(self) -> RequestMetrics:
        """Measurements of the request, once it has ended."""
        first_s = None
        if self._first_text_at is not None:
            first_s = self._first_text_at - self._submitted_at
        whole_s = time.monotonic() - self._submitted_at
        reply = self._reply
        if reply is None:
            return RequestMetrics(
                first_s=first_s, whole_s=whole_s, prompt_tokens=0, new_tokens=0, finish="failed"
            )
        return RequestMetrics(
            first_s=first_s,
            whole_s=whole_s,
            prompt_tokens=reply.prompt_tokens,
            new_tokens=reply.new_tokens,
            finish=reply.finish,
        )

    async def __aiter__(self) -> AsyncIterator[str]:
        while (piece := await self._pieces.get()) is not END_OF_STREAM:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    @property
    def reply(self) -> ChatReply:
        if self._reply is None:
            raise RuntimeError("the reply is not finished")
        return self._reply

    def cancel(self) -> None:
        with self._lock:
            # The engine ends only requests that have begun.
            if not self._has_begun and not self.cancelled.is_set():
                self.finish(
                    ChatReply(
                        text="",
                        version=self._version,
                        seed=0,
                        prompt_tokens=0,
                        new_tokens=0,
                        finish="cancelled",
                        seeded=False,
                    )
                )
            self.cancelled.set()

    def begin(self) -> bool:
        """Mark the request as started. Returns False when it was cancelled before."""
        with self._lock:
            self._has_begun = not self.cancelled.is_set()
            return self._has_begun

    def push(self, piece: object) -> None:
        """Deliver a piece of text, an exception or the end to the event loop."""
        if self._first_text_at is None and isinstance(piece, str):
            self._first_text_at = time.monotonic()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def finish(self, reply: ChatReply) -> None:
        self._reply = reply
        self.push(END_OF_STREAM)
