"""Shares CPU and GPU between replies and training: pauses the trainer, and moves the engine off a full GPU."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

from bot.store import TrainingJob
from bot.training.subprocess_backend import OnEvent, RunResult, TrainingBackend
from bot.training.training_plan import TrainingPlan
from personas.errors import UnderstudyError
from personas.models.serving_model import Device, free_gpu_bytes
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Phase

RELEASE_DELAY_S = 1.0
"""Delay after the last reply before the trainer resumes: in a conversation the next one often follows at once."""
log = logging.getLogger(__name__)
GPU: Device = "cuda"
CPU: Device = "cpu"
GIB = 2**30
OFFLOAD_TEXT = "the GPU's memory is needed: replies are made on the processor until the training ends, and slower"


class TrainerThrottle:
    """Counts the replies that wait or are being made, and says when there are some and when there are none."""

    def __init__(self, hold: Callable[[bool], None]) -> None:
        """`hold` is told True with the first reply, False some time after the last."""
        self._hold = hold
        self._replies = 0
        self._letting_go: asyncio.TimerHandle | None = None

    @property
    def is_asked(self) -> bool:
        """Report whether the trainer should pause."""
        return bool(self._replies or self._letting_go)

    @contextmanager
    def reply(self) -> Iterator[None]:
        """A reply is asked for and made inside the block. To be used on the event loop."""
        if self._letting_go:
            self._letting_go.cancel()
            self._letting_go = None
        elif not self._replies:
            self._hold(True)
        self._replies += 1
        try:
            yield
        finally:
            self._replies -= 1
            if not self._replies:
                self._letting_go = asyncio.get_running_loop().call_later(RELEASE_DELAY_S, self._let_go)

    def _let_go(self) -> None:
        self._letting_go = None
        self._hold(False)


class MovableEngine(Protocol):
    """An engine that can compute on another device."""

    @property
    def device(self) -> str:
        """Device of the engine."""
        ...

    async def move(self, device: Device) -> None:
        """Compute on another device. Raises `UnderstudyError`, and changes nothing, where that cannot be."""
        ...


class GpuOffloadBackend:
    """A backend that trains with room on the GPU; everything else is the other backend's."""

    def __init__(
        self, backend: TrainingBackend, engine: MovableEngine, free_bytes: Callable[[], int] = free_gpu_bytes
    ) -> None:
        """`free_bytes` says how much of the GPU's memory is free now, beside the engine."""
        self._backend, self._engine, self._free_bytes = backend, engine, free_bytes
        self.check, self.cancel, self.hold = backend.check, backend.cancel, backend.hold

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> TrainingPlan:
        """Plan a run."""
        return await self._backend.plan(request, guild_id)

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Train to the end, with replies made elsewhere meanwhile if need be."""
        async with self._room(job, on_event):
            return await self._backend.run(job, on_event)

    @asynccontextmanager
    async def _room(self, job: TrainingJob, on_event: OnEvent) -> AsyncIterator[None]:
        if self._engine.device != GPU or not await self._is_needed(job) or not await self._moved(CPU):
            yield
            return
        log.warning("the job %s begins: %s", job.job_id, OFFLOAD_TEXT)
        on_event(Phase(name="base model", detail=OFFLOAD_TEXT))
        try:
            yield
        finally:
            if await self._moved(GPU):
                log.info("the job %s has ended: replies are made on the GPU again", job.job_id)

    async def _is_needed(self, job: TrainingJob) -> bool:
        """Report whether the run needs more memory than is free; False when unknown."""
        try:
            plan = await self._backend.plan(job.request, job.guild_id)
        except UnderstudyError as error:
            log.info("what the job %s takes is not known: %s", job.job_id, error)
            return False
        asked = [found for found in plan.recipes if found.recipe == job.request.recipe] or plan.recipes
        needed, free = max((found.memory_bytes for found in asked), default=0), self._free_bytes()
        log.info("the job %s takes %.1f GiB of the GPU, %.1f are free", job.job_id, needed / GIB, free / GIB)
        return needed > free

    async def _moved(self, device: Device) -> bool:
        try:
            await self._engine.move(device)
        except UnderstudyError as error:  # the training says itself what it lacks; replies go on where they are made
            log.warning("replies cannot be made on the %s: %s", device, error)
            return False
        return True
