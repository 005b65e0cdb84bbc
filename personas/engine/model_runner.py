"""Forward pass over a batch of sequences with different lengths and LoRA adapters; a sequence's
cache and sampler.
"""

import hashlib
from collections import abc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from personas.engine.kv_cache import CacheShape, PrefixCache, SequenceKVCache
from personas.engine.lora_slots import BASE_MODEL_SLOT, LoraSlot, StackedLora
from personas.engine.sampler import SampledToken, SamplerState
from personas.engine.sequence import ReplySequence

ATTENTION_NAME = "understudy-ragged"
# Of a reply's beginning, which is chosen; whole sentences cost more and choose little better.
CANDIDATE_TOKENS = 12


@dataclass
class ScheduledTokens:
    """Tokens of one sequence to compute after those in its KV cache.

    `logits` is the number of last tokens whose logits are returned: none for a part of a prompt
    that leaves tokens for later.
    """

    kv: Any
    tokens: abc.Sequence[int]
    slot: LoraSlot = BASE_MODEL_SLOT
    logits: int = 1


class ForwardBackend(Protocol):
    """Computes scheduled tokens and appends them, with their keys and values, to their KV
    caches.
    """

    def forward(self, scheduled: abc.Sequence[ScheduledTokens]) -> Any:
        """Return float32 logits after the last `logits` tokens of each item, `[all of them,
        vocabulary]`.
        """


class KernelBackend(ForwardBackend, Protocol):
    """A compiled forward pass, which owns threads and memory."""

    def close(self) -> None:
        """Free the threads and the memory."""


class ModelRunner(Protocol):
    """A model with the KV caches of its sequences."""

    prefixes: (
        PrefixCache | None
    )  # keys and values that its sequences share; None where they are not stored

    @property
    def backend(self) -> ForwardBackend:
        """The forward pass to use for the next batch."""

    def new_kv_cache(self, capacity: int) -> Any:
        """Create the KV cache of a sequence of at most `capacity` tokens."""


