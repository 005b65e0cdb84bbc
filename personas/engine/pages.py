"""Memory of the CPU in large pages, where the system has them.

A step reads the model, the adapters of all rows and their keys and values from end to end. In pages of 4 KiB the
processor spends much of that time looking up where they lie; Linux gives pages of 2 MiB to who asks for them.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from typing import Any

import torch

PAGE = 2 * 2**20
PIECE = 64
"""Bytes that a tensor begins at a multiple of: a cache line."""


def large_zeros(shape: Sequence[int], dtype: Any, device: Any) -> Any:
    """Zeros of this shape, in memory of their own; as torch makes them where there are no large pages."""
    size = math.prod(shape) * dtype.itemsize
    if torch.device(device).type != "cpu" or size < PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(*shape, dtype=dtype, device=device)
    return _taken(_pages(size), 0, shape, dtype)


def large_zeros_together(shapes: Sequence[Sequence[int]], dtype: Any, device: Any) -> list[Any]:
    """The same for many tensors that come and go together, side by side."""
    sizes = [math.prod(shape) * dtype.itemsize for shape in shapes]
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // PIECE) * PIECE
    whole = large_zeros((end,), torch.uint8, device)
    return [_taken(whole, start, shape, dtype) for start, shape in zip(starts, shapes, strict=True)]


def move_weights(model: Any) -> None:
    """Lay a model's parameters into large pages, one after the other, so that no two copies of all are held."""
    known = (weight for weight in model.parameters() if weight.is_floating_point() or weight.dtype == torch.int8)
    weights = [weight for weight in known if weight.is_contiguous()]
    if model.device.type != "cpu" or sum(weight.nbytes for weight in weights) < PAGE:
        return
    for dtype in {weight.dtype for weight in weights}:
        these = [weight for weight in weights if weight.dtype == dtype]
        places = large_zeros_together([weight.shape for weight in these], dtype, "cpu")
        for weight, place in zip(these, places, strict=True):
            weight.data = place.copy_(weight.data)


def _pages(size: int) -> Any:
    """So many bytes, from the beginning of a page on."""
    memory = mmap.mmap(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    return whole[-whole.data_ptr() % PAGE :][:size]


def _taken(whole: Any, start: int, shape: Sequence[int], dtype: Any) -> Any:
    return whole[start : start + math.prod(shape) * dtype.itemsize].view(dtype).view(*shape)
