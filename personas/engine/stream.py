"""A reply on its way from the engine's thread to the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from personas.contracts import Reply
from personas.engine.state import ReplyTold

_END = object()


class LocalReplyStream:
    """A `ReplyStream` fed by the engine's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, version: str | None) -> None:
        self._loop, self._version = loop, version
        self._pieces: asyncio.Queue[Any] = asyncio.Queue()
        self._reply: Reply | None = None
        self._turn = threading.Lock()
        self._begun = False
        self.cancelled = threading.Event()
        self._asked_at = time.monotonic()
        self._first_at: float | None = None

    @property
    def told(self) -> ReplyTold:
        """How it went, once it has ended."""
        now, reply = time.monotonic(), self._reply
        first_s = None if self._first_at is None else self._first_at - self._asked_at
        if reply is None:
            return ReplyTold(first_s, now - self._asked_at, 0, 0, "failed")
        return ReplyTold(first_s, now - self._asked_at, reply.prompt_tokens, reply.new_tokens, reply.finish)

    async def __aiter__(self) -> AsyncIterator[str]:
        while (piece := await self._pieces.get()) is not _END:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    @property
    def reply(self) -> Reply:
        if self._reply is None:
            raise RuntimeError("the reply is not finished")
        return self._reply

    def cancel(self) -> None:
        with self._turn:
            if not self._begun and not self.cancelled.is_set():  # nobody would say so before its turn
                self.finish(Reply("", self._version, 0, 0, 0, "cancelled"))
            self.cancelled.set()

    def begin(self) -> bool:
        """From the engine's thread: its turn has come. False when it was cancelled before."""
        with self._turn:
            self._begun = not self.cancelled.is_set()
            return self._begun

    def push(self, piece: object) -> None:
        """From the engine's thread: hand a piece of text, an exception or the end to the event loop."""
        if self._first_at is None and isinstance(piece, str):
            self._first_at = time.monotonic()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def finish(self, reply: Reply) -> None:
        """From the engine's thread: the reply is complete."""
        self._reply = reply
        self.push(_END)