class Sequence(ReplySequence):
    """One request on its way through the engine. Used by the engine's thread.

    `start` sets `slot`, `runner`, `kv` and `started_at`. `last_token` is computed next; it is None
    until the whole prompt has been computed. `is_cacheable` allows the prefix cache to store the
    sequence's keys and values. While it `is_choosing`, `rivals` are the other candidates of its
    reply's beginning, sequences whose `original` this is: they share its slot and the keys and
    values of its prompt. `card_prompt` is the card's prompt without the talk.
    """

    slot: LoraSlot
    runner: ModelRunner
    kv: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sampling = self.request.sampling
        if sampling.candidates > 1:
            sampling = replace(sampling, logprobs=True)
        self.sampler = SamplerState(sampling, self.seed, set(self.prompt))
        self.last_token: int | None = None
        self.is_cacheable = True
        self.card_prompt: tuple[int, ...] = ()
        self.original: Sequence | None = None
        self.rivals: list[Sequence] = []
        self.is_choosing = False

    def start(self, slot: LoraSlot, runner: ModelRunner, now: float) -> None:
        """Open a KV cache for the prompt and the longest reply."""
        self.slot = slot
        self.runner = runner
        self.started_at = now
        self.kv = runner.new_kv_cache(len(self.prompt) + self.request.sampling.max_new_tokens)

    @property
    def is_prefilling(self) -> bool:
        return self.last_token is None

    @property
    def prompt_tokens_left(self) -> int:
        """Number of the prompt's tokens that have not been computed."""
        return len(self.prompt) - len(self.kv.tokens) if self.is_prefilling else 0

    def next_tokens(self, limit: int) -> ScheduledTokens:
        """Schedule the last token, or while prefilling at most `limit` further tokens of the
        prompt.
        """
        if self.last_token is not None:
            return ScheduledTokens(self.kv, (self.last_token,), self.slot)
        computed = len(self.kv.tokens)
        tokens = self.prompt[computed : computed + limit]
        return ScheduledTokens(
            self.kv, tokens, self.slot, int(computed + len(tokens) == len(self.prompt))
        )

    def append(self, sampled: SampledToken) -> None:
        self.last_token = sampled.token
        self.append_token(sampled.token, sampled.logprob, sampled.alternatives)

    @property
    def is_finished(self) -> bool:
        is_open = self.original or (self.is_choosing and not self.is_cancelled)
        return not is_open and super().is_finished

    @property
    def has_candidate(self) -> bool:
        """True once its beginning can be compared with other candidates."""
        return super().is_finished or self._detokenizer.tokens >= CANDIDATE_TOKENS

    @property
    def unfinished(self) -> list["Sequence"]:
        """The candidates that need further tokens: itself alone, once its beginning is chosen."""
        return (
            [seq for seq in (self, *self.rivals) if not seq.has_candidate]
            if self.is_choosing
            else [self]
        )

    @property
    def can_choose(self) -> bool:
        """True once all candidates can be compared."""
        return self.is_choosing and not self.unfinished and not self.is_cancelled

    @property
    def compared(self) -> list["Sequence"]:
        """The candidates with a letter or digit, among which is chosen; the first one where none
        has any.
        """
        candidates = (self, *self.rivals)
        return [seq for seq in candidates if any(map(str.isalnum, seq._detokenizer.text))] or [self]

    @property
    def reply_ids(self) -> list[int]:
        """All sampled tokens."""
        return [
            *self.kv.tokens[len(self.prompt) :],
            *([] if self.last_token is None else [self.last_token]),
        ]

    @property
    def reply_logprob(self) -> float:
        """Sum of the log-probabilities of the sampled tokens."""
        return sum(self._logprobs)

    def fork(self, count: int) -> None:
        """Begin to choose among `count` candidates; the last token of the prompt is computed again
        for the others.
        """
        self.rivals = [self._create_rival(number) for number in range(1, count)]
        self.is_choosing = self._detokenizer.is_held = True

    def _create_rival(self, number: int) -> "Sequence":
        seed = candidate_seed(self.seed, number)
        rival = Sequence(self.request, self.prompt, seed, self._sink, self._detokenizer.fork())
        rival.start(self.slot, self.runner, self.started_at)
        rival.kv.copy_from(self.kv, len(self.prompt) - 1)
        rival.original = self
        return rival

    def choose(self, best: "Sequence") -> None:
        """Go on as one of the candidates, and show its text."""
        self.candidates = len(self.compared)
        self.rivals = []
        self.is_choosing = False
        self.kv = best.kv
        self.sampler = best.sampler
        self.last_token = best.last_token
        self._detokenizer = best._detokenizer
        self._tokens = best._tokens
        self._logprobs = best._logprobs
        self._detokenizer.release()

    def drop_rivals(self) -> None:
        """Go on as the first candidate if the beginning is not chosen yet."""
        if self.is_choosing:
            self.rivals = []
            self.choose(self)

    def finish(self) -> None:
        """Deliver the reply; one that ends before its beginning is chosen is the first
        candidate.
        """
        self.drop_rivals()
        super().finish()

    def load_prefix(self) -> None:
        """Copy the longest cached prefix of the prompt into an empty KV cache."""
        if not self.kv.tokens and self.runner.prefixes:
            self.runner.prefixes.load_prefix(self.slot.name, self.prompt, self.kv)

    def store_prefix(self) -> None:
        if self.is_cacheable and self.runner.prefixes:
            self.runner.prefixes.store(self.slot.name, self.kv)


