"""Builds an engine around a loaded model: runner, LoRA slots, peft as the fallback, and the batch."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from personas.engine import EngineState
from personas.engine.context_window import (
    RESERVED_ROW_TOKENS,
    RUNNING_MEMORY_SHARE,
    ContextWindow,
)
from personas.engine.cuda_graphs import CudaGraphs
from personas.engine.effect_probe import EffectChecks
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.hugepages import move_weights_to_huge_pages
from personas.engine.kv_cache import kv_token_bytes
from personas.engine.lora_runner import StackedLoraRunner
from personas.engine.lora_slots import MAX_STACKED_RANK, AdapterWeights, LoraSlots, read_adapter
from personas.engine.model_runner import ScheduledTokens
from personas.engine.paged_runner import PagedLoraRunner
from personas.engine.peft_runner import PROBE_TOKENS, PeftRunner, PeftSwitcher
from personas.engine.step import BatchGenerator
from personas.engine.trials import OnTried
from personas.errors import BaseModelError, is_out_of_memory
from personas.models.model_fit import BATCHED_MODEL_TYPES
from personas.models.probe import differs, plain_logits, probe_tokens
from personas.models.rope_scaling import has_angles_by_length
from personas.models.serving_model import free_device_bytes, precision_of
from personas.schemas.chat import MAX_CANDIDATES, AdapterRef

log = logging.getLogger(__name__)
SPEED_PROBE_TOKENS = 64
SLOT_MEMORY_FRACTION = 0.2
"""Share of the free memory for LoRA slots, assuming adapters of the largest rank on all layers."""
ROUNDING_ALLOWANCE = 3.0
"""A batch is given up where it differs by so many times the limit of rounding: one at a time is
many times slower.
"""


@dataclass(frozen=True)
class EngineParts:
    """A loaded model, its adapters and its batch. `read` may run on any thread, the rest on the
    model's thread.
    """

    batch: BatchGenerator
    stacked: StackedLoraRunner | None
    lora: LoraSlots
    peft: PeftSwitcher
    read: Callable[[AdapterRef], AdapterWeights]

    def state(self, name: str, window: ContextWindow, rows: int) -> EngineState:
        """Return the current load. Thread-safe."""
        slots = kept_bytes = kept_most_bytes = 0
        candidates = 1
        if self.stacked:
            slots = self.stacked.stack.slots
            if prefixes := self.stacked.prefixes:
                candidates = MAX_CANDIDATES
                kept_bytes = prefixes.bytes
                kept_most_bytes = prefixes.max_bytes
        return EngineState(
            model=name,
            device=self.peft.model.device.type,
            precision=precision_of(self.peft.model),
            context_tokens=window.tokens,
            context_reason=window.reason,
            running=self.batch.running,
            rows=rows,
            waiting=self.batch.waiting,
            slots=slots,
            adapters=self.lora.resident,
            kept_bytes=kept_bytes,
            kept_most_bytes=kept_most_bytes,
            candidates=candidates,
        )

    def prefill_tokens_per_s(self) -> float:
        """Measure how fast a prompt is computed, on a short one. On the model's thread."""
        tokens = probe_tokens(self.peft.model, SPEED_PROBE_TOKENS)
        runner = self.batch.runner
        kv = runner.new_kv_cache(len(tokens))
        started_at = time.perf_counter()
        runner.backend.forward([ScheduledTokens(kv, tokens)])
        return len(tokens) / (time.perf_counter() - started_at)

    def capture_steps(self, rows: int, tokens: int) -> None:
        """Capture the steps of up to so many rows and tokens, where the device has CUDA graphs. On
        the model's thread.
        """
        if isinstance(self.stacked, PagedLoraRunner):
            self.stacked.capture_steps(rows, tokens)

    def load_adapter(
        self, weights: AdapterWeights, on_loaded: OnTried = lambda error: None
    ) -> None:
        """Load an adapter before it is needed, if a slot is free, and have it show its effect.

        `on_loaded` is called with the reason why it is not used, or None. Raises `AdapterError`
        when it does not fit.
        """
        if weights.pairs is None:
            self.peft.load(weights.ref)
        self.lora.add(weights)
        self.batch.trials.wait_for(weights.ref.name, on_loaded)

    def drop_adapter(self, ref: AdapterRef, on_dropped: Callable[[], None]) -> None:
        """Remove an adapter and the prefixes computed with it once its replies have ended."""
        self.batch.warmer.drop_adapter(ref)

        def forget() -> None:
            try:
                self.peft.drop(ref)
                if self.stacked and self.stacked.prefixes:
                    self.stacked.prefixes.drop_adapter(ref.name)
            finally:
                on_dropped()

        self.lora.drop(ref, forget)

    def close(self) -> None:
        """Give up trials, and stop the threads of the adapter reader and of the compiled kernel."""
        self.batch.trials.close()
        self.lora.close()
        if self.stacked:
            self.stacked.close()


