"""Shares CPU and GPU between replies and training: pauses the trainer, and moves the engine off a full GPU."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from bot.store import TrainingJob
from bot.training.queue import OnEvent, RunResult, TrainingBackend
from personas.errors import UnderstudyError
from personas.models.serving_model import Device, free_gpu_bytes
from personas.schemas.training_events import Phase

RELEASE_DELAY_S = 1.0
"""Pause between the last reply and the trainer's resumption: in a conversation the next reply follows soon."""
log = logging.getLogger(__name__)
GPU: Device = "cuda"
CPU: Device = "cpu"
GIB = 2**30
OFFLOAD_TEXT = "the GPU's memory is needed: until the training ends, replies are generated on the CPU, more slowly"


class TrainerThrottle:
    """Pauses the trainer while replies wait or are generated."""

    def __init__(self, hold: Callable[[bool], None]) -> None:
        """`hold` is called with True at the first reply, and with False `RELEASE_DELAY_S` after the last."""
        self._hold = hold
        self._replies = 0
        self._release_timer: asyncio.TimerHandle | None = None

    @property
    def is_asked(self) -> bool:
        """Report whether the trainer should pause."""
        return bool(self._replies or self._release_timer)

    @contextmanager
    def reply(self) -> Iterator[None]:
        """Hold the trainer inside the block. Use it on the event loop."""
        if self._release_timer:
            self._release_timer.cancel()
            self._release_timer = None
        elif not self._replies:
            self._hold(True)
        self._replies += 1
        try:
            yield
        finally:
            self._replies -= 1
            if not self._replies:
                self._release_timer = asyncio.get_running_loop().call_later(RELEASE_DELAY_S, self._release)

    def _release(self) -> None:
        self._release_timer = None
        self._hold(False)


class MovableEngine(Protocol):
    """An engine that can compute on another device."""

    @property
    def device(self) -> str: ...

    async def move(self, device: Device) -> None:
        """Move to another device. Raises `UnderstudyError`, and changes nothing, where that fails."""
        ...


class GpuOffloadBackend:
    """A backend that moves the engine off the GPU while a run needs its memory; it forwards to another backend."""

    def __init__(
        self, backend: TrainingBackend, engine: MovableEngine, free_bytes: Callable[[], int] = free_gpu_bytes
    ) -> None:
        """`free_bytes` returns the free memory of the GPU, without the engine's."""
        self._backend, self._engine, self._free_bytes = backend, engine, free_bytes
        self.slots, self.check, self.plan = backend.slots, backend.check, backend.plan
        self.cancel, self.detach, self.hold = backend.cancel, backend.detach, backend.hold
        self.adopt = backend.adopt

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Train to the end; meanwhile replies are generated on the CPU if need be."""
        if self._engine.device != GPU or not await self._is_needed(job) or not await self._move(CPU):
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
        estimates = [it for it in plan.recipes if it.recipe == job.request.recipe] or plan.recipes
        needed, free = max((it.memory_bytes for it in estimates), default=0), self._free_bytes()
        log.info("the job %s needs %.1f GiB of the GPU, %.1f are free", job.job_id, needed / GIB, free / GIB)
        return needed > free

    async def _move(self, device: Device) -> bool:
        try:
            await self._engine.move(device)
        except UnderstudyError as error:  # the training reports itself what it lacks; replies stay on their device
            log.warning("replies cannot be generated on the %s: %s", device, error)
            return False
        return True
