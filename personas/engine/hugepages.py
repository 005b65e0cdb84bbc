"""CPU tensors in pages of 2 MiB, which need fewer address look-ups than pages of 4 KiB."""

import math
import mmap
from collections.abc import Sequence
from typing import Any

import torch

HUGE_PAGE_BYTES = 2 * 2**20
ALIGNMENT_BYTES = 64  # alignment of packed tensors: a cache line


def zeros_in_huge_pages(shape: Sequence[int], dtype: Any, device: Any) -> Any:
    """Allocate zeros in huge pages; torch allocates small tensors and those where there are no huge
    pages.
    """
    size = math.prod(shape) * dtype.itemsize
    if (
        torch.device(device).type != "cpu"
        or size < HUGE_PAGE_BYTES
        or not hasattr(mmap, "MADV_HUGEPAGE")
    ):
        return torch.zeros(*shape, dtype=dtype, device=device)
    return _tensor_view(_map_huge_pages(size), 0, shape, dtype)


def packed_zeros_in_huge_pages(
    shapes: Sequence[Sequence[int]], dtype: Any, device: Any
) -> list[Any]:
    """Allocate tensors of zeros side by side in one block, which is freed with the last of them."""
    sizes = [math.prod(shape) * dtype.itemsize for shape in shapes]
    starts = []
    end = 0
    for size in sizes:
        starts.append(end)
        end += -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    block = zeros_in_huge_pages((end,), torch.uint8, device)
    places = zip(starts, shapes, strict=True)
    return [_tensor_view(block, start, shape, dtype) for start, shape in places]


def move_weights_to_huge_pages(model: Any) -> None:
    """Copy a model's parameters into huge pages one after the other, so that only one is held twice
    at a time.
    """
    weights = []
    for weight in model.parameters():
        is_number = weight.is_floating_point() or weight.dtype == torch.int8
        if is_number and weight.is_contiguous():
            weights.append(weight)
    if model.device.type != "cpu" or sum(weight.nbytes for weight in weights) < HUGE_PAGE_BYTES:
        return
    for dtype in {weight.dtype for weight in weights}:
        of_dtype = [weight for weight in weights if weight.dtype == dtype]
        copies = packed_zeros_in_huge_pages([weight.shape for weight in of_dtype], dtype, "cpu")
        for weight, copy in zip(of_dtype, copies, strict=True):
            weight.data = copy.copy_(weight.data)


def _map_huge_pages(size: int) -> Any:
    """Map memory that starts at a huge page's boundary, as a tensor of bytes."""
    memory = mmap.mmap(-1, size + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    block = torch.frombuffer(memory, dtype=torch.uint8)
    return block[-block.data_ptr() % HUGE_PAGE_BYTES :][:size]


def _tensor_view(block: Any, start: int, shape: Sequence[int], dtype: Any) -> Any:
    return block[start : start + math.prod(shape) * dtype.itemsize].view(dtype).view(*shape)
