"""The public fake of the Engine protocol: generates scripted replies, and holds or fails them on
request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence, Set
from dataclasses import fields
from typing import Any

from personas.engine import AdapterStatus, EngineState
from personas.errors import EngineBusyError, UnderstudyError
from personas.schemas.chat import (
    AdapterRef,
    ChatReply,
    ChatRequest,
    Persona,
    ReplyToken,
    SamplingParams,
    Turn,
)

ALTERNATIVES = (("tide", -0.5), ("rope", -2.5))
"""Alternatives of every token, with their log-probabilities."""

Script = Callable[[ChatRequest], list[str]]


def echo(request: ChatRequest) -> list[str]:
    """Reply with the persona's name and the last message."""
    name = request.persona.name if request.persona else "Nobody"
    return [f"{name} ", f"hears: {request.turns[-1].text}"]


class FakeReplyStream:
    """Streams the scripted pieces; while the engine is held it waits before the second."""

    def __init__(self, engine: FakeEngine, request: ChatRequest) -> None:
        self._engine = engine
        self._request = request
        self._cancelled = asyncio.Event()
        self._text = ""
        self._finish: str | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        for number, piece in enumerate(self._engine.script(self._request)):
            if self._engine.failure:
                raise self._engine.failure
            if number and not self._engine.free.is_set():
                waits = [
                    asyncio.create_task(event.wait())
                    for event in (self._engine.free, self._cancelled)
                ]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
            if self._cancelled.is_set():
                break
            self._text += piece
            yield piece
        self._finish = "cancelled" if self._cancelled.is_set() else "stop"

    @property
    def reply(self) -> ChatReply:
        if self._finish is None:
            raise RuntimeError("the reply is not finished")
        request = self._request
        sampling = self._request.sampling
        words = self._text.split(" ") if sampling.alternatives is not None else []
        return ChatReply(
            text=self._text,
            version=request.adapter.version if request.adapter else None,
            seed=7 if sampling.seed is None else sampling.seed,
            prompt_tokens=1,
            new_tokens=1,
            finish=self._finish,
            tokens=tuple(
                ReplyToken(word, -0.5, ALTERNATIVES[: sampling.alternatives]) for word in words
            ),
            prompt=f"<|user|>{request.turns[-1].text}",
            **{"lore": request.lore, **self._engine.reply_flags},
        )

    def cancel(self) -> None:
        self._cancelled.set()


class FakeEngine:
    """An engine without a model. `free.clear()` holds every reply after its first piece."""

    def __init__(self, script: Script = echo) -> None:
        self.script = script
        self.requests: list[ChatRequest] = []
        self.prefix_cache_clears = 0
        self.loaded: list[AdapterRef] = []
        self.dropped: list[AdapterRef] = []
        self.prepared: list[tuple[str, AdapterRef | None]] = []
        self.prepared_talks: list[tuple[str, AdapterRef | None, tuple[Turn, ...], int]] = []
        self.failure: UnderstudyError | None = None
        self.full = False
        self.busy_s = 5.0
        self.refusals = 0
        self.reply_flags: dict[str, Any] = {}
        """Further fields of replies: `repeated`, `shortened`, or the `lore` that had room."""
        self.free = asyncio.Event()
        self.free.set()
        self.context_tokens = 2048
        self.sampling_fields: Set[str] = {each.name for each in fields(SamplingParams)}
        self.sees_pictures = False

    def submit(self, request: ChatRequest) -> FakeReplyStream:
        if self.full:
            self.refusals += 1
            raise EngineBusyError(
                "9 replies are waiting already.", "Try again in a minute.", self.busy_s
            )
        self.requests.append(request)
        return FakeReplyStream(self, request)

    async def load(self, adapter: AdapterRef) -> None:
        if self.failure:
            raise self.failure
        self.loaded.append(adapter)

    def prepare(
        self,
        persona: Persona,
        adapter: AdapterRef | None,
        talk: Sequence[Turn] = (),
        max_new_tokens: int = 0,
        context_tokens: int = 0,
    ) -> None:
        if talk:
            self.prepared_talks.append((persona.id, adapter, tuple(talk), max_new_tokens))
        else:
            self.prepared.append((persona.id, adapter))

    async def drop(self, adapter: AdapterRef) -> None:
        self.dropped.append(adapter)

    async def clear_prefix_cache(self) -> None:
        self.prefix_cache_clears += 1

    def state(self) -> EngineState:
        held = tuple(
            AdapterStatus(ref.name, 0, True)
            for ref in dict.fromkeys(self.loaded)
            if ref not in self.dropped
        )
        return EngineState(
            "a fake", "cpu", "float32", self.context_tokens, 0, 32, 0, 40, held, 0, 0,
            sees_pictures=self.sees_pictures,
        )  # fmt: skip

    async def close(self) -> None:
        return