def candidate_seed(seed: int, number: int) -> int:
    """Return the seed of a further candidate of the reply with this seed."""
    return int.from_bytes(
        hashlib.blake2b(f"{seed}:candidate:{number}".encode(), digest_size=4).digest(), "big"
    )


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
        self.linears = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        self.stack = StackedLora(self.linears, model.dtype, model.device, slots)
        self.shape = _cache_shape(model)
        self.kernel: KernelBackend | None = None
        """The compiled forward pass once it is enabled
        (`personas.engine.cpu_kernel.kernel_runner`).
        """
        self._batch: _FlatBatch | None = None
        self._gathered: tuple[object, dict[str, tuple[Any, Any]]] = (None, {})
        AttentionInterface.register(ATTENTION_NAME, ragged_attention)
        for name, linear in self.linears.items():
            setattr(linear, "forward", self._with_adapters(name, linear.forward))  # noqa: B010 (mypy forbids assignment)

    @property
    def backend(self) -> ForwardBackend:
        """The compiled kernel once it is enabled, otherwise the model's own modules."""
        return self.kernel or self

    def new_kv_cache(self, capacity: int) -> SequenceKVCache:
        return SequenceKVCache(self.shape, capacity)

    def close(self) -> None:
        """Close the compiled kernel; the model's own modules compute from then on."""
        if self.kernel:
            self.kernel.close()
            self.kernel = None

    def forward(self, scheduled: abc.Sequence[ScheduledTokens]) -> Any:
        order = sorted(range(len(scheduled)), key=lambda at: scheduled[at].slot.index or 0)
        batch = _FlatBatch([scheduled[at] for at in order])
        with torch.inference_mode(), self._without_peft(), self._patched(batch):
            hidden = self._hidden_states(batch)
            for item in scheduled:
                item.kv.tokens += item.tokens
            ends = {at: batch.starts[n] + len(scheduled[at].tokens) for n, at in enumerate(order)}
            rows = [
                row
                for at, item in enumerate(scheduled)
                for row in range(ends[at] - item.logits, ends[at])
            ]
            return self.model.get_output_embeddings()(hidden[rows]).float()

    def _hidden_states(self, batch: _FlatBatch) -> Any:
        ids = [token for item in batch.scheduled for token in item.tokens]
        places = [
            len(item.kv.tokens) + n for item in batch.scheduled for n in range(len(item.tokens))
        ]
        inputs, positions = (
            torch.tensor([numbers], device=self.model.device) for numbers in (ids, places)
        )
        output = self.model.base_model(
            input_ids=inputs, position_ids=positions, use_cache=False, batch=batch
        )
        return output.last_hidden_state[0]

    @contextmanager
    def _patched(self, batch: _FlatBatch) -> Iterator[None]:
        """Let attention read the sequences' KV caches and linear layers add adapters, for a `with`
        block.
        """
        attention = self.model.config._attn_implementation
        self.model.set_attn_implementation(ATTENTION_NAME)
        self._batch = batch
        if batch.is_decoding:
            batch.gathered = self._gather_adapters(batch)
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
            self._gathered = (
                key,
                {name: (a[slots], b[slots]) for name, (a, b) in self.stack.pairs.items() if slots},
            )
        return self._gathered[1]

    def _with_adapters(self, name: str, linear: Any) -> Any:
        def forward(x: Any) -> Any:
            y = linear(x)
            batch = self._batch
            if batch is None or name not in self.stack.pairs:
                return y
            flat = x.reshape(batch.length, -1)
            out = y.view(batch.length, -1)
            if batch.is_decoding:
                if name in batch.gathered:
                    a, b = batch.gathered[name]
                    first = batch.length - len(a)
                    out[first:] += torch.bmm(torch.bmm(flat[first:, None], a.transpose(1, 2)), b)[
                        :, 0
                    ]
                return y
            a, b = self.stack.pairs[name]
            for slot, begin, end in batch.groups:
                if slot:
                    out[begin:end] += (flat[begin:end] @ a[slot].T) @ b[slot]
            return y

        return forward


def ragged_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    batch: _FlatBatch,
    **settings: Any,
) -> tuple[Any, None]:
    """Store keys and values, then attend per sequence: `[1, heads, tokens, width]` → `[1, tokens,
    heads, width]`.
    """
    parts = []
    for start, item in zip(batch.starts, batch.scheduled, strict=True):
        tokens = slice(start, start + len(item.tokens))
        cached = len(item.kv.tokens)
        memory = item.kv.memory[module.layer_idx]
        memory[0, :, cached : cached + len(item.tokens)] = key[0, :, tokens]
        memory[1, :, cached : cached + len(item.tokens)] = value[0, :, tokens]
        parts.append(_attend(query[:, :, tokens], memory[:, None], cached, settings))
    return torch.cat(parts, 2).transpose(1, 2), None


def _attend(query: Any, memory: Any, cached: int, settings: Mapping[str, Any]) -> Any:
    """Attend from the tokens after `cached` others to all of them, in `memory` `[2, 1, heads,
    capacity, width]`.
    """
    length = query.shape[2]
    window = settings.get("sliding_window")
    first = max(0, cached + 1 - window) if window else 0
    keys, values = memory[:, :, :, first : cached + length]
    mask = None
    if length > 1:
        queried = torch.arange(cached, cached + length, device=query.device)[:, None]
        attended = torch.arange(first, cached + length, device=query.device)[None]
        mask = (
            attended <= queried
            if not window
            else (attended <= queried) & (attended > queried - window)
        )
    return F.scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=mask,
        scale=settings.get("scaling"),
        enable_gqa=query.shape[1] != keys.shape[1],
    )


def _cache_shape(model: Any) -> CacheShape:
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return CacheShape(config.num_hidden_layers, heads, width, model.dtype, model.device)
