"""Forward pass over a batch of sequences with different lengths and LoRA adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from personas.engine.kv_cache import CacheShape, PrefixCache, SequenceKVCache
from personas.engine.lora_slots import BASE_MODEL_SLOT, LoraSlot, StackedLora

ATTENTION_NAME = "understudy-rows"
ATTENTION_SETTINGS = frozenset({"dropout", "scaling", "sliding_window", "batch", "is_causal", "position_ids"})
"""What a model may ask of its attention; one that asks for more computes something else."""


@dataclass
class ScheduledTokens:
    """Tokens of one row to compute next, after those its memory holds; `wanted` says whether its logits are."""

    row: Any
    tokens: Sequence[int]
    seat: LoraSlot = BASE_MODEL_SLOT
    wanted: bool = True


class ForwardBackend(Protocol):
    """Computes spans of rows and keeps their keys and values in the rows' memory."""

    def forward(self, spans: Sequence[ScheduledTokens]) -> Any:
        """Logits `[wanted spans, vocabulary]`, float32, after each wanted span's last token."""
        ...


class KernelBackend(ForwardBackend, Protocol):
    """Another way to compute the same, with something to let go of."""

    def close(self) -> None:
        """Let go of it."""
        ...


class ModelRunner(ForwardBackend, Protocol):
    """Opens rows, too."""

    prefixes: PrefixCache | None
    """What its rows have in common, if that is kept."""

    def open(self, capacity: int) -> Any:
        """The memory of a new row, with room for so many tokens; its `tokens` are those computed so far."""
        ...


@dataclass
class _FlatBatch:
    """Spans laid end to end; those without an adapter first, those with the same one together."""

    spans: list[ScheduledTokens]
    starts: list[int] = field(default_factory=list)
    groups: list[tuple[int, int, int]] = field(default_factory=list)
    gathered: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        end = 0
        for span in self.spans:
            self.starts.append(end)
            begin, end = end, end + len(span.tokens)
            slot = span.seat.slot or 0
            if self.groups and self.groups[-1][0] == slot:
                begin = self.groups.pop()[1]
            self.groups.append((slot, begin, end))
        self.length = end

    @property
    def single_tokens(self) -> bool:
        """Whether each row is at its next token: then their adapters are multiplied all at once."""
        return self.length == len(self.spans)


