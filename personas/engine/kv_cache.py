"""KV cache of a sequence, and the prefix cache shared between sequences."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BLOCK_TOKENS = 16
"""A prompt takes over what is cached in whole blocks."""


@dataclass(frozen=True)
class CacheShape:
    """What a model keeps of each token: keys and values of `heads` × `width` numbers in each of its layers."""

    layers: int
    heads: int
    width: int
    dtype: Any
    device: Any

    def new_memory(self, tokens: int) -> Any:
        """Room for so many tokens, `[layers, 2, heads, tokens, width]`, of arbitrary content."""
        from personas.engine.hugepages import zeros_in_huge_pages

        return zeros_in_huge_pages((self.layers, 2, self.heads, tokens, self.width), self.dtype, self.device)


class SequenceKVCache:
    """The keys and values of one row. `tokens` are those that have been computed; the rest of `memory` is garbage."""

    def __init__(self, shape: CacheShape, capacity: int) -> None:
        self.memory = shape.new_memory(capacity)
        self.tokens: list[int] = []


@dataclass(frozen=True)
class _Block:
    """Keys and values of one block of tokens."""

    number: int
    memory: Any


_Key = tuple[str, int, tuple[int, ...]]
"""The adapter's name, the number of the block before (0 for none), the block's tokens."""


class PrefixCache:
    """Blocks of tokens and their keys and values, at most `max_bytes` of them; the longest unused leave first.

    A block is found by the adapter, its tokens and all tokens before, which are compared as they are. Whoever uses a
    block uses those before it later still, so that a block never leaves before those that follow it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._blocks: OrderedDict[_Key, _Block] = OrderedDict()  # least recently used first
        self._made = 0
        self.bytes = 0

    @property
    def free_bytes(self) -> int:
        """How much can be kept without letting go of anything."""
        return self.max_bytes - self.bytes

    def take_over(self, adapter: str, prompt: Sequence[int], row: SequenceKVCache) -> int:
        """Fill an empty row with the beginning of its prompt, as far as it is known; gives the number of tokens.

        The last token is always left to compute: what follows it is wanted.
        """
        for block in self._known(adapter, prompt[: len(prompt) - 1]):
            at = len(row.tokens)
            row.memory[:, :, :, at : at + BLOCK_TOKENS] = block.memory
            row.tokens += prompt[at : at + BLOCK_TOKENS]
        return len(row.tokens)

    def keep(self, adapter: str, row: SequenceKVCache) -> None:
        """Keep what a row has computed."""
        known = self._known(adapter, row.tokens)
        number = known[-1].number if known else 0
        for at in range(len(known) * BLOCK_TOKENS, len(row.tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            number = self._add(adapter, number, row, at)
        self._known(adapter, row.tokens)
        while self.bytes > self.max_bytes:
            _, block = self._blocks.popitem(last=False)
            self.bytes -= block.memory.nbytes

    def forget(self, adapter: str) -> None:
        """Let go of all that was computed with an adapter."""
        for key in [key for key in self._blocks if key[0] == adapter]:
            self.bytes -= self._blocks.pop(key).memory.nbytes

    def clear(self) -> None:
        """Let go of everything."""
        self._blocks.clear()
        self.bytes = 0

    def _known(self, adapter: str, tokens: Sequence[int]) -> list[_Block]:
        """The blocks that a text begins with; they count as used, the last of them first."""
        keys, number = [], 0
        for at in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            key = (adapter, number, tuple(tokens[at : at + BLOCK_TOKENS]))
            if key not in self._blocks:
                break
            keys.append(key)
            number = self._blocks[key].number
        for key in reversed(keys):
            self._blocks.move_to_end(key)
        return [self._blocks[key] for key in keys]

    def _add(self, adapter: str, before: int, row: SequenceKVCache, at: int) -> int:
        memory = row.memory[:, :, :, at : at + BLOCK_TOKENS].clone()
        self._made += 1
        self._blocks[adapter, before, tuple(row.tokens[at : at + BLOCK_TOKENS])] = _Block(self._made, memory)
        self.bytes += memory.nbytes
        return self._made
