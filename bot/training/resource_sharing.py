"""Shares CPU and GPU between replies and training: pauses the trainer, and moves the engine off a
full GPU.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from bot.settings import Settings
from bot.store import TrainingJob
from bot.training.backend_protocol import OnEvent, RunResult, TrainingBackend
from personas.engine import Engine, ReplyStream
from personas.engine.llm_engine import LLMEngine
from personas.errors import UnderstudyError
from personas.models.serving_model import Device, free_gpu_bytes, has_gpu
from personas.schemas.chat import ChatReply, ChatRequest
from personas.schemas.training_events import PauseDemand, Phase

RELEASE_DELAY_S = 1.0
"""Pause between the last reply and the trainer's resumption: in a conversation the next reply
follows soon.
"""
log = logging.getLogger(__name__)
GPU: Device = "cuda"
CPU: Device = "cpu"
GIB = 2**30
GPU_DRIVER_FILES = ("/dev/nvidiactl", "/dev/kfd")
"""Of NVIDIA's and AMD's drivers on Linux."""
OFFLOAD_TEXT = (
    "the GPU's memory is needed: until the training ends, replies are generated on the CPU, more "
    "slowly"
)


def shares_processor(settings: Settings, engine: Engine) -> bool:
    """Report whether replies and trainings are computed by this machine's processor, and so slow
    each other down.

    Trainings take the GPU if there is one. The engine may have moved off it (`GpuOffloadBackend`).
    """
    if settings.trainer != "local":
        return False
    if isinstance(engine, LLMEngine):
        return engine.device == CPU and not has_gpu()
    hosts = [urlsplit(url).hostname for url in settings.engine_urls]
    is_here = any(host not in settings.engine_hosts for host in hosts)
    return is_here and not has_gpu_driver()


def has_gpu_driver() -> bool:
    """Report whether a GPU can be seen without torch, which a bot over servers does not load."""
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not is_hidden and any(Path(name).exists() for name in GPU_DRIVER_FILES)


class TrainerThrottle:
    """Pauses the trainer while replies are generated, most of all until their first words."""

    def __init__(
        self,
        hold: Callable[[PauseDemand], None],
        shares_processor: Callable[[], bool] = lambda: True,
    ) -> None:
        """`hold` is called whenever the demand changes; with `go`, `RELEASE_DELAY_S` after the last
        reply.

        Nothing is held while `shares_processor` is False: replies gain nothing then.
        """
        self._hold = hold
        self._shares_processor = shares_processor
        self._demand: PauseDemand = "go"
        self._silent: set[ReplyStream] = set()
        self._begun: set[ReplyStream] = set()
        self._release_timer: asyncio.TimerHandle | None = None

    @property
    def is_asked(self) -> bool:
        """Report whether the trainer should pause."""
        return self._demand != "go"

    def submit(self, engine: Engine, request: ChatRequest) -> ReplyStream:
        """Submit a request, and hold the trainer until the stream ends or is cancelled.

        Use it on the event loop. Raises as `Engine.submit`.
        """
        stream = _HoldingStream(engine.submit(request), self)
        self._silent.add(stream)
        self._update()
        return stream

    def begin(self, stream: ReplyStream) -> None:
        """Record that a stream has its first words."""
        if stream in self._silent:
            self._silent.remove(stream)
            self._begun.add(stream)
            self._update()

    def end(self, stream: ReplyStream) -> None:
        """Record that a stream has ended; may be called twice."""
        if stream in self._silent | self._begun:
            self._silent.discard(stream)
            self._begun.discard(stream)
            self._update()

    def _update(self) -> None:
        if self._release_timer:
            self._release_timer.cancel()
            self._release_timer = None
        # First words are waited for; what follows is read more slowly than it is generated, so that
        # the trainer may compute beside it.
        if (self._silent or self._begun) and self._shares_processor():
            self._ask("hold" if self._silent else "yield")
        else:
            self._release_timer = asyncio.get_running_loop().call_later(
                RELEASE_DELAY_S, self._ask, "go"
            )

    def _ask(self, demand: PauseDemand) -> None:
        if demand != self._demand:
            self._demand = demand
            self._hold(demand)


class _HoldingStream:
    """A stream that tells the throttle when it begins and ends."""

    def __init__(self, stream: ReplyStream, throttle: TrainerThrottle) -> None:
        self._stream = stream
        self._throttle = throttle

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            async for piece in self._stream:
                # White space shows the member nothing yet.
                if piece.strip():
                    self._throttle.begin(self)
                yield piece
        finally:
            self._throttle.end(self)

    @property
    def reply(self) -> ChatReply:
        return self._stream.reply

    def cancel(self) -> None:
        self._stream.cancel()
        self._throttle.end(self)


class MovableEngine(Protocol):
    """An engine that can compute on another device."""

    @property
    def device(self) -> str: ...

    async def move(self, device: Device) -> None:
        """Move to another device. Raises `UnderstudyError`, and changes nothing, where that
        fails.
        """
        ...


class GpuOffloadBackend:
    """A backend that moves the engine off the GPU while a run needs its memory; it forwards to
    another backend.
    """

    def __init__(
        self,
        backend: TrainingBackend,
        engine: MovableEngine,
        free_bytes: Callable[[], int] = free_gpu_bytes,
    ) -> None:
        """`free_bytes` returns the free memory of the GPU, without the engine's."""
        self._backend = backend
        self._engine = engine
        self._free_bytes = free_bytes
        self.slots = backend.slots
        self.check = backend.check
        self.plan = backend.plan
        self.cancel = backend.cancel
        self.detach = backend.detach
        self.hold = backend.hold
        self.adopt = backend.adopt

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Train to the end; meanwhile replies are generated on the CPU if need be."""
        is_on_gpu = self._engine.device == GPU
        if not (is_on_gpu and await self._is_needed(job) and await self._move(CPU)):
            return await self._backend.run(job, on_event)
        log.warning("the job %s begins: %s", job.job_id, OFFLOAD_TEXT)
        on_event(Phase(name="base model", detail=OFFLOAD_TEXT))
        try:
            return await self._backend.run(job, on_event)
        finally:
            if await self._move(GPU):
                log.info("the job %s has ended: replies are generated on the GPU again", job.job_id)

    async def _is_needed(self, job: TrainingJob) -> bool:
        """Report whether the run needs more memory than is free; False when unknown."""
        try:
            plan = await self._backend.plan(job.request, job.guild_id)
        except UnderstudyError as error:
            log.info("the memory that the job %s needs is unknown: %s", job.job_id, error)
            return False
        own = [estimate for estimate in plan.recipes if estimate.recipe == job.request.recipe]
        needed = max((estimate.memory_bytes for estimate in own or plan.recipes), default=0)
        free = self._free_bytes()
        log.info(
            "the job %s needs %.1f GiB of the GPU, %.1f are free",
            job.job_id,
            needed / GIB,
            free / GIB,
        )
        return needed > free

    async def _move(self, device: Device) -> bool:
        try:
            await self._engine.move(device)
        except UnderstudyError as error:
            # The training reports itself what it lacks; replies stay on their device.
            log.warning("replies cannot be generated on the %s: %s", device, error)
            return False
        return True
