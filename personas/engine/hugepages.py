"""CPU tensors in huge pages."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from typing import Any

import torch

HUGE_PAGE_BYTES = 2 * 2**20
ALIGNMENT_BYTES = 64
"""Bytes that a tensor begins at a multiple of: a cache line."""


def zeros_in_huge_pages(shape: Sequence[int], dtype: Any, device: Any) -> Any:
    """Zeros of this shape, in memory of their own; as torch makes them where there are no large pages."""
    size = math.prod(shape) * dtype.itemsize
    if torch.device(device).type != "cpu" or size < HUGE_PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(*shape, dtype=dtype, device=device)
    return _tensor_view(_map_huge_pages(size), 0, shape, dtype)


def packed_zeros_in_huge_pages(shapes: Sequence[Sequence[int]], dtype: Any, device: Any) -> list[Any]:
    """The same for many tensors that come and go together, side by side."""
    sizes = [math.prod(shape) * dtype.itemsize for shape in shapes]
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    whole = zeros_in_huge_pages((end,), torch.uint8, device)
    return [_tensor_view(whole, start, shape, dtype) for start, shape in zip(starts, shapes, strict=True)]


def move_weights_to_huge_pages(model: Any) -> None:
    """Lay a model's parameters into large pages, one after the other, so that no two copies of all are held."""
    known = (weight for weight in model.parameters() if weight.is_floating_point() or weight.dtype == torch.int8)
    weights = [weight for weight in known if weight.is_contiguous()]
    if model.device.type != "cpu" or sum(weight.nbytes for weight in weights) < HUGE_PAGE_BYTES:
        return
    for dtype in {weight.dtype for weight in weights}:
        these = [weight for weight in weights if weight.dtype == dtype]
        places = packed_zeros_in_huge_pages([weight.shape for weight in these], dtype, "cpu")
        for weight, place in zip(these, places, strict=True):
            weight.data = place.copy_(weight.data)


def _map_huge_pages(size: int) -> Any:
    """So many bytes, from the beginning of a page on."""
    memory = mmap.mmap(-1, size + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    return whole[-whole.data_ptr() % HUGE_PAGE_BYTES :][:size]


def _tensor_view(whole: Any, start: int, shape: Sequence[int], dtype: Any) -> Any:
    return whole[start : start + math.prod(shape) * dtype.itemsize].view(dtype).view(*shape)
