"""Chooses layout of batches, attention and fused kernels for a model and machine: flash,
Liger, LoRA; on a CPU, dropout too.
"""

import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.utils import is_flash_attn_2_available

from trainer.estimate.workload import LOSS_CHUNK_TOKENS
from trainer.machine import MachineSpec
from trainer.schemas import Recipe
from trainer.train.collator import Layout, has_plain_head, pack_ids
from trainer.train.fused_lora import fused_lora
from trainer.train.layout_probe import (
    adapter_gradients_differ,
    losses_differ,
    prefix_obstacle,
    row_obstacle,
)

GROUPED_ATTENTION = "grouped_matmul"
DROPOUT_LEVELS = 256
FUSED_LORA_NOTE = "LoRA layers: those with the same input computed together."
LIGER_PATCHED_ATTRIBUTES = ("forward", "extra_repr", "_get_name")
"""Attributes that Liger binds to single layers."""
FLASH_ATTENTION = "flash_attention_2"
MAX_LOGIT_DIFFERENCE = 1e-2
"""Allowed difference of a sample's logits, as a share of their size: 16-bit rounding, far less than
attention leaks.
"""
log = logging.getLogger(__name__)


def use_grouped_attention(model: Any) -> None:
    """Replace torch's attention on the CPU by two batched matrix products, if the losses stay the
    same.

    Torch's fused kernel saves memory, but takes four times as long for prompts of some hundred
    tokens with a mask.
    """
    # Capped logits (Gemma 2) are a step between the two products, which `grouped_attention` lacks.
    is_capped = hasattr(model.config, "attn_logit_softcapping")
    if model.config._attn_implementation != "sdpa" or is_capped or model.device.type != "cpu":
        return
    if losses_differ(model, _attention_set(model, GROUPED_ATTENTION)):
        log.warning(
            "%s models keep torch's attention: as two products it gives other losses",
            model.config.model_type,
        )
    else:
        model.set_attn_implementation(GROUPED_ATTENTION)


@contextmanager
def _attention_set(model: Any, way: str) -> Iterator[None]:
    """Set the attention implementation for a `with` block."""
    before = model.config._attn_implementation
    model.set_attn_implementation(way)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def grouped_attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Softmax attention. `query` [rows, heads, new, d]; `key` [rows, kv heads, seen, d]; `value` as
    `key`, or of another width; `mask` [1 or rows, 1, new, seen], added.

    The query heads that share a key head lie next to each other, so they can be multiplied with it
    as one long head, and no key has to be copied. Returns [rows, new, heads, d].
    """
    rows, heads, new, width = query.shape
    groups = key.shape[1]
    seen = key.shape[2]
    together = heads // groups * new
    queries = query.reshape(rows * groups, together, width)
    keys = key.reshape(rows * groups, seen, key.shape[3])
    values = value.reshape(rows * groups, seen, value.shape[3])
    masks = mask.to(query.dtype).expand(-1, heads // groups, -1, -1).reshape(-1, together, seen)
    if len(masks) > 1:
        masks = masks.repeat_interleave(groups, dim=0)
    weights = torch.baddbmm(masks, queries, keys.transpose(1, 2), alpha=scaling).softmax(-1)
    return torch.bmm(weights, values).view(rows, heads, new, value.shape[3]).transpose(1, 2), None


AttentionInterface.register(GROUPED_ATTENTION, grouped_attention)
AttentionMaskInterface.register(GROUPED_ATTENTION, eager_mask)


def share_dropout(peft_model: Any) -> None:
    """Let all adapters of the model drop their inputs through one `SharedDropout`."""
    shares: dict[float, SharedDropout] = {}
    for module in peft_model.modules():
        for name, dropout in getattr(module, "lora_dropout", {}).items():
            if isinstance(dropout, nn.Dropout):
                module.lora_dropout[name] = shares.setdefault(dropout.p, SharedDropout(dropout.p))


class SharedDropout(nn.Module):
    """Dropout that draws once for modules that are called with the same tensor one after another
    (q, k, v; gate, up).

    The rate is rounded to 1/256, so that one random byte decides on each value; drawing a float for
    each and masking every module's input anew takes as long as the matrix products do.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._dropped_levels = round(rate * DROPOUT_LEVELS)
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, values: Tensor) -> Tensor:
        """In training, zero some of the values and scale the others up; otherwise return them
        unchanged.
        """
        if not self.training:
            self._last = None
            return values
        if self._last is None or self._last[0] is not values:
            dropped: Tensor = _SharedDropoutFunction.apply(values, self._dropped_levels)  # type: ignore[no-untyped-call]
            self._last = (values, dropped)
        return self._last[1]


