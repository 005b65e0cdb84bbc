"""Keys and values of all sequences in one pool of blocks (PagedAttention, arXiv 2309.06180).

The pool's address never changes, as CUDA graphs need it, and sequences share the blocks that they
begin with. A block is free again once no sequence and no prefix cache refers to it.
"""

import weakref
from array import array
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch

from personas.engine.device_copy import copy_to_device
from personas.engine.hugepages import zeros_in_huge_pages
from personas.engine.kv_cache import BLOCK_TOKENS, CacheShape

ZERO_BLOCK = 0
"""Number of the block that stands for those that a sequence does not have; it is always zero."""
UNUSED_BLOCK = 1
"""Number of the block in which rows without a sequence write."""
UNUSED_PLACE = UNUSED_BLOCK * BLOCK_TOKENS
RESERVED_BLOCKS = 2


class PoolBlock:
    """A block of a pool, which is free again once nothing refers to this object."""

    def __init__(self, number: int, nbytes: int) -> None:
        self.number = number
        self.nbytes = nbytes


class KVPool:
    """Blocks of keys and values, `memory` `[layers, 2, blocks, BLOCK_TOKENS, heads, width]`.

    Used by one thread.
    """

    def __init__(self, shape: CacheShape, kv_bytes: int) -> None:
        """Allocate as many blocks as `kv_bytes` hold, and the reserved ones."""
        self.block_bytes = BLOCK_TOKENS * shape.token_bytes
        self.device = shape.device
        blocks = max(1, kv_bytes // self.block_bytes)
        size = (shape.layers, 2, RESERVED_BLOCKS + blocks, BLOCK_TOKENS, shape.heads, shape.width)
        self.memory = zeros_in_huge_pages(size, shape.dtype, shape.device)
        self._free = list(range(RESERVED_BLOCKS + blocks - 1, RESERVED_BLOCKS - 1, -1))

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    def reserve(self, sequences: "Sequence[tuple[PagedKVCache, int]]") -> None:
        """Give each cache the blocks for so many further tokens. Raises `MemoryError`, and gives
        none, where there are not enough.
        """
        missing = [(kv, kv.missing_blocks(tokens)) for kv, tokens in sequences]
        count = sum(number for _, number in missing)
        if not count:
            return
        if count > len(self._free):
            raise MemoryError(
                f"out of memory for keys and values: {count} blocks are needed, and "
                f"{len(self._free)} are free"
            )
        blocks = [self._take() for _ in range(count)]
        numbers = torch.tensor([block.number for block in blocks])
        # Attention multiplies what is behind a sequence's end by 0, and 0 · NaN is NaN: a block must
        # not hold what an adapter computed that is not finite.
        self.memory.index_fill_(2, copy_to_device(numbers, self.device), 0)
        for kv, number in missing:
            kv.extend(blocks[:number])
            del blocks[:number]

    def _take(self) -> PoolBlock:
        block = PoolBlock(self._free.pop(), self.block_bytes)
        weakref.finalize(block, self._release, block.number).atexit = False
        return block

    def _release(self, number: int) -> None:
        self._free.append(number)


class PagedKVCache:
    """Keys and values of one sequence in a pool. `table` holds the numbers of its blocks."""

    def __init__(self, pool: KVPool) -> None:
        self.tokens: list[int] = []
        self.table: array[int] = array("q")
        self._pool = pool
        self._blocks: list[PoolBlock] = []
        self._places: Any = None
        self._device_table: Any = None

    def missing_blocks(self, tokens: int) -> int:
        """Return the number of blocks to reserve before so many tokens are added."""
        needed = -(-(len(self.tokens) + tokens) // BLOCK_TOKENS)
        return max(0, needed - len(self._blocks))

    def extend(self, blocks: Sequence[PoolBlock]) -> None:
        self._blocks += blocks
        self.table.extend(block.number for block in blocks)

    @property
    def next_place(self) -> int:
        """Where the next token is stored, counted in tokens of the pool."""
        block, offset = divmod(len(self.tokens), BLOCK_TOKENS)
        return self.table[block] * BLOCK_TOKENS + offset

    def prepare(self, tokens: int) -> None:
        """Send the places of so many further tokens to the device, before `write` and `read`."""
        table = np.array(self.table, dtype=np.int64)
        positions = np.arange(len(self.tokens), len(self.tokens) + tokens)
        places = table[positions // BLOCK_TOKENS] * BLOCK_TOKENS + positions % BLOCK_TOKENS
        self._device_table = copy_to_device(torch.from_numpy(table), self._pool.device)
        self._places = copy_to_device(torch.from_numpy(places), self._pool.device)

    def write(self, layer: int, key: Any, value: Any) -> None:
        store(
            self._pool.memory[layer], self._places, key.transpose(0, 1), value=value.transpose(0, 1)
        )

    def read(self, layer: int, first: int, last: int) -> Any:
        blocks = self._pool.memory[layer].index_select(1, self._device_table)
        return blocks.flatten(1, 2)[:, first:last].transpose(1, 2)[:, None]

    def copy_from(self, other: Self, length: int) -> None:
        """Begin this empty cache with another one's first `length` tokens: share whole blocks, and
        copy the rest.
        """
        whole, rest = divmod(length, BLOCK_TOKENS)
        self.extend(other._blocks[:whole])
        self.tokens = other.tokens[: whole * BLOCK_TOKENS]
        if rest:
            self._pool.reserve([(self, rest)])
            source = other.table[whole]
            self._pool.memory[:, :, self.table[whole], :rest] = self._pool.memory[
                :, :, source, :rest
            ]
        self.tokens = other.tokens[:length]

    def block(self, start: int) -> PoolBlock:
        return self._blocks[start // BLOCK_TOKENS]

    def append_block(self, block: PoolBlock, tokens: Sequence[int]) -> None:
        self.extend([block])
        self.tokens += tokens


def store(memory: Any, places: Any, key: Any, value: Any) -> None:
    """Store keys and values `[tokens, heads, width]` in a layer `[2, blocks, BLOCK_TOKENS, heads,
    width]` of a pool.
    """
    for part, new in zip(memory.flatten(1, 2), (key, value), strict=True):
        part.index_copy_(0, places, new.to(part.dtype))