class StackedLoraRunner:
    """Decodes with the modules of a transformers model and a stack of adapters."""

    def __init__(
        self, model: Any, slots: int, prefix_bytes: int, bare: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        """`slots` adapters are held at once, the base model's place not counted.

        `bare` makes sure, for a `with` block, that nothing else lies over the model.
        """
        self.model, self.slots, self._bare = model, slots, bare
        self.prefixes: PrefixCache | None = PrefixCache(prefix_bytes)
        self.linears = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
        self.stack = StackedLora(self.linears, model.dtype, model.device, slots)
        self.shape = _cache_shape(model)
        self.quick: KernelBackend | None = None
        """What computes the same in another way, once it is there (`personas.engine.cpu_kernel.kernel_runner`)."""
        self._batch: _FlatBatch | None = None
        self._gathered: tuple[object, dict[str, tuple[Any, Any]]] = (None, {})
        AttentionInterface.register(ATTENTION_NAME, ragged_attention)
        for name, linear in self.linears.items():
            setattr(linear, "forward", self._adapted(name, linear.forward))  # noqa: B010 (types know of no other way)

    def open(self, capacity: int) -> SequenceKVCache:
        """The memory of a new row, with room for so many tokens."""
        return SequenceKVCache(self.shape, capacity)

    def forward(self, spans: Sequence[ScheduledTokens]) -> Any:
        """Logits `[wanted spans, vocabulary]`, float32, after each wanted span's last token."""
        if self.quick:
            return self.quick.forward(spans)
        return self.compute(spans)

    def close(self) -> None:
        """Let go of what computes beside the model."""
        if self.quick:
            self.quick.close()
            self.quick = None

    def compute(self, spans: Sequence[ScheduledTokens]) -> Any:
        """The same by the model's own modules, whatever else there is."""
        order = sorted(range(len(spans)), key=lambda at: spans[at].seat.slot or 0)
        batch = _FlatBatch([spans[at] for at in order])
        with torch.inference_mode(), self._bare(), self._computing(batch):
            hidden = self._hidden(batch)
            for span in spans:
                span.row.tokens += span.tokens
            ends = {at: batch.starts[n] + len(spans[at].tokens) - 1 for n, at in enumerate(order)}
            wanted = [ends[at] for at in range(len(spans)) if spans[at].wanted]
            return self.model.get_output_embeddings()(hidden[wanted]).float()

    def _hidden(self, batch: _FlatBatch) -> Any:
        ids = [token for span in batch.spans for token in span.tokens]
        at = [len(span.row.tokens) + n for span in batch.spans for n in range(len(span.tokens))]
        inputs, positions = (torch.tensor([numbers], device=self.model.device) for numbers in (ids, at))
        output = self.model.base_model(input_ids=inputs, position_ids=positions, use_cache=False, batch=batch)
        return output.last_hidden_state[0]

    @contextmanager
    def _computing(self, batch: _FlatBatch) -> Iterator[None]:
        """The model's attention reads rows, and its linear layers add adapters, for the time of the block."""
        before = self.model.config._attn_implementation
        self.model.set_attn_implementation(ATTENTION_NAME)
        self._batch = batch
        if batch.single_tokens:
            batch.gathered = self._gathered_for(batch)
        try:
            yield
        finally:
            self._batch = None
            self.model.set_attn_implementation(before)

    def _gathered_for(self, batch: _FlatBatch) -> dict[str, tuple[Any, Any]]:
        """The adapters of the rows that have one, per layer `[rows, rank, width]`; kept while the rows stay."""
        slots = [span.seat.slot for span in batch.spans if span.seat.slot]
        key = (self.stack.version, tuple(slots))
        if self._gathered[0] != key:
            self._gathered = key, {name: (a[slots], b[slots]) for name, (a, b) in self.stack.pairs.items() if slots}
        return self._gathered[1]

    def _adapted(self, name: str, plain: Any) -> Any:
        def forward(x: Any) -> Any:
            y, batch = plain(x), self._batch
            if batch is None or name not in self.stack.pairs:
                return y
            flat, out = x.reshape(batch.length, -1), y.view(batch.length, -1)
            if batch.single_tokens:
                if name in batch.gathered:
                    a, b = batch.gathered[name]
                    first = batch.length - len(a)
                    out[first:] += torch.bmm(torch.bmm(flat[first:, None], a.transpose(1, 2)), b)[:, 0]
                return y
            a, b = self.stack.pairs[name]
            for slot, begin, end in batch.groups:
                if slot:
                    out[begin:end] += (flat[begin:end] @ a[slot].T) @ b[slot]
            return y

        return forward


def ragged_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *, batch: _FlatBatch, **settings: Any
) -> tuple[Any, None]:
    """Attention of each span to its own row: `[1, heads, tokens, width]` in, `[1, tokens, heads, width]` out."""
    parts = []
    for start, span in zip(batch.starts, batch.spans, strict=True):
        here = slice(start, start + len(span.tokens))
        before = len(span.row.tokens)
        memory = span.row.memory[module.layer_idx]
        memory[0, :, before : before + len(span.tokens)] = key[0, :, here]
        memory[1, :, before : before + len(span.tokens)] = value[0, :, here]
        parts.append(_attend(query[:, :, here], memory[:, None], before, settings))
    return torch.cat(parts, 2).transpose(1, 2), None


def _attend(query: Any, memory: Any, before: int, settings: Mapping[str, Any]) -> Any:
    """Attention of tokens that come after `before` others, all of them in `memory` `[2, 1, heads, capacity, width]`."""
    length, window = query.shape[2], settings.get("sliding_window")
    first = max(0, before + 1 - window) if window else 0
    keys, values = memory[:, :, :, first : before + length]
    mask = None
    if length > 1:
        here = torch.arange(before, before + length, device=query.device)[:, None]
        there = torch.arange(first, before + length, device=query.device)[None]
        mask = there <= here if not window else (there <= here) & (there > here - window)
    return F.scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, scale=settings.get("scaling"), enable_gqa=query.shape[1] != keys.shape[1]
    )


def _cache_shape(model: Any) -> CacheShape:
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return CacheShape(config.num_hidden_layers, heads, width, model.dtype, model.device)