class _SharedDropoutFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, dropped_levels: int) -> Tensor:
        # Eight bytes from each draw, which needs the whole range: torch's default leaves out the
        # sign bit.
        words = torch.empty(-(-values.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        levels = words.view(torch.uint8)[: values.numel()].view(values.shape)
        kept = levels >= dropped_levels
        ctx.save_for_backward(kept)
        ctx.scale = DROPOUT_LEVELS / (DROPOUT_LEVELS - dropped_levels)
        return torch.where(kept, values * ctx.scale, 0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (kept,) = ctx.saved_tensors
        return torch.where(kept, gradients[0] * ctx.scale, 0), None


def liger_unavailable_reason(model: Any, machine: MachineSpec) -> str:
    """Return why Liger cannot be used; empty if it can."""
    if not machine.has_cuda:
        return "needs CUDA"
    if importlib.util.find_spec("liger_kernel") is None:
        return "not installed"
    kind = model.config.model_type
    if kind not in _liger_patches().MODEL_TYPE_TO_APPLY_LIGER_FN:
        return f"does not know models of the kind {kind}"
    if losses_differ(model, liger_kernels(model)):
        return "gives other losses than the plain model"
    return ""


@contextmanager
def liger_kernels(model: Any) -> Iterator[None]:
    """Patch the model, with or without an adapter, with Liger's kernels for a `with` block."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    modelling = sys.modules[type(causal).__module__]
    # Liger replaces functions in the model's module and methods of its layers, and has no way back.
    functions = dict(vars(modelling))
    layers: list[tuple[Any, dict[str, Any]]] = []
    for layer in causal.modules():
        own = vars(layer)
        layers.append(
            (layer, {name: own[name] for name in LIGER_PATCHED_ATTRIBUTES if name in own})
        )
    # The losses are computed here, of trained tokens only (`trainer.train.collator`).
    disabled = {"cross_entropy": False, "fused_linear_cross_entropy": False}
    _liger_patches()._apply_liger_kernel_to_instance(model=causal, **disabled)
    try:
        yield
    finally:
        vars(modelling).update(functions)
        for layer, before in layers:
            for name in LIGER_PATCHED_ATTRIBUTES:
                vars(layer).pop(name, None)
            vars(layer).update(before)


def _liger_patches() -> ModuleType:
    return importlib.import_module("liger_kernel.transformers.monkey_patch")


@dataclass(frozen=True)
class KernelSelection:
    """Selected kernels, and the layout of batches that they need. `notes` explain the selection.

    `fuses_lora`: LoRA layers with the same input are computed together. `chunked_loss`: no more
    logits than necessary are kept. `shares_prefix`: what the prompts of a batch share is computed
    once.
    """

    layout: Layout
    liger: bool
    notes: tuple[str, ...]
    fuses_lora: bool = True
    chunked_loss: bool = False
    shares_prefix: bool = True

    @contextmanager
    def in_use(self, model: Any) -> Iterator[None]:
        """Patch the model for a `with` block."""
        with ExitStack() as stack:
            if self.liger:
                stack.enter_context(liger_kernels(model))
            if self.fuses_lora:
                stack.enter_context(fused_lora(model))
            yield


def choose_kernels(
    model: Any, recipe: Recipe, machine: MachineSpec, *, pads: bool = False
) -> KernelSelection:
    """Choose kernels for a loaded base model without an adapter, and set its attention
    implementation. With `pads`, each sample has a row of its own.
    """
    kind: Layout = "padded"
    failed_attempts: list[str] = []
    if not pads:
        kind, failed_attempts = _choose_layout(model, machine)
    obstacle = prefix_obstacle(model, trains=True)
    if kind == "rows":
        layout = "samples in one row, what their prompts share computed once"
    elif kind == "packed":
        layout = "samples packed without padding"
    elif obstacle:
        layout = f"samples padded, what their prompts share computed for each ({obstacle})"
        log.warning("%s models: %s", model.config.model_type, layout)
    elif recipe.gradient_checkpointing:
        # Layers that are computed again keep no KV cache, so there is no prefix to share.
        layout = "samples padded"
    else:
        layout = "what the prompts of a batch share computed once"
    no_liger = liger_unavailable_reason(model, machine)
    chunked_loss = has_plain_head(model)
    logits = "of trained tokens only"
    if chunked_loss:
        logits += f", {LOSS_CHUNK_TOKENS} at a time"
    notes = [
        f"Attention: {model.config._attn_implementation}, {layout}.",
        *failed_attempts,
        f"Logits: {logits}.",
        FUSED_LORA_NOTE,
        f"Optimiser: {recipe.optim}.",
        f"Liger: {no_liger or 'its RMSNorm, rotary embedding and gated products'}.",
    ]
    return KernelSelection(
        layout=kind,
        liger=not no_liger,
        notes=tuple(notes),
        chunked_loss=chunked_loss,
        shares_prefix=not obstacle,
    )


def verify_fused_lora(peft_model: Any, kernels: KernelSelection) -> KernelSelection:
    """Give up the fused LoRA layers if a new adapter learns something else with them than with
    peft's own.
    """
    if not adapter_gradients_differ(peft_model, fused_lora(peft_model)):
        return kernels
    note = "LoRA layers: each computed alone, because together they give other gradients."
    log.warning("%s", note)
    other_notes = [other for other in kernels.notes if other != FUSED_LORA_NOTE]
    return replace(kernels, fuses_lora=False, notes=(*other_notes, note))


def _choose_layout(model: Any, machine: MachineSpec) -> tuple[Layout, list[str]]:
    """Return the layout of batches, its attention set, and sentences on failed attempts.

    Torch's flex attention is none of them: it would be compiled anew for the lengths of many
    batches.
    """
    if not machine.has_cuda:
        return "padded", []
    reason = row_obstacle(model)
    if not reason:
        return "rows", []
    failed_attempts = [f"Samples do not share a beginning in a row: {reason}."]
    if not is_flash_attn_2_available():
        return "padded", failed_attempts
    before = model.config._attn_implementation
    reason = _packing_unavailable_reason(model)
    if not reason:
        return "packed", failed_attempts
    model.set_attn_implementation(before)
    return "padded", [*failed_attempts, f"{FLASH_ATTENTION} was not used: {reason}."]


def _packing_unavailable_reason(model: Any) -> str:
    """Try flash attention: return why it fails or lets packed samples see each other, else
    nothing.
    """
    try:
        model.set_attn_implementation(FLASH_ATTENTION)
        first = _second_sample_logits(model, 3)
        second = _second_sample_logits(model, 7)
    except Exception as error:
        # Kernels fail in many ways, and each has another one to take its place.
        log.info("kernels that do not work here", exc_info=True)
        return f"it does not work here ({type(error).__name__})"
    if (first - second).abs().max() > MAX_LOGIT_DIFFERENCE * first.abs().max():
        return "the model lets samples in one row see each other"
    return ""


def _second_sample_logits(model: Any, token: int) -> torch.Tensor:
    """Return the logits of the second of two samples in one row; the first repeats a token."""
    batch = pack_ids([[token] * 16, list(range(3, 19))])
    with torch.inference_mode():
        row = {name: tensor.to(model.device) for name, tensor in batch.items()}
        logits: torch.Tensor = model(**row, use_cache=False).logits
    return logits[0, 16:].float()
