"""Where a training needs memory of the GPU that replies are made on: both there if they fit, else replies move away.

They are made on the processor then, slower, until the training has ended. Without a GPU nothing of this happens.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from bot.outcome import Outcome
from bot.preview import Plan
from bot.store import Job
from bot.training import OnEvent, TrainingBackend
from personas.contracts import TrainingRequest
from personas.errors import UnderstudyError
from personas.serving import Device, free_gpu_bytes
from personas.training_events import Phase

log = logging.getLogger(__name__)

GPU: Device = "cuda"
CPU: Device = "cpu"
GIB = 2**30
MOVED = "the GPU's memory is needed: replies are made on the processor until the training ends, and slower"


class Moves(Protocol):
    """An engine that can compute on another device."""

    @property
    def device(self) -> str:
        """Where it computes."""
        ...

    async def move(self, device: Device) -> None:
        """Compute on another device. Raises `UnderstudyError`, and changes nothing, where that cannot be."""
        ...


class MakingRoom:
    """A backend that trains with room on the GPU; everything else is the other backend's."""

    def __init__(self, backend: TrainingBackend, engine: Moves, free_bytes: Callable[[], int] = free_gpu_bytes) -> None:
        """`free_bytes` says how much of the GPU's memory is free now, beside the engine."""
        self._backend, self._engine, self._free_bytes = backend, engine, free_bytes
        self.check, self.cancel, self.hold = backend.check, backend.cancel, backend.hold

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> Plan:
        """What a run would do."""
        return await self._backend.plan(request, guild_id)

    async def run(self, job: Job, on_event: OnEvent) -> Outcome:
        """Train to the end, with replies made elsewhere meanwhile if need be."""
        async with self._room(job, on_event):
            return await self._backend.run(job, on_event)

    @asynccontextmanager
    async def _room(self, job: Job, on_event: OnEvent) -> AsyncIterator[None]:
        if self._engine.device != GPU or not await self._is_needed(job) or not await self._moved(CPU):
            yield
            return
        log.warning("the job %s begins: %s", job.job_id, MOVED)
        on_event(Phase(name="base model", detail=MOVED))
        try:
            yield
        finally:
            if await self._moved(GPU):
                log.info("the job %s has ended: replies are made on the GPU again", job.job_id)

    async def _is_needed(self, job: Job) -> bool:
        """Whether the run needs more than is free. Where nobody can say, replies stay where they are."""
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
