"""The engine in this process: a thread that owns the model and makes all replies at once, token by token.

The event loop hands requests over through a queue and gets pieces of text back as they are made; it is never blocked.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from personas import base_model
from personas.base_model import BaseModel, Precision
from personas.contracts import AdapterRef, ChatRequest, Persona
from personas.engine.places import Places
from personas.engine.state import EngineState, OnReply, nobody
from personas.engine.stream import LocalReplyStream
from personas.engine.text import StreamedText
from personas.prompt import CONTEXT_TOKENS, Renderer
from personas.serving import Device, free_memory, load_served, precision_of

if TYPE_CHECKING:
    from ctypes import CDLL

    from personas.engine.assembly import Parts
    from personas.engine.batch import Batch
    from personas.engine.decoder import StackedDecoder

log = logging.getLogger(__name__)

WAKE_S = 1.0
"""How often the thread looks up while all that wait wait for adapters."""


@dataclass(frozen=True)
class _Work:
    """What the engine's thread does between two steps; `fail` tells whoever waits that it could not."""

    run: Callable[[], None]
    fail: Callable[[Exception], None]


@dataclass(frozen=True)
class _Leaving:
    """What served before a move: its replies end there. `gone` is called when they have."""

    parts: Parts
    gone: Callable[[], None]


