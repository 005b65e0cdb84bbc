"""Computes LoRA layers with the same input together, over plain weights and over 4-bit ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora.bnb import Linear4bit as LoraLinear4bit
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from trainer.estimate.memory_model import SHARED_INPUT_MODULES


@contextmanager
def fused_lora(peft_model: Any) -> Iterator[None]:
    """Fuse the LoRA layers of a model, where they are plain ones, for a `with` block.

    Layers that take the same input (q, k, v; gate, up) become one function with a backward pass of
    its own. Peft computes each layer apart, and autograd keeps and adds up every part: with short
    samples, such passes over the activations take longer than the matrix products, and a GPU waits
    for the host to start them. The adapters are cast together, once for each step of an optimiser.
    """
    copies = AdapterCopies()
    fused = [LoraGroup(layers, copies) for layers in _find_groups(peft_model)]

    def expire(*_: Any) -> None:
        copies.expire()

    # Optimisers of bitsandbytes change weights without a new version of the tensor.
    hook = register_optimizer_step_post_hook(expire)
    try:
        yield
    finally:
        hook.remove()
        for group in fused:
            group.undo()


def _find_groups(model: Any) -> Iterator[list[LoraLinear]]:
    for module in model.modules():
        single: dict[str, Any] = {}
        for name, layer in module.named_children():
            if _is_plain(layer):
                single[name] = layer
        for names in SHARED_INPUT_MODULES:
            if not single.keys() >= set(names):
                continue
            # One product adds one bias, so that all layers have to have one, or none.
            alike = {_likeness(single[name]) for name in names}
            if len(alike) == 1:
                yield [single.pop(name) for name in names]
        for layer in single.values():
            yield [layer]


def _likeness(layer: Any) -> tuple[Any, ...]:
    """Return what layers of a group have to have in common."""
    base = layer.base_layer
    return (type(base), base.bias is None, base.weight.device)


def _is_plain(layer: Any) -> bool:
    """Report whether a layer is a linear one with one LoRA adapter, without DoRA or an adapter's
    bias.
    """
    if type(layer) is LoraLinear:
        is_linear = type(layer.base_layer) is nn.Linear and not layer.fan_in_fan_out
    elif type(layer) is LoraLinear4bit:
        # Some processors get weights in an order of their own in evaluation.
        state = layer.base_layer.weight.quant_state
        is_linear = state is not None and not getattr(state, "packing_format_for_cpu", False)
    else:
        return False
    return (
        is_linear
        and len(layer.lora_A) == 1
        and not layer.lora_variant
        and not layer.lora_bias[next(iter(layer.lora_A))]
    )


def _product_dtype(x: Tensor) -> torch.dtype:
    """Return the precision in which a layer multiplies: autocast's, else the input's."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


@dataclass(frozen=True)
class _Block:
    """Layers of a group, by their places, whose base weights are one matrix [outputs, inputs]."""

    places: slice
    weight: Tensor
    bias: Tensor | None
    state: Any = None
    """The constants of 4-bit weights; None for plain ones."""

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """Return the weights, unpacked for this one use if they are in 4 bits."""
        weight = self.weight if self.state is None else dequantize_4bit(self.weight, self.state)
        return weight.to(dtype)

    def product(self, rows: Tensor) -> Tensor:
        """Return the base layers' outputs [tokens, outputs] for rows [tokens, inputs]."""
        weight = self.matrix(rows.dtype)
        if self.bias is None:
            return rows @ weight.T
        return torch.addmm(self.bias.to(rows.dtype), rows, weight.T)


def _make_blocks(layers: Sequence[Any]) -> list[_Block]:
    """Stack plain weights to one block; 4-bit ones stay a block each."""
    if isinstance(layers[0].base_layer, Linear4bit):
        blocks: list[_Block] = []
        for place, layer in enumerate(layers):
            packed = layer.base_layer.weight
            places = slice(place, place + 1)
            bias = layer.base_layer.bias
            blocks.append(_Block(places, packed.data, bias=bias, state=packed.quant_state))
        return blocks
    weight = torch.cat([layer.base_layer.weight.data for layer in layers])
    bias = None
    if layers[0].base_layer.bias is not None:
        bias = torch.cat([layer.base_layer.bias.data for layer in layers])
    parts = torch.split(weight, [layer.out_features for layer in layers])
    for layer, part in zip(layers, parts, strict=True):
        layer.base_layer.weight.data = part  # a view, so that the weights are held once
    return [_Block(slice(0, len(layers)), weight, bias=bias)]


