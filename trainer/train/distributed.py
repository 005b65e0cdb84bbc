"""Distributed training of one adapter by several processes, as accelerate and torchrun start
them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from personas.errors import RequestError
from trainer.process.run_control import RunCancelled

COLLECTIVE_TIMEOUT = timedelta(days=7)
"""Long, because the others wait while the first process evaluates; a dead process is noticed at
once.
"""


@dataclass(frozen=True)
class DistributedContext:
    """This process's rank among those of a run. All processes must make the collective calls at the
    same points.
    """

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Tell whether this process reads, evaluates, reports and writes."""
        return self.index == 0

    @property
    def is_distributed(self) -> bool:
        """Tell whether there are several processes."""
        return self.count > 1

    def share(self, batch: int, accumulation: int) -> tuple[int, int]:
        """Return the batch size and accumulation per process that together make the step of a
        single process.

        Each process takes some batches of a step, or a part of each where there are too few. Raises
        `RequestError`.
        """
        batches = math.gcd(accumulation, self.count)
        parts = self.count // batches
        if batch % parts:
            raise RequestError(
                f"{self.count} processes cannot share steps of {accumulation} batches of {batch} "
                "samples evenly.",
                f"Set gradient_accumulation_steps to a multiple of {self.count}, or start fewer "
                "processes.",
            )
        return batch // parts, accumulation // batches

    def join(self) -> None:
        """Join the process group; on a machine with several GPUs, take one."""
        if self.is_distributed:
            import torch  # importing both takes seconds
            from accelerate import PartialState

            PartialState(cpu=not torch.cuda.is_available(), timeout=COLLECTIVE_TIMEOUT)

    def broadcast(self, value: Any = None) -> Any:
        """Return the first process's value in all of them."""
        if not self.is_distributed:
            return value
        from accelerate.utils import broadcast_object_list  # importing takes seconds

        return broadcast_object_list([value])[0]

    def sums(self, *numbers: float) -> list[float]:
        """Sum each number over all processes."""
        if not self.is_distributed:
            return list(numbers)
        from accelerate.utils import gather_object  # importing takes seconds

        return [math.fsum(each) for each in zip(*gather_object([numbers]), strict=True)]

    def agreeing(self, check: Callable[[], None]) -> Callable[[], None]:
        """Wrap `check` so that its `RunCancelled` is raised in all processes: the others would wait
        for that one.
        """

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
        """Seed this process's random numbers of a step, so that checkpoints need not store their
        state.
        """
        return ((seed * 1_000_003 + step) * self.count + self.index) % 2**63


def distributed_context(environ: Mapping[str, str]) -> DistributedContext:
    """Read the process group from the launcher's environment variables; a single process without
    them.
    """
    return DistributedContext(int(environ.get("RANK", 0)), int(environ.get("WORLD_SIZE", 1)))