@dataclass
class LocalEngine:
    """Answers many requests at once, each with its own adapter.

    Prompt and reply together hold at most `context_tokens`. `rows` replies are made at once, with at most `slots`
    adapters; `max_waiting` more of one guild may wait while it is alone. `prefix_bytes` are kept of what prompts share.
    """

    base: BaseModel
    precision: Precision
    threads: int | None = None
    max_waiting: int = 64
    context_tokens: int = CONTEXT_TOKENS
    rows: int = 32
    slots: int = 48
    prefix_bytes: int = 256 * 2**20
    on_reply: OnReply = nobody
    _work: queue.SimpleQueue[_Work | None] = field(default_factory=queue.SimpleQueue, init=False)
    _streams: set[LocalReplyStream] = field(default_factory=set, init=False)
    device: Device = field(default="cpu", init=False)
    """Where new requests are computed."""
    _parts: Parts = field(init=False)
    _leaving: _Leaving | None = field(default=None, init=False)
    _compiling: threading.Thread | None = field(default=None, init=False)

    async def start(self) -> None:
        """Load the base model. Raises `BaseModelError`."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._places = Places(self.rows + self.max_waiting, self.rows)
        self._thread = threading.Thread(target=self._own_model, args=(loop, ready), name="engine", daemon=True)
        self._thread.start()
        await ready

    def submit(self, request: ChatRequest) -> LocalReplyStream:
        self._places.take(request.guild_id)
        stream = LocalReplyStream(asyncio.get_running_loop(), request.adapter.version if request.adapter else None)
        self._streams.add(stream)

        def ended() -> None:
            self._streams.discard(stream)
            self._places.give_back(request.guild_id)
            self.on_reply(stream.told)

        def fail(error: Exception) -> None:
            stream.push(error)
            ended()

        self._work.put(_Work(lambda: self._accept(request, stream, ended), fail))
        return stream

    async def load(self, adapter: AdapterRef) -> None:
        weights = await asyncio.to_thread(self._parts.read, adapter)

        def hold(done: Callable[[], None]) -> None:
            self._parts.hold(weights)
            done()

        await self._done(hold)

    def prepare(self, persona: Persona, adapter: AdapterRef | None) -> None:
        def begin() -> None:
            from personas.engine.ahead import beginning

            self._parts.batch.prepare(adapter, beginning(self._renderer, persona, self.context_tokens))

        self._work.put(_Work(begin, lambda error: log.info("%s cannot be prepared: %s", persona.name, error)))

    async def drop(self, adapter: AdapterRef) -> None:
        if leaving := self._leaving:
            await self._done(lambda done: leaving.parts.seats.drop(adapter, done))
        await self._done(lambda done: self._parts.seats.drop(adapter, done))

    async def forget_texts(self) -> None:
        def forget(done: Callable[[], None]) -> None:
            for parts in self._all_parts():
                parts.batch.forget_texts()
            done()

        await self._done(forget)

    def state(self) -> EngineState:
        return self._parts.state(self.base.name, self.context_tokens, self.rows)

    async def move(self, device: Device) -> None:
        """Compute on another device. Replies under way end where they are, those that wait are made there.

        Returns when the memory of the old place is free. Raises `BaseModelError`, and changes nothing, when the new one
        cannot be used. To be used by one caller at a time.
        """
        await self._done(lambda done: self._move(device, done))

    async def _done(self, what: Callable[[Callable[[], None]], None]) -> None:
        """Have the engine's thread do something, and wait until it calls back or fails."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        done = partial(_tell, loop, future, None)
        self._work.put(_Work(lambda: what(done), lambda error: _tell(loop, future, error)))
        await future

    async def close(self) -> None:
        for stream in list(self._streams):
            stream.cancel()
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)
        if self._compiling:  # cut off, it would have to begin anew each time
            await asyncio.to_thread(self._compiling.join)

    # ------------------------------------------------------------------------------ on the engine's thread

    def _own_model(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[None]) -> None:
        try:
            self._begin()
        except Exception as error:
            _tell(loop, ready, error)
            return
        _tell(loop, ready, None)
        try:
            computed = False
            while self._take_work(wait=not computed):
                computed = self._step()
        finally:
            for parts in self._all_parts():
                parts.close()

    def _all_parts(self) -> list[Parts]:
        return [self._parts, *([self._leaving.parts] if self._leaving else [])]

    def _step(self) -> bool:
        computed = [_stepped(parts.batch) for parts in self._all_parts()]
        if self._leaving and not self._leaving.parts.batch.running:
            self._let_go(self._leaving)
        return any(computed)

    def _move(self, device: Device, done: Callable[[], None]) -> None:
        if device == self.device:
            done()
            return
        before, self._parts, self.device = self._parts, self._assembled(device), device
        before.batch.hand_over(self._parts.batch)
        self._leaving = _Leaving(before, done)

    def _let_go(self, leaving: _Leaving) -> None:
        self._leaving = None
        leaving.parts.close()
        gone = leaving.gone
        del leaving
        free_memory()
        gone()

    def _take_work(self, *, wait: bool) -> bool:
        """Do what was asked for since the last step, after waiting for something to do if there was nothing.

        False when the engine closes; what ran has been cancelled then, and has ended.
        """
        while True:
            try:
                work = self._work.get(block=wait, timeout=WAKE_S if self._parts.batch.waiting else None)
            except queue.Empty:
                return True
            if work is None:
                self._step()
                return False
            wait = False
            try:
                work.run()
            except Exception as error:  # told to whoever asked; the engine goes on with the next
                log.debug("a request failed", exc_info=True)
                work.fail(error)

    def _begin(self) -> None:
        torch = base_model.load_torch()
        if self.threads:
            torch.set_num_threads(self.threads)
        self._renderer = Renderer(base_model.load_tokenizer(self.base))
        self._parts = self._assembled(None)
        self.device = self._parts.adapted.model.device.type

    def _assembled(self, device: Device | None) -> Parts:
        from personas.engine import quick
        from personas.engine.assembly import assemble
        from personas.engine.batch import Limits

        model = load_served(self.base, self.precision, device)
        log.info("replies are computed on the %s in %s", model.device.type, precision_of(model))
        parts = assemble(
            model,
            base_model.fingerprint(self.base),
            Limits(rows=self.rows),
            slots=self.slots,
            prefix_bytes=self.prefix_bytes,
            heard=lambda: self._work.put(_Work(lambda: None, log.error)),
        )
        if parts.stacked and quick.can_serve(model):
            self._quicken(parts.stacked)
        return parts

    def _quicken(self, decoder: StackedDecoder) -> None:
        """Compute by the compiled kernel: now if it is there, else when it has been compiled."""
        from personas.engine import quick

        def use(library: CDLL) -> None:
            self._work.put(_Work(lambda: quick.use(library, decoder), lambda error: log.info("%s", error)))

        if library := quick.compiled_before():
            use(library)
        else:
            self._compiling = threading.Thread(target=quick.compile_for, args=(use,), name="compiling", daemon=True)
            self._compiling.start()

    def _accept(self, request: ChatRequest, stream: LocalReplyStream, ended: Callable[[], None]) -> None:
        from personas.engine.rows import Job

        sampling = request.sampling
        seed = secrets.randbits(31) if sampling.seed is None else sampling.seed
        room = self.context_tokens - sampling.max_new_tokens
        prompt = self._renderer.prompt(request.persona, request.turns, request.lore, room, request.instructions)
        text = StreamedText(self._renderer, sampling.stop, stream.push, stop_loops=sampling.stop_loops)
        self._parts.batch.add(Job(request, prompt.ids, seed, stream, text, ended, prompt.text, prompt.shortened))


def _stepped(batch: Batch) -> bool:
    try:
        return batch.step()
    except Exception as error:  # nobody would hear of anything any more
        log.exception("the engine stumbled; all replies that were being made end")
        batch.fail(error)
        return False


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], error: Exception | None) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(_settle, future, error)


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(None)
