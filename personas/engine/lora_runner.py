"""Forward pass over a batch of sequences with different lengths and LoRA adapters."""

from collections import abc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from personas.engine.kv_cache import CacheShape, KVCache, PrefixCache, SequenceKVCache
from personas.engine.lora_slots import StackedLora
from personas.engine.model_runner import ForwardBackend, KernelBackend, ScheduledTokens

ATTENTION_NAME = "understudy-batch"


class LoraBatch(Protocol):
    """What attention and the linear layers of a patched model need to know of a batch."""

    def attend(
        self, layer: int, query: Any, key: Any, value: Any, settings: Mapping[str, Any]
    ) -> Any:
        """Store keys and values, then attend, `[batch, heads, tokens, width]` →
        `[batch, tokens, heads, width]`.
        """

    def add_adapters(self, name: str, pair: tuple[Any, Any], x: Any, y: Any) -> Any:
        """Return the output `y` of a linear layer for `x` with the adapters of the batch, which are
        A and scale · Bᵀ of all slots.
        """


@dataclass
class _FlatBatch:
    """Scheduled tokens laid end to end, ordered by LoRA slot; `groups` holds (slot, start, end) per
    slot.
    """

    scheduled: list[ScheduledTokens]
    starts: list[int] = field(default_factory=list)
    groups: list[tuple[int, int, int]] = field(default_factory=list)
    gathered: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        end = 0
        for item in self.scheduled:
            self.starts.append(end)
            begin = end
            end = end + len(item.tokens)
            slot = item.slot.index or 0
            if self.groups and self.groups[-1][0] == slot:
                begin = self.groups.pop()[1]
            self.groups.append((slot, begin, end))
        self.length = end

    @property
    def is_decoding(self) -> bool:
        """True if every sequence has one token: then all adapters are applied in one batched
        product.
        """
        return self.length == len(self.scheduled)

    def attend(
        self, layer: int, query: Any, key: Any, value: Any, settings: Mapping[str, Any]
    ) -> Any:
        parts = []
        for start, item in zip(self.starts, self.scheduled, strict=True):
            tokens = slice(start, start + len(item.tokens))
            item.kv.write(layer, key[0, :, tokens], value=value[0, :, tokens])
            parts.append(_attend(query[:, :, tokens], item.kv, layer=layer, settings=settings))
        return torch.cat(parts, 2).transpose(1, 2)

    def add_adapters(self, name: str, pair: tuple[Any, Any], x: Any, y: Any) -> Any:
        flat = x.reshape(self.length, -1)
        out = y.view(self.length, -1)
        if self.is_decoding:
            if name in self.gathered:
                a, b = self.gathered[name]
                first = self.length - len(a)  # sequences without an adapter come first
                inner = torch.bmm(flat[first:, None], a.transpose(1, 2))
                out[first:] += torch.bmm(inner, b)[:, 0]
            return y
        a, b = pair
        for slot, begin, end in self.groups:
            if slot:
                out[begin:end] += (flat[begin:end] @ a[slot].T) @ b[slot]
        return y


