"""Distributed training of one adapter by several processes, as accelerate and torchrun start them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from personas.errors import RequestError
from trainer.process.cancellation import RunCancelled

COLLECTIVE_TIMEOUT = timedelta(days=7)
"""Long, because the others wait while the first process evaluates; a dead process is noticed at once."""


@dataclass(frozen=True)
class DistributedContext:
    """This process's number among all of a run. What they tell each other, all have to call at the same point."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Tells whether this process reads, evaluates, reports and writes."""
        return self.index == 0

    @property
    def is_distributed(self) -> bool:
        """Tells whether there are several processes."""
        return self.count > 1

    def share(self, batch: int, accumulation: int) -> tuple[int, int]:
        """Batch and accumulation of each process, with which all together make the step of one.

        Each takes some of the batches of a step, or, where there are too few, a part of each. Raises `RequestError`.
        """
        batches = math.gcd(accumulation, self.count)
        parts = self.count // batches
        if batch % parts:
            raise RequestError(
                f"{self.count} processes cannot share steps of {accumulation} batches of {batch} samples evenly.",
                f"Set gradient_accumulation_steps to a multiple of {self.count}, or start fewer processes.",
            )
        return batch // parts, accumulation // batches

    def join(self) -> None:
        """Meet the others; on a machine with several GPUs, take one."""
        if self.is_distributed:
            import torch
            from accelerate import PartialState

            PartialState(cpu=not torch.cuda.is_available(), timeout=COLLECTIVE_TIMEOUT)

    def told(self, what: Any = None) -> Any:
        """Broadcasts the first process's value to the others."""
        if not self.is_distributed:
            return what
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([what])[0]

    def sums(self, *numbers: float) -> list[float]:
        """Each number added up over all processes."""
        if not self.is_distributed:
            return list(numbers)
        from accelerate.utils import gather_object

        return [math.fsum(each) for each in zip(*gather_object([numbers]), strict=True)]

    def agreeing(self, check: Callable[[], None]) -> Callable[[], None]:
        """A check that raises `RunCancelled` in all processes where it does in one: the others would wait for it."""

        def agreed() -> None:
            stopped = None
            try:
                check()
            except RunCancelled as error:
                stopped = error
            if any(self.sums(stopped is not None)):
                raise stopped or RunCancelled("another process of this run was asked to stop")

        return agreed if self.is_distributed else check

    def seed(self, seed: int, step: int) -> int:
        """Of this process's random numbers in a step: so checkpoints, which the first writes, need not keep them."""
        return ((seed * 1_000_003 + step) * self.count + self.index) % 2**63


def distributed_context(environ: Mapping[str, str]) -> DistributedContext:
    """Reads the process group from the launcher's environment variables; a single process without them."""
    return DistributedContext(int(environ.get("RANK", 0)), int(environ.get("WORLD_SIZE", 1)))
