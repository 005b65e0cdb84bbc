"""Forward pass for GPUs: the replies' next tokens are one batch of static shapes.

A step with the same calls whatever the number of rows costs a GPU's host little, and can be captured
as a CUDA graph. Prompts are computed like those of `StackedLoraRunner`.
"""

import logging
from collections import abc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from personas.engine.cuda_graphs import Capture, Compute
from personas.engine.device_copy import copy_to_device
from personas.engine.kv_cache import BLOCK_TOKENS
from personas.engine.lora_runner import StackedLoraRunner
from personas.engine.model_runner import ScheduledTokens
from personas.engine.paged_kv import UNUSED_PLACE, ZERO_BLOCK, KVPool, PagedKVCache, store
from personas.errors import is_out_of_memory

log = logging.getLogger(__name__)
DECODE_ROWS = (1, 2, 4, 8, 16, 32)
"""Numbers of rows of a step. Fewer sequences are padded to the next one, more than the last to a
multiple of it.
"""
MIN_DECODE_BLOCKS = 512 // BLOCK_TOKENS
"""Blocks of a step whose sequences are short. For longer ones they double, so that steps have few
shapes.
"""
INPUTS = 4  # of each row, beside its table: token, position, place in the pool, LoRA slot


def padded_rows(rows: int) -> int:
    """Return the number of rows of a step for so many sequences."""
    for size in DECODE_ROWS:
        if rows <= size:
            return size
    return -(-rows // DECODE_ROWS[-1]) * DECODE_ROWS[-1]


def padded_blocks(blocks: int) -> int:
    """Return the number of blocks of each row of a step whose longest sequence has so many."""
    size = MIN_DECODE_BLOCKS
    while size < blocks:
        size *= 2
    return size


class _DecodeBatch:
    """A row for each sequence, in attention and in the linear layers."""

    def __init__(self, pool: KVPool, step: "_DecodeStep") -> None:
        self._pool = pool
        self._step = step
        self._masks: dict[int, Any] = {}

    def attend(
        self, layer: int, query: Any, key: Any, value: Any, settings: Mapping[str, Any]
    ) -> Any:
        memory = self._pool.memory[layer]
        store(memory, self._step.places, key[:, :, 0], value=value[:, :, 0])
        rows, heads, _, width = query.shape
        blocks = memory.index_select(1, self._step.tables.flatten())
        kv_heads = memory.shape[3]
        keys, values = blocks.view(2, rows, -1, kv_heads, width).transpose(2, 3)
        # The heads that share keys and values are the queries of one head: no copy of them is made.
        grouped = query.reshape(rows, kv_heads, heads // kv_heads, width)
        attended = F.scaled_dot_product_attention(
            grouped,
            keys,
            values,
            attn_mask=self._mask(settings.get("sliding_window") or 0, query.dtype),
            scale=settings.get("scaling"),
        )
        return attended.reshape(rows, 1, heads, width)

    def add_adapters(self, name: str, pair: tuple[Any, Any], x: Any, y: Any) -> Any:
        a, b = (stack.index_select(0, self._step.slots) for stack in pair)
        return torch.baddbmm(y, torch.bmm(x, a.transpose(1, 2)), b)

    def _mask(self, window: int, dtype: Any) -> Any:
        """Return what is added to the scores, `[rows, 1, 1, tokens]`, the same in all layers with
        this window (0: without one).
        """
        if window not in self._masks:
            positions = self._step.positions[:, None]
            places = torch.arange(self._step.blocks * BLOCK_TOKENS, device=positions.device)
            hidden = places > positions
            if window:
                hidden |= places <= positions - window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=positions.device)
            self._masks[window] = mask.masked_fill(hidden, -torch.inf)[:, None, None]
        return self._masks[window]


class _DecodeStep:
    """A step of one shape: its inputs, which stay where they are, and its captured computation."""

    def __init__(self, rows: int, blocks: int, device: Any) -> None:
        self.rows = rows
        self.blocks = blocks
        self._inputs = torch.zeros(rows * (INPUTS + blocks), dtype=torch.int64, device=device)
        columns = self._inputs[: INPUTS * rows].view(INPUTS, rows)
        self.ids, self.positions, self.places, self.slots = columns
        self.tables = self._inputs[INPUTS * rows :].view(rows, blocks)
        self.replay: Compute | None = None
        self.layout = -1  # of the stack that was captured

    def fill(self, scheduled: abc.Sequence[ScheduledTokens]) -> None:
        """Send the sequences to the device in one copy. The other rows compute a token that nothing
        reads.
        """
        host = np.zeros(len(self._inputs), dtype=np.int64)
        ids, positions, places, slots = host[: INPUTS * self.rows].reshape(INPUTS, self.rows)
        tables = host[INPUTS * self.rows :].reshape(self.rows, self.blocks)
        places[:] = UNUSED_PLACE
        tables[:] = ZERO_BLOCK
        for row, item in enumerate(scheduled):
            ids[row] = item.tokens[0]
            positions[row] = len(item.kv.tokens)
            places[row] = item.kv.next_place
            slots[row] = item.slot.index or 0
            tables[row, : len(item.kv.table)] = item.kv.table
        with torch.inference_mode():  # the tensor may have been made within it
            self._inputs.copy_(copy_to_device(torch.from_numpy(host), self._inputs.device))


class PagedLoraRunner(StackedLoraRunner):
    """Computes prompts as `StackedLoraRunner` does, and the next tokens of all replies as one step
    of static shape over a pool of keys and values.
    """

    def __init__(
        self,
        model: Any,
        slots: int,
        prefix_bytes: int,
        without_peft: Callable[[], AbstractContextManager[Any]] = nullcontext,
        *,
        kv_bytes: int,
        capture: Capture | None = None,
    ) -> None:
        """The pool holds keys and values of `kv_bytes` for running sequences beside the prefixes.
        Without `capture`, each step is computed call by call.
        """
        super().__init__(model, slots, prefix_bytes, without_peft)
        self.pool = KVPool(self.shape, kv_bytes + prefix_bytes)
        self._capture = capture
        self._steps: dict[tuple[int, int], _DecodeStep] = {}

    def new_kv_cache(self, capacity: int) -> Any:
        """Create an empty cache, which takes blocks of the pool as its sequence grows."""
        return PagedKVCache(self.pool)

    def kv_bytes(self, tokens: int) -> int:
        return -(-tokens // BLOCK_TOKENS) * self.pool.block_bytes

    def close(self) -> None:
        super().close()
        self._steps.clear()

    def capture_steps(self, rows: int, tokens: int) -> None:
        """Capture the steps of up to so many rows whose sequences have up to so many tokens, the
        largest first, because smaller ones use their memory again.
        """
        sizes = [size for size in DECODE_ROWS if size <= padded_rows(rows)]
        for blocks in reversed(list(_block_sizes(tokens))):
            for size in reversed(sizes):
                if self._capture:
                    step = self._step(size, blocks)
                    step.fill(())
                    self._compute(step)

    def forward(self, scheduled: abc.Sequence[ScheduledTokens]) -> Any:
        self.pool.reserve([(item.kv, len(item.tokens)) for item in scheduled])
        if all(len(item.tokens) == item.logits == 1 for item in scheduled):
            return self._decode(scheduled)
        for item in scheduled:
            item.kv.prepare(len(item.tokens))
        return super().forward(scheduled)

    def _decode(self, scheduled: abc.Sequence[ScheduledTokens]) -> Any:
        longest = max(len(item.kv.table) for item in scheduled)
        step = self._step(padded_rows(len(scheduled)), padded_blocks(longest))
        step.fill(scheduled)
        logits = self._compute(step)
        for item in scheduled:
            item.kv.tokens += item.tokens
        return logits[: len(scheduled)]

    def _step(self, rows: int, blocks: int) -> _DecodeStep:
        if (rows, blocks) not in self._steps:
            self._steps[rows, blocks] = _DecodeStep(rows, blocks, self.model.device)
        return self._steps[rows, blocks]

    def _compute(self, step: _DecodeStep) -> Any:
        """Return the logits of a step whose inputs are filled, `[rows, vocabulary]`, from its graph
        if it has one.
        """

        def compute() -> Any:
            return self._logits(step)

        if self._capture and step.layout != self.stack.layout:
            self._try_capture(step, compute)
        if step.replay is None:
            return compute()
        # A copy: the next step, of whatever shape, writes in the same memory.
        return step.replay().clone()

    def _try_capture(self, step: _DecodeStep, compute: Compute) -> None:
        """Capture a step, or leave it to be computed call by call."""
        assert self._capture is not None
        step.replay = None  # frees the memory of a graph over an earlier stack
        step.layout = self.stack.layout
        try:
            step.replay = self._capture(compute)
        except Exception as error:
            log.warning("steps of %d rows are computed without a CUDA graph: %s", step.rows, error)
            if not is_out_of_memory(error):  # another shape would fail for the same reason
                self._capture = None

    def _logits(self, step: _DecodeStep) -> Any:
        batch = _DecodeBatch(self.pool, step)
        with self._computing(batch):
            output = self.model.base_model(
                input_ids=step.ids[:, None],
                position_ids=step.positions[:, None],
                use_cache=False,  # the pool keeps keys and values
                batch=batch,
            )
            head = self.model.get_output_embeddings()
            return head(output.last_hidden_state)[:, 0].float()


def _block_sizes(tokens: int) -> Iterator[int]:
    """Yield the numbers of blocks of steps whose sequences have up to so many tokens."""
    most = padded_blocks(-(-tokens // BLOCK_TOKENS))
    size = MIN_DECODE_BLOCKS
    while size <= most:
        yield size
        size *= 2
