"""CUDA graphs: a computation is recorded once and told to the GPU again in a single call."""

from collections.abc import Callable
from typing import Any

import torch

Compute = Callable[[], Any]
Capture = Callable[[Compute], Compute]
"""Records a computation over tensors that stay where they are; what it returns computes again, and
returns the same tensor with new values.
"""


class CudaGraphs:
    """Captures graphs that share one memory pool: what one of them returned is undefined once
    another one has computed.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Compute) -> Compute:
        self._warm_up(compute)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            returned = compute()

        def replay() -> Any:
            graph.replay()
            return returned

        return replay

    def _warm_up(self, compute: Compute) -> None:
        """Compute once: libraries allocate at their first use, which cannot be captured."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            compute()
        torch.cuda.current_stream().wait_stream(stream)