def build_engine_parts(
    model: Any,
    base_hash: str,
    limits: SchedulerLimits,
    *,
    slots: int,
    prefix_bytes: int,
    on_adapter_read: Callable[[], None] = lambda: None,
    effects: EffectChecks | None = None,
) -> EngineParts:
    """Build an engine around a loaded model. `on_adapter_read` is called on the thread that reads
    adapters. With `effects`, an adapter has to show its effect before it is used.

    Its short cuts are compared with the plain model first. Raises `BaseModelError` if that gives no
    numbers.
    """
    peft = PeftSwitcher(model, base_hash)
    fallback = PeftRunner(peft)
    if limits.kv_bytes is None and decodes_in_static_shapes(model):
        limits = replace(limits, kv_bytes=_default_kv_bytes(model, limits))
    kv_bytes = limits.kv_bytes or 0
    stacked = _build_stacked_runner(
        model, peft, slots=slots, prefix_bytes=prefix_bytes, kv_bytes=kv_bytes
    )
    stack = None
    if stacked is None:
        fallback.probe()
    else:
        stack = stacked.stack

    def read(ref: AdapterRef) -> AdapterWeights:
        can_stack = stacked is not None
        weights = read_adapter(ref, base_hash, peft.layers, can_stack=can_stack)
        if effects is None:
            return weights
        return replace(weights, effect=effects.pending(ref, local_place(model, stacked)))

    lora = LoraSlots(stack, read, on_adapter_read)
    batch = BatchGenerator(stacked or fallback, fallback, lora, limits)
    batch.vocabulary = int(model.get_input_embeddings().weight.shape[0])
    return EngineParts(batch, stacked, lora, peft=peft, read=read)


def local_place(model: Any, stacked: StackedLoraRunner | None) -> str:
    """Name the engine in this process and what computes in it, for the results of effect probes."""
    kernel = "one reply at a time"
    if stacked is not None:
        kernel = "the compiled kernel" if stacked.kernel else "the model's modules"
    return f"this bot's engine ({model.device.type}, {kernel}, torch {torch.__version__})"


def decodes_in_static_shapes(model: Any) -> bool:
    """Tell whether a model's device computes a step of many calls in the time of its calls, not of
    its numbers.
    """
    return bool(model.device.type != "cpu")


def _default_kv_bytes(model: Any, limits: SchedulerLimits) -> int:
    """Return the memory to reserve for keys and values where nobody has planned it."""
    wanted = limits.max_rows * RESERVED_ROW_TOKENS * kv_token_bytes(model)
    return min(wanted, int(free_device_bytes(model.device.type) * RUNNING_MEMORY_SHARE))


def _build_stacked_runner(
    model: Any, peft: PeftSwitcher, slots: int, prefix_bytes: int, kv_bytes: int
) -> StackedLoraRunner | None:
    if model.config.model_type not in BATCHED_MODEL_TYPES:
        log.warning(
            "replies are generated one at a time: %s models cannot be batched",
            model.config.model_type,
        )
        return None
    if has_angles_by_length(model.config):
        log.warning(
            "replies are generated one at a time: this model's rotary angles change with the length "
            "of a text"
        )
        return None
    move_weights_to_huge_pages(model)

    def without_peft() -> AbstractContextManager[Any]:
        if peft.peft_model is None:
            return nullcontext()
        disabled: AbstractContextManager[Any] = peft.peft_model.disable_adapter()
        return disabled

    slots = min(slots, _max_slots_in_memory(model))
    runner: StackedLoraRunner
    if decodes_in_static_shapes(model):
        capture = CudaGraphs() if model.device.type == "cuda" else None
        runner = PagedLoraRunner(
            model, slots, prefix_bytes, without_peft, kv_bytes=kv_bytes, capture=capture
        )
    else:
        runner = StackedLoraRunner(model, slots, prefix_bytes, without_peft)
    if _differs_from_plain_model(runner):
        log.warning(
            "replies are generated one at a time: a batch gives other results than this model alone"
        )
        return None
    return runner


def _differs_from_plain_model(runner: StackedLoraRunner) -> bool:
    """Compare two texts that are prefilled in parts and decoded together with a full pass over
    each.
    """
    model = runner.model
    half = PROBE_TOKENS // 2
    texts = [probe_tokens(model, PROBE_TOKENS, first) for first in (0, PROBE_TOKENS)]
    first_text, second_text = texts
    first_kv = runner.new_kv_cache(PROBE_TOKENS)
    second_kv = runner.new_kv_cache(PROBE_TOKENS)
    try:
        with torch.inference_mode():
            expected = torch.stack([plain_logits(model, text)[-1] for text in texts])
            runner.forward([ScheduledTokens(first_kv, first_text[:half], logits=0)])
            first = ScheduledTokens(first_kv, first_text[half:-1])
            runner.forward([first, ScheduledTokens(second_kv, second_text[:-1])])
            first = ScheduledTokens(first_kv, first_text[-1:])
            logits = runner.forward([first, ScheduledTokens(second_kv, second_text[-1:])])
    except BaseModelError:
        raise
    except Exception as error:  # such as a layer with other arguments: the fallback computes then
        if is_out_of_memory(error):
            raise
        log.info("a batch that does not work here", exc_info=True)
        return True
    return differs(model, logits, expected, ROUNDING_ALLOWANCE)


def _max_slots_in_memory(model: Any) -> int:
    widths = 0
    for module in model.modules():
        if hasattr(module, "in_features"):
            widths += module.in_features + module.out_features
    adapter_bytes = widths * MAX_STACKED_RANK * model.dtype.itemsize
    free_bytes = free_device_bytes(model.device.type)
    return max(2, int(free_bytes * SLOT_MEMORY_FRACTION / adapter_bytes))
