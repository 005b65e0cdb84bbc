"""The engine: takes requests from the event loop, owns the model's thread, streams replies back."""

from __future__ import annotations

import asyncio
import logging
import queue
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from personas.engine.detokenizer import StreamingDetokenizer
from personas.engine.metrics import EngineState, MetricsCallback, RequestMetrics, ignore_metrics
from personas.engine.scheduler import AdmissionControl
from personas.models import base_model
from personas.models.base_model import BaseModel
from personas.models.serving_model import Device, load_serving_model, precision_of, release_memory
from personas.prompt import CONTEXT_TOKENS, Renderer
from personas.schemas.chat import AdapterRef, ChatReply, ChatRequest, Persona
from personas.schemas.training import ServingPrecision

if TYPE_CHECKING:
    from ctypes import CDLL

    from personas.engine.engine_core import BatchGenerator, EngineParts
    from personas.engine.model_runner import StackedLoraRunner

_END_OF_STREAM = object()


class QueuedReplyStream:
    """A `ReplyStream` fed by the engine's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, version: str | None) -> None:
        self._loop, self._version = loop, version
        self._pieces: asyncio.Queue[Any] = asyncio.Queue()
        self._reply: ChatReply | None = None
        self._turn = threading.Lock()
        self._begun = False
        self.cancelled = threading.Event()
        self._asked_at = time.monotonic()
        self._first_at: float | None = None

    @property
    def told(self) -> RequestMetrics:
        """How it went, once it has ended."""
        now, reply = time.monotonic(), self._reply
        first_s = None if self._first_at is None else self._first_at - self._asked_at
        if reply is None:
            return RequestMetrics(first_s, now - self._asked_at, 0, 0, "failed")
        return RequestMetrics(first_s, now - self._asked_at, reply.prompt_tokens, reply.new_tokens, reply.finish)

    async def __aiter__(self) -> AsyncIterator[str]:
        while (piece := await self._pieces.get()) is not _END_OF_STREAM:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    @property
    def reply(self) -> ChatReply:
        if self._reply is None:
            raise RuntimeError("the reply is not finished")
        return self._reply

    def cancel(self) -> None:
        with self._turn:
            if not self._begun and not self.cancelled.is_set():  # nobody would say so before its turn
                self.finish(ChatReply("", self._version, 0, 0, 0, "cancelled"))
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

    def finish(self, reply: ChatReply) -> None:
        """From the engine's thread: the reply is complete."""
        self._reply = reply
        self.push(_END_OF_STREAM)


log = logging.getLogger(__name__)


ADAPTER_POLL_S = 1.0


"""How often the thread looks up while all that wait wait for adapters."""


@dataclass(frozen=True)
class _EngineTask:
    """What the engine's thread does between two steps; `fail` tells whoever waits that it could not."""

    run: Callable[[], None]
    fail: Callable[[Exception], None]


@dataclass(frozen=True)
class _DrainingParts:
    """What served before a move: its replies end there. `gone` is called when they have."""

    parts: EngineParts
    gone: Callable[[], None]