class StackedLoraRunner:
    """Computes batches with a transformers model, whose modules are patched within `forward`, and
    stacked adapters.
    """

    def __init__(
        self,
        model: Any,
        slots: int,
        prefix_bytes: int,
        without_peft: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """Stack up to `slots` adapters beside the base model; `without_peft` disables peft's for a
        `with` block.
        """
        self.model = model
        self._without_peft = without_peft
        self.prefixes: PrefixCache | None = PrefixCache(prefix_bytes)
        self.linears: dict[str, Any] = {}
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                self.linears[name] = module
        self.stack = StackedLora(self.linears, model.dtype, model.device, slots)
        self.shape = CacheShape.of(model)
        self.kernel: KernelBackend | None = None
        """The compiled forward pass once it is enabled
        (`personas.engine.cpu_kernel.kernel_runner`).
        """
        self._batch: LoraBatch | None = None
        self._gathered: tuple[object, dict[str, tuple[Any, Any]]] = (None, {})
        AttentionInterface.register(ATTENTION_NAME, batch_attention)
        for name, linear in self.linears.items():
            setattr(linear, "forward", self._with_adapters(name, linear.forward))  # noqa: B010 (mypy forbids assignment)

    @property
    def backend(self) -> ForwardBackend:
        """The compiled kernel once it is enabled, otherwise the model's own modules."""
        return self.kernel or self

    def new_kv_cache(self, capacity: int) -> SequenceKVCache:
        return SequenceKVCache(self.shape, capacity)

    def kv_bytes(self, tokens: int) -> int:
        return tokens * self.shape.token_bytes

    def close(self) -> None:
        """Close the compiled kernel; the model's own modules compute from then on."""
        if self.kernel:
            self.kernel.close()
            self.kernel = None

    def forward(self, scheduled: abc.Sequence[ScheduledTokens]) -> Any:
        # Sequences of one adapter lie side by side, so that it is applied to all of them at once.
        order = sorted(range(len(scheduled)), key=lambda at: scheduled[at].slot.index or 0)
        batch = _FlatBatch([scheduled[at] for at in order])
        if batch.is_decoding:
            batch.gathered = self._gather_adapters(batch)
        ends = [0] * len(scheduled)
        for at, start in zip(order, batch.starts, strict=True):
            ends[at] = start + len(scheduled[at].tokens)
        with self._computing(batch):
            hidden = self._hidden_states(batch)
            rows: list[int] = []
            for item, end in zip(scheduled, ends, strict=True):
                item.kv.tokens += item.tokens
                rows += range(end - item.logits, end)
            # Only the rows that are sampled: the head is the largest matrix of a small model.
            return self.model.get_output_embeddings()(hidden[rows]).float()

    def _hidden_states(self, batch: _FlatBatch) -> Any:
        ids: list[int] = []
        positions: list[int] = []
        for item in batch.scheduled:
            computed = len(item.kv.tokens)
            ids += item.tokens
            positions += range(computed, computed + len(item.tokens))
        output = self.model.base_model(
            input_ids=torch.tensor([ids], device=self.model.device),
            position_ids=torch.tensor([positions], device=self.model.device),
            use_cache=False,  # `batch_attention` keeps keys and values itself
            batch=batch,
        )
        return output.last_hidden_state[0]

    @contextmanager
    def _computing(self, batch: LoraBatch) -> Iterator[None]:
        """Let attention and linear layers compute a batch, without peft, for a `with` block."""
        attention = self.model.config._attn_implementation
        with torch.inference_mode(), self._without_peft():
            self.model.set_attn_implementation(ATTENTION_NAME)
            self._batch = batch
            try:
                yield
            finally:
                self._batch = None
                self.model.set_attn_implementation(attention)

    def _gather_adapters(self, batch: _FlatBatch) -> dict[str, tuple[Any, Any]]:
        """Gather each sequence's adapter per layer, `[sequences, rank, width]`; cached while the
        batch is the same.
        """
        slots = [item.slot.index for item in batch.scheduled if item.slot.index]
        key = (self.stack.version, tuple(slots))
        if self._gathered[0] != key:
            gathered = {}
            if slots:
                for name, (a, b) in self.stack.pairs.items():
                    gathered[name] = (a[slots], b[slots])
            self._gathered = (key, gathered)
        return self._gathered[1]

    def _with_adapters(self, name: str, linear: Any) -> Any:
        def forward(x: Any) -> Any:
            y = linear(x)
            pair = self.stack.pairs.get(name)
            if self._batch is None or pair is None:
                return y
            return self._batch.add_adapters(name, pair, x=x, y=y)

        return forward


def batch_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    batch: LoraBatch,
    **settings: Any,
) -> tuple[Any, None]:
    """Attend as the batch does, in the form that transformers calls."""
    attended = batch.attend(module.layer_idx, query, key=key, value=value, settings=settings)
    return attended, None


def _attend(query: Any, kv: KVCache, layer: int, settings: Mapping[str, Any]) -> Any:
    """Attend from the tokens after those in the cache, whose keys and values are written, to all of
    them.
    """
    length = query.shape[2]
    cached = len(kv.tokens)
    window = settings.get("sliding_window")
    first = 0
    if window:  # the first token that any of these attends to
        first = max(0, cached + 1 - window)
    keys, values = kv.read(layer, first, last=cached + length)
    # A single token attends to everything that is kept.
    mask = None
    if length > 1:
        queried = torch.arange(cached, cached + length, device=query.device)[:, None]
        attended = torch.arange(first, cached + length, device=query.device)[None]
        mask = attended <= queried
        if window:
            mask &= attended > queried - window
    return F.scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=mask,
        scale=settings.get("scaling"),
        enable_gqa=query.shape[1] != keys.shape[1],
    )