@dataclass(frozen=True)
class AdapterCopy:
    """A place for the copy of an adapter's matrix, times `scale`."""

    target: Tensor
    matrix: Tensor
    scale: float = 1.0


class AdapterCopies:
    """Copies of a model's adapters in the precision of the products: renewed in two calls, not some
    for each layer.
    """

    def __init__(self) -> None:
        self._copies: dict[LoraGroup, list[AdapterCopy]] = {}
        self._are_current = True

    def expire(self) -> None:
        """Have the copies renewed before their next use: the adapters have changed."""
        self._are_current = False

    def add(self, group: LoraGroup, copies: list[AdapterCopy]) -> None:
        """Make a group's copies, in place of those that it had."""
        self._copies[group] = copies
        self._make(copies)

    def renew(self) -> None:
        """Make all copies anew if an optimiser's step came between."""
        if not self._are_current:
            self._make(list(chain.from_iterable(self._copies.values())))
            self._are_current = True

    def _make(self, copies: Sequence[AdapterCopy]) -> None:
        torch._foreach_copy_([copy.target for copy in copies], [copy.matrix for copy in copies])
        scaled = [copy for copy in copies if copy.scale != 1]
        if scaled:
            torch._foreach_mul_([copy.target for copy in scaled], [copy.scale for copy in scaled])