@dataclass
class LLMEngine:
    """Answers many requests at once, each with its own adapter.

    Prompt and reply together hold at most `context_tokens`. `rows` replies are made at once, with at most `slots`
    adapters; `max_waiting` more of one guild may wait while it is alone. `prefix_bytes` are kept of what prompts share.
    """

    base: BaseModel
    precision: ServingPrecision
    threads: int | None = None
    max_waiting: int = 64
    context_tokens: int = CONTEXT_TOKENS
    rows: int = 32
    slots: int = 48
    prefix_bytes: int = 256 * 2**20
    on_reply: MetricsCallback = ignore_metrics
    _work: queue.SimpleQueue[_EngineTask | None] = field(default_factory=queue.SimpleQueue, init=False)
    _streams: set[QueuedReplyStream] = field(default_factory=set, init=False)
    device: Device = field(default="cpu", init=False)
    """Where new requests are computed."""
    _parts: EngineParts = field(init=False)
    _leaving: _DrainingParts | None = field(default=None, init=False)
    _compiling: threading.Thread | None = field(default=None, init=False)

    async def start(self) -> None:
        """Load the base model. Raises `BaseModelError`."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._places = AdmissionControl(self.rows + self.max_waiting, self.rows)
        self._thread = threading.Thread(target=self._own_model, args=(loop, ready), name="engine", daemon=True)
        self._thread.start()
        await ready

    def submit(self, request: ChatRequest) -> QueuedReplyStream:
        self._places.take(request.guild_id)
        stream = QueuedReplyStream(asyncio.get_running_loop(), request.adapter.version if request.adapter else None)
        self._streams.add(stream)

        def ended() -> None:
            self._streams.discard(stream)
            self._places.give_back(request.guild_id)
            self.on_reply(stream.told)

        def fail(error: Exception) -> None:
            stream.push(error)
            ended()

        self._work.put(_EngineTask(lambda: self._accept(request, stream, ended), fail))
        return stream

    async def load(self, adapter: AdapterRef) -> None:
        weights = await asyncio.to_thread(self._parts.read, adapter)

        def hold(done: Callable[[], None]) -> None:
            self._parts.hold(weights)
            done()

        await self._done(hold)

    def prepare(self, persona: Persona, adapter: AdapterRef | None) -> None:
        def begin() -> None:
            from personas.engine.prefix_warmup import common_prefix

            self._parts.batch.prepare(adapter, common_prefix(self._renderer, persona, self.context_tokens))

        self._work.put(_EngineTask(begin, lambda error: log.info("%s cannot be prepared: %s", persona.name, error)))

    async def drop(self, adapter: AdapterRef) -> None:
        if leaving := self._leaving:
            await self._done(lambda done: leaving.parts.seats.drop(adapter, done))
        await self._done(lambda done: self._parts.seats.drop(adapter, done))

    async def clear_prefix_cache(self) -> None:
        def forget(done: Callable[[], None]) -> None:
            for parts in self._all_parts():
                parts.batch.clear_prefix_cache()
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
        done = partial(_resolve_threadsafe, loop, future, None)
        self._work.put(_EngineTask(lambda: what(done), lambda error: _resolve_threadsafe(loop, future, error)))
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
            _resolve_threadsafe(loop, ready, error)
            return
        _resolve_threadsafe(loop, ready, None)
        try:
            computed = False
            while self._take_work(wait=not computed):
                computed = self._step()
        finally:
            for parts in self._all_parts():
                parts.close()

    def _all_parts(self) -> list[EngineParts]:
        return [self._parts, *([self._leaving.parts] if self._leaving else [])]

    def _step(self) -> bool:
        computed = [_safe_step(parts.batch) for parts in self._all_parts()]
        if self._leaving and not self._leaving.parts.batch.running:
            self._let_go(self._leaving)
        return any(computed)

    def _move(self, device: Device, done: Callable[[], None]) -> None:
        if device == self.device:
            done()
            return
        before, self._parts, self.device = self._parts, self._assembled(device), device
        before.batch.transfer_queue(self._parts.batch)
        self._leaving = _DrainingParts(before, done)

    def _let_go(self, leaving: _DrainingParts) -> None:
        self._leaving = None
        leaving.parts.close()
        gone = leaving.gone
        del leaving
        release_memory()
        gone()

    def _take_work(self, *, wait: bool) -> bool:
        """Do what was asked for since the last step, after waiting for something to do if there was nothing.

        False when the engine closes; what ran has been cancelled then, and has ended.
        """
        while True:
            try:
                work = self._work.get(block=wait, timeout=ADAPTER_POLL_S if self._parts.batch.waiting else None)
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

    def _assembled(self, device: Device | None) -> EngineParts:
        from personas.engine.cpu_kernel import kernel_runner
        from personas.engine.engine_core import SchedulerLimits, build_engine_parts

        model = load_serving_model(self.base, self.precision, device)
        log.info("replies are computed on the %s in %s", model.device.type, precision_of(model))
        parts = build_engine_parts(
            model,
            base_model.fingerprint(self.base),
            SchedulerLimits(rows=self.rows),
            slots=self.slots,
            prefix_bytes=self.prefix_bytes,
            heard=lambda: self._work.put(_EngineTask(lambda: None, log.error)),
        )
        if parts.stacked and kernel_runner.supports_model(model):
            self._quicken(parts.stacked)
        return parts

    def _quicken(self, decoder: StackedLoraRunner) -> None:
        """Compute by the compiled kernel: now if it is there, else when it has been compiled."""
        from personas.engine.cpu_kernel import kernel_runner

        def use(library: CDLL) -> None:
            self._work.put(
                _EngineTask(lambda: kernel_runner.enable_kernel(library, decoder), lambda error: log.info("%s", error))
            )

        if library := kernel_runner.load_compiled():
            use(library)
        else:
            self._compiling = threading.Thread(
                target=kernel_runner.compile_kernel, args=(use,), name="compiling", daemon=True
            )
            self._compiling.start()

    def _accept(self, request: ChatRequest, stream: QueuedReplyStream, ended: Callable[[], None]) -> None:
        from personas.engine.sequence import EngineRequest

        sampling = request.sampling
        seed = secrets.randbits(31) if sampling.seed is None else sampling.seed
        room = self.context_tokens - sampling.max_new_tokens
        prompt = self._renderer.prompt(request.persona, request.turns, request.lore, room, request.instructions)
        text = StreamingDetokenizer(self._renderer, sampling.stop, stream.push, stop_loops=sampling.stop_loops)
        self._parts.batch.add(
            EngineRequest(request, prompt.ids, seed, stream, text, ended, prompt.text, prompt.shortened)
        )


def _safe_step(batch: BatchGenerator) -> bool:
    try:
        return batch.step()
    except Exception as error:  # nobody would hear of anything any more
        log.exception("the engine stumbled; all replies that were being made end")
        batch.fail(error)
        return False


def _resolve_threadsafe(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], error: Exception | None) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(_resolve_future, future, error)


def _resolve_future(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(None)
