"""KV cache of a sequence, and the prefix cache shared between sequences."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from personas.engine.hugepages import zeros_in_huge_pages

BLOCK_TOKENS = 16  # the prefix cache stores and loads whole blocks of 16 tokens


@dataclass(frozen=True)
class CacheShape:
    """Keys and values per token: `heads` × `width` numbers each in every layer."""

    layers: int
    heads: int
    width: int
    dtype: Any
    device: Any

    @classmethod
    def of(cls, model: Any) -> Self:
        """Return the shape for a loaded model, by its configuration."""
        config = model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        return cls(
            layers=config.num_hidden_layers,
            heads=heads,
            width=width,
            dtype=model.dtype,
            device=model.device,
        )

    @property
    def token_bytes(self) -> int:
        """Bytes of a token's keys and values."""
        size: int = self.dtype.itemsize
        return self.layers * 2 * self.heads * self.width * size

    def new_memory(self, tokens: int) -> Any:
        """Allocate memory for so many tokens, `[layers, 2, heads, tokens, width]`."""
        return zeros_in_huge_pages(
            (self.layers, 2, self.heads, tokens, self.width), self.dtype, self.device
        )


def kv_token_bytes(model: Any) -> int:
    """Return the bytes of a token's keys and values in a model; 0 if its configuration has no
    attention heads.

    It is too much for a model whose layers keep a state or share keys and values.
    """
    try:
        return CacheShape.of(model).token_bytes
    except (AttributeError, TypeError):
        return 0


class KVBlock(Protocol):
    """Keys and values of `BLOCK_TOKENS` tokens that several sequences share, and their size."""

    @property
    def nbytes(self) -> int: ...


class KVCache(Protocol):
    """Keys and values of one sequence: those of `tokens`, which are computed so far."""

    tokens: list[int]

    def write(self, layer: int, key: Any, value: Any) -> None:
        """Store a layer's keys and values `[heads, tokens, width]` of the tokens after `tokens`."""

    def read(self, layer: int, first: int, last: int) -> Any:
        """Return a layer's keys and values of these tokens, `[2, 1, heads, last - first, width]`."""

    def block(self, start: int) -> KVBlock:
        """Return the block of computed tokens that begins at `start`, a multiple of its size."""

    def append_block(self, block: Any, tokens: Sequence[int]) -> None:
        """Let whole blocks that hold `tokens` be followed by one that another cache returned."""


class SequenceKVCache:
    """Keys and values of one sequence in memory of its own. `tokens` are those computed so far; the
    rest of `memory` is undefined.
    """

    def __init__(self, shape: CacheShape, capacity: int) -> None:
        self.memory = shape.new_memory(capacity)
        self.tokens: list[int] = []

    @property
    def bytes(self) -> int:
        """Bytes of the whole memory."""
        size: int = self.memory.nbytes
        return size

    def copy_from(self, other: Self, length: int) -> None:
        """Copy another sequence's first `length` tokens into this empty cache."""
        self.memory[:, :, :, :length] = other.memory[:, :, :, :length]
        self.tokens = other.tokens[:length]

    def write(self, layer: int, key: Any, value: Any) -> None:
        cached = len(self.tokens)
        memory = self.memory[layer, :, :, cached : cached + key.shape[1]]
        memory[0] = key
        memory[1] = value

    def read(self, layer: int, first: int, last: int) -> Any:
        return self.memory[layer, :, None, :, first:last]

    def block(self, start: int) -> Any:
        # A copy: a view would keep the memory of the whole sequence.
        return self.memory[:, :, :, start : start + BLOCK_TOKENS].clone()

    def append_block(self, block: Any, tokens: Sequence[int]) -> None:
        start = len(self.tokens)
        self.memory[:, :, :, start : start + BLOCK_TOKENS] = block
        self.tokens += tokens


@dataclass(frozen=True)
class _Block:
    """Keys and values of one block of tokens, under a number that identifies the block."""

    number: int
    memory: KVBlock


_Key = tuple[str, int, tuple[int, ...]]
"""The adapter's name, the number of the preceding block (0 for none), the block's tokens."""


class PrefixCache:
    """LRU cache of blocks of tokens and their keys and values, at most `max_bytes` large.

    A block is found by its adapter, its tokens and all tokens before it, which are compared, not
    hashed. Using a block marks the blocks before it as used more recently, so that no block is
    evicted before those that follow it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._blocks: OrderedDict[_Key, _Block] = OrderedDict()  # least recently used first
        self._last_number = 0
        self.bytes = 0

    @property
    def free_bytes(self) -> int:
        """Bytes that can be stored without an eviction."""
        return self.max_bytes - self.bytes

    def load_prefix(self, adapter: str, prompt: Sequence[int], kv: KVCache) -> int:
        """Put a prompt's longest stored prefix, never its last token, into an empty cache; returns
        its length.
        """
        # The last token is computed in any case: its logits are not stored.
        for block in self._use_blocks(adapter, prompt[: len(prompt) - 1]):
            start = len(kv.tokens)
            kv.append_block(block.memory, prompt[start : start + BLOCK_TOKENS])
        return len(kv.tokens)

    def store(self, adapter: str, kv: KVCache) -> None:
        """Store the whole blocks of a sequence, then evict the least recently used beyond
        `max_bytes`.
        """
        stored = self._use_blocks(adapter, kv.tokens)
        # A block is found by the number of the block before it, so that its key holds 16 tokens
        # instead of the whole text.
        number = stored[-1].number if stored else 0
        first = len(stored) * BLOCK_TOKENS
        for start in range(first, len(kv.tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            number = self._add(adapter, number, kv, start)
        # Marks the new blocks, too, in the order that keeps a block longer than those after it.
        self._use_blocks(adapter, kv.tokens)
        while self.bytes > self.max_bytes:
            _, block = self._blocks.popitem(last=False)
            self.bytes -= block.memory.nbytes

    def drop_adapter(self, adapter: str) -> None:
        for key in [key for key in self._blocks if key[0] == adapter]:
            self.bytes -= self._blocks.pop(key).memory.nbytes

    def clear(self) -> None:
        self._blocks.clear()
        self.bytes = 0

    def _use_blocks(self, adapter: str, tokens: Sequence[int]) -> list[_Block]:
        """Return the stored blocks that the tokens begin with, and mark them as used, the first
        most recently.
        """
        keys: list[_Key] = []
        number = 0
        for start in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            key = (adapter, number, tuple(tokens[start : start + BLOCK_TOKENS]))
            if key not in self._blocks:
                break
            keys.append(key)
            number = self._blocks[key].number
        for key in reversed(keys):
            self._blocks.move_to_end(key)
        return [self._blocks[key] for key in keys]

    def _add(self, adapter: str, preceding: int, kv: KVCache, start: int) -> int:
        memory = kv.block(start)
        self._last_number += 1
        key = adapter, preceding, tuple(kv.tokens[start : start + BLOCK_TOKENS])
        self._blocks[key] = _Block(self._last_number, memory)
        self.bytes += memory.nbytes
        return self._last_number