class LoraGroup:
    """Computes its layers together when the first is called; the next ones, called with the same
    input, get theirs.

    `sizes` are the layers' outputs, `ranks` those of their adapters; `blocks` have the base weights.
    `scales` [all ranks, 1], in the adapters' precision, are what their outputs are multiplied by.
    """

    def __init__(self, layers: Sequence[Any], copies: AdapterCopies) -> None:
        self._layers = layers
        self._copies = copies
        self._name = next(iter(layers[0].lora_A))
        self.blocks = _make_blocks(layers)
        self.sizes = [layer.out_features for layer in layers]
        self.ranks = [layer.lora_A[self._name].out_features for layer in layers]
        parts = [
            torch.full((rank, 1), scale)
            for rank, scale in zip(self.ranks, self._scaling(), strict=True)
        ]
        self.scales = torch.cat(parts).to(layers[0].lora_A[self._name].weight)
        self._outputs: tuple[Tensor, list[Tensor | None]] | None = None
        self._casts: tuple[Tensor, list[Tensor]] | None = None
        for place, layer in enumerate(layers):
            layer.forward = partial(self._forward, place)

    def undo(self) -> None:
        """Give the layers their own computation back."""
        self._outputs = self._casts = None
        for layer in self._layers:
            del layer.forward

    def casts(self, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
        """Return the adapters in the precision of the products: the scaled A of all layers [all
        ranks, inputs], and for each block its B as one block-diagonal matrix [outputs, ranks].
        """
        self._copies.renew()
        if self._casts is None or self._casts[0].dtype != dtype:
            self._casts = self._make_casts(dtype)
        return self._casts

    def _make_casts(self, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
        downs = [layer.lora_A[self._name].weight for layer in self._layers]
        ups = [layer.lora_B[self._name].weight for layer in self._layers]
        down = downs[0].new_empty(sum(self.ranks), downs[0].shape[1], dtype=dtype)
        copies: list[AdapterCopy] = []
        for target, matrix, scale in zip(
            torch.split(down, self.ranks), downs, self._scaling(), strict=True
        ):
            copies.append(AdapterCopy(target, matrix, scale))
        diagonals: list[Tensor] = []
        for block in self.blocks:
            sizes = self.sizes[block.places]
            ranks = self.ranks[block.places]
            diagonal = ups[0].new_zeros(sum(sizes), sum(ranks), dtype=dtype)
            rows = torch.split(diagonal, sizes)
            for place, matrix in enumerate(ups[block.places]):
                copies.append(AdapterCopy(torch.split(rows[place], ranks, 1)[place], matrix))
            diagonals.append(diagonal)
        self._copies.add(self, copies)
        return down, diagonals

    def _scaling(self) -> list[float]:
        return [layer.scaling[self._name] for layer in self._layers]

    def _forward(self, place: int, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self._layers[place]
        is_off = layer.disable_adapters or layer.merged or self._name not in layer.active_adapters
        # Without gradients too, so that held-out losses are peft's to the bit.
        if is_off or args or kwargs or not torch.is_grad_enabled():
            return type(layer).forward(layer, x, *args, **kwargs)  # type: ignore[no-any-return]
        if self._outputs is None or self._outputs[0] is not x or self._outputs[1][place] is None:
            self._outputs = (x, list(self._compute(x)))
        outputs = self._outputs[1]
        output = outputs[place]
        assert output is not None
        # Each output is handed out once and then forgotten, as are all with the last one:
        # otherwise the group would keep a batch's activations.
        outputs[place] = None
        if all(other is None for other in outputs):
            self._outputs = None
        return output

    def _compute(self, x: Tensor) -> tuple[Tensor, ...]:
        adapters = []
        for layer in self._layers:
            adapters += [layer.lora_A[self._name].weight, layer.lora_B[self._name].weight]
        dropped = self._layers[0].lora_dropout[self._name](x)
        outputs: tuple[Tensor, ...] = _FusedLora.apply(x, dropped, self, *adapters)  # type: ignore[no-untyped-call]
        return outputs


class _FusedLora(torch.autograd.Function):
    """y = x Wᵀ + bias + scale · dropped Aᵀ Bᵀ for stacked W, A and block-diagonal B; only A, B and
    x have gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: Tensor, group: LoraGroup, *adapters: Tensor) -> Any:
        dtype = _product_dtype(x)
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        is_dropped = dropped is not x
        dropped_rows = dropped.reshape(-1, x.shape[-1]).to(dtype) if is_dropped else rows
        down, ups = group.casts(dtype)
        inner = dropped_rows @ down.T
        inners = torch.split(inner, group.ranks, 1)
        outputs: list[Tensor] = []
        for block, up in zip(group.blocks, ups, strict=True):
            y = block.product(rows)
            y.addmm_(_columns(inner, inners, block), up.T)
            outputs += torch.split(y, group.sizes[block.places], 1)
        ctx.save_for_backward(dropped_rows, inner)
        ctx.casts = (down, ups)
        ctx.group = group
        ctx.shape = x.shape
        ctx.dtype = x.dtype
        ctx.is_dropped = is_dropped
        return tuple(part.view(*x.shape[:-1], -1) for part in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        dropped, inner = ctx.saved_tensors
        down, ups = ctx.casts
        group = ctx.group
        inners = torch.split(inner, group.ranks, 1)
        g_rows = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        g_inner_parts: list[Tensor] = []
        g_x: Tensor | None = None
        for block, up in zip(group.blocks, ups, strict=True):
            parts = g_rows[block.places]
            g = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
            g_inner_parts.append(g @ up)
            if ctx.needs_input_grad[0]:
                weight = block.matrix(g.dtype)
                g_x = g @ weight if g_x is None else g_x.addmm_(g, weight)
        g_inner = g_inner_parts[0] if len(g_inner_parts) == 1 else torch.cat(g_inner_parts, 1)
        # Multiplied and cast in one: `inner` was computed by the scaled A.
        g_downs = torch.split((g_inner.T @ dropped) * group.scales, group.ranks)
        # B is block-diagonal, and its zeros need no gradient: a product for each layer.
        adapters: list[Tensor] = []
        for g_down, g_row, own in zip(g_downs, g_rows, inners, strict=True):
            adapters += [g_down, (g_row.T @ own).to(group.scales.dtype)]
        g_dropped = None
        if g_x is not None:
            if not ctx.is_dropped:
                g_x.addmm_(g_inner, down)
            g_x = g_x.view(ctx.shape).to(ctx.dtype)
        if ctx.is_dropped and ctx.needs_input_grad[1]:
            g_dropped = (g_inner @ down).view(ctx.shape).to(ctx.dtype)
        return g_x, g_dropped, None, *adapters


def _columns(inner: Tensor, inners: Sequence[Tensor], block: _Block) -> Tensor:
    """Return the outputs of A that a block's layers take."""
    parts = inners[block.places]
    return inner if len(parts) == len(inners) else parts[0]
