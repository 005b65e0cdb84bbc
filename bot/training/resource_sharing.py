"""Shares CPU and GPU between replies and training: pauses the trainer, and moves the engine off a
full GPU.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from bot.settings import Settings
from bot.store import TrainingJob
from bot.training.backend_protocol import (
    OnEvent,
    RunResult,
    TrainingBackend,
    TrainingInterrupted,
)
from personas.engine import Engine, ReplyStream
from personas.engine.llm_engine import LLMEngine
from personas.errors import UnderstudyError
from personas.models.graphics_cards import list_gpus
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
PACKED_TEXT = (
    "the GPU's memory is needed: until the training ends, replies are generated with weights in NF4"
)
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
    # Without addresses, the bot runs the server itself.
    is_here = not hosts or any(host not in settings.engine_hosts for host in hosts)
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


def free_card_bytes() -> int:
    """Return the free memory of the card as its driver tells it, without torch; 0 without one."""
    return next((card.free_bytes for card in list_gpus()), 0)


class MovableEngine(Protocol):
    """An engine that can compute on another device."""

    @property
    def device(self) -> str: ...

    @property
    def packing_frees_bytes(self) -> int:
        """Bytes of the card that become free where the weights are packed to NF4; 0 where they
        cannot be.
        """

    async def move(self, device: Device, *, packs: bool = False, reserved_bytes: int = 0) -> None:
        """Move to another device, or to weights packed to NF4 on the card, such that so many bytes
        of the card stay free. Raises `UnderstudyError`, and changes nothing, where that fails.
        """
        ...


class GpuOffloadBackend:
    """A backend that moves the engine off the GPU while a run needs its memory; it forwards to
    another backend, of one run at a time.
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
        self._is_stranded = False
        # The other backend learns of a run only once there is room for it.
        self._job_id = ""
        self._is_stopped = False
        self.slots = backend.slots
        self.trains_on_cpu = backend.trains_on_cpu
        self.check = backend.check
        self.plan = backend.plan
        self.accept_written = backend.accept_written
        self.hold = backend.hold
        self.adopt = backend.adopt

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Train to the end; meanwhile replies are generated with weights in NF4, or on the CPU, if
        need be.
        """
        return await self._with_room(job, on_event, self._backend.run)

    async def complete_card(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Complete a score card; replies are generated as during a training."""
        return await self._with_room(job, on_event, self._backend.complete_card)

    def cancel(self, job_id: str) -> None:
        """Stop the job's run, also while room is made for it; does nothing for other jobs."""
        if job_id == self._job_id:
            self._is_stopped = True
        self._backend.cancel(job_id)

    def detach(self) -> None:
        """Leave the run as the other backend does; one that waits for room does not begin."""
        self._is_stopped = True
        self._backend.detach()

    async def _with_room(
        self,
        job: TrainingJob,
        on_event: OnEvent,
        run: Callable[[TrainingJob, OnEvent], Awaitable[RunResult]],
    ) -> RunResult:
        self._job_id = job.job_id
        self._is_stopped = False
        moved = ""
        if self._engine.device == GPU:
            moved = await self._make_room(await self._needed_bytes(job))
        elif self._is_stranded and await self._move(CPU):  # it may try to return by itself
            moved = OFFLOAD_TEXT
        try:
            if self._is_stopped:
                return TrainingInterrupted()
            if moved:
                log.warning("the job %s begins: %s", job.job_id, moved)
                on_event(Phase(name="material", detail=moved))
            return await run(job, on_event)
        finally:
            if moved:
                await self._return_to_gpu(job)

    async def _return_to_gpu(self, job: TrainingJob) -> None:
        self._is_stranded = not await self._move(GPU)
        if not self._is_stranded:
            log.info("the job %s has ended: replies are generated on the GPU again", job.job_id)

    async def _make_room(self, needed_bytes: int) -> str:
        """Have the engine free the card's memory where a run needs so many bytes and fewer are
        free; returns what members should know of it, empty if nothing changed.
        """
        missing = needed_bytes - self._free_bytes()
        if missing <= 0 or self._is_stopped:
            return ""
        can_pack = missing <= self._engine.packing_frees_bytes
        if can_pack and await self._move(GPU, packs=True, reserved_bytes=needed_bytes):
            return PACKED_TEXT
        return OFFLOAD_TEXT if await self._move(CPU) else ""

    async def _needed_bytes(self, job: TrainingJob) -> int:
        """Return the memory that the run needs; 0 when unknown."""
        try:
            plan = await self._backend.plan(job.request, job.guild_id)
        except UnderstudyError as error:
            log.info("the memory that the job %s needs is unknown: %s", job.job_id, error)
            return 0
        own = [estimate for estimate in plan.recipes if estimate.recipe == job.request.recipe]
        needed = max((estimate.memory_bytes for estimate in own or plan.recipes), default=0)
        log.info(
            "the job %s needs %.1f GiB of the GPU, %.1f are free",
            job.job_id,
            needed / GIB,
            self._free_bytes() / GIB,
        )
        return needed

    async def _move(self, device: Device, *, packs: bool = False, reserved_bytes: int = 0) -> bool:
        try:
            await self._engine.move(device, packs=packs, reserved_bytes=reserved_bytes)
        except UnderstudyError as error:
            # The training reports itself what it lacks; replies stay on their device.
            log.warning("replies cannot be generated on the %s: %s", device, error)
            return False
        return True
