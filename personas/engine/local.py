"""The engine in this process: a thread that owns the model and answers one request after the other.

The event loop hands requests over through a queue and gets pieces of text back as they are made; it is never blocked.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from personas import base_model
from personas.base_model import BaseModel, Precision
from personas.contracts import AdapterRef, ChatRequest, Reply
from personas.engine.text import StreamedText
from personas.engine.weights import AdaptedModel
from personas.errors import EngineBusyError
from personas.prompt import Renderer

log = logging.getLogger(__name__)

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
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def finish(self, reply: Reply) -> None:
        """From the engine's thread: the reply is complete."""
        self._reply = reply
        self.push(_END)


@dataclass(frozen=True)
class _Work:
    """What the engine's thread does next; `fail` tells whoever waits that it could not."""

    run: Callable[[], None]
    fail: Callable[[Exception], None]


@dataclass
class LocalEngine:
    """Answers with transformers and peft, first come, first served.

    Prompt and reply together hold at most `context_tokens`. More than `max_waiting` waiting replies are refused.
    """

    base: BaseModel
    precision: Precision
    threads: int | None = None
    max_waiting: int = 64
    context_tokens: int = 2048
    _work: queue.SimpleQueue[_Work | None] = field(default_factory=queue.SimpleQueue, init=False)
    _streams: set[LocalReplyStream] = field(default_factory=set, init=False)

    async def start(self) -> None:
        """Load the base model. Raises `BaseModelError`."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._own_model, args=(loop, ready), name="engine", daemon=True)
        self._thread.start()
        await ready

    def submit(self, request: ChatRequest) -> LocalReplyStream:
        if len(self._streams) >= self.max_waiting:
            raise EngineBusyError(f"{len(self._streams)} replies are waiting already.", "Try again in a minute.")
        stream = LocalReplyStream(asyncio.get_running_loop(), request.adapter.version if request.adapter else None)
        self._streams.add(stream)
        self._work.put(_Work(lambda: self._answer(request, stream), lambda error: self._fail(stream, error)))
        return stream

    async def load(self, adapter: AdapterRef) -> None:
        await self._done(lambda: self._model.load(adapter))

    async def drop(self, adapter: AdapterRef) -> None:
        await self._done(lambda: self._model.drop(adapter))

    async def _done(self, what: Callable[[], None]) -> None:
        """Have the engine's thread do something, and wait for it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def run() -> None:
            what()
            loop.call_soon_threadsafe(_settle, done, None)

        self._work.put(_Work(run, lambda error: _tell(loop, done, error)))
        await done

    async def close(self) -> None:
        for stream in list(self._streams):
            stream.cancel()
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)

    # ------------------------------------------------------------------------------ on the engine's thread

    def _own_model(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[None]) -> None:
        try:
            self._load_base()
        except Exception as error:
            _tell(loop, ready, error)
            return
        loop.call_soon_threadsafe(_settle, ready, None)
        while (work := self._work.get()) is not None:
            try:
                work.run()
            except Exception as error:  # told to whoever asked; the engine goes on with the next
                log.debug("a request failed", exc_info=True)
                work.fail(error)

    def _load_base(self) -> None:
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)
        self._renderer = Renderer(base_model.load_tokenizer(self.base))
        model = base_model.load_model(self.base, self.precision)
        self._model = AdaptedModel(model, base_model.fingerprint(self.base))

    def _answer(self, request: ChatRequest, stream: LocalReplyStream) -> None:
        try:
            if stream.begin():
                stream.finish(self._generate(request, stream))
        finally:
            self._streams.discard(stream)

    def _fail(self, stream: LocalReplyStream, error: Exception) -> None:
        stream.push(error)

    def _generate(self, request: ChatRequest, stream: LocalReplyStream) -> Reply:
        import torch

        sampling = request.sampling
        seed = secrets.randbits(31) if sampling.seed is None else sampling.seed
        room = self.context_tokens - sampling.max_new_tokens
        prompt = self._renderer.prompt(request.persona, request.turns, request.lore, room)
        text = StreamedText(self._renderer, sampling.stop, stream.push, stop_loops=sampling.stop_loops)
        with self._model.use(request.adapter), torch.inference_mode():
            torch.manual_seed(seed)
            self._model.model.generate(**self._arguments(request, prompt.ids, text, stream))
        text.end()
        cancelled = stream.cancelled.is_set()
        finish: Literal["stop", "length", "cancelled"] = (
            "stop" if text.stopped else "cancelled" if cancelled else "length"
        )
        version = request.adapter.version if request.adapter else None
        return Reply(text.text, version, seed, len(prompt.ids), text.tokens, finish)

    def _arguments(
        self, request: ChatRequest, ids: tuple[int, ...], text: StreamedText, stream: LocalReplyStream
    ) -> dict[str, Any]:
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList

        class Cancelled(StoppingCriteria):  # type: ignore[misc]
            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                stop = stream.cancelled.is_set() or text.stopped
                return torch.full((input_ids.shape[0],), stop, dtype=torch.bool, device=input_ids.device)

        sampling, drawn = request.sampling, request.sampling.temperature > 0
        prompt = torch.tensor([ids], device=self._model.model.device)
        return {
            "input_ids": prompt,
            "attention_mask": torch.ones_like(prompt),
            "max_new_tokens": sampling.max_new_tokens,
            "do_sample": drawn,
            **({"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0} if drawn else {}),
            "repetition_penalty": sampling.repetition_penalty,
            "eos_token_id": list(self._renderer.stop_ids),
            "pad_token_id": self._renderer.stop_ids[0],
            "stopping_criteria": StoppingCriteriaList([Cancelled()]),
            "streamer": text,
        }


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(None)


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], error: Exception) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(_settle, future, error)
