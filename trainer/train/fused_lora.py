"""Computes LoRA layers with the same input as one product, on the CPU."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

FUSED_LORA_GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of a module that take the same input; any other layer is a group of its own."""


@contextmanager
def fused_lora(peft_model: Any) -> Iterator[None]:
    """Fuse the LoRA layers of a model, where they are plain ones, for a `with` block.

    Layers that take the same input (q, k, v; gate, up) become one product with a backward pass of
    its own. Peft computes each layer apart, and autograd keeps and adds up every part: with short
    samples, such passes over the activations take longer than the matrix products.
    """
    fused = [LoraGroup(layers) for layers in _find_groups(peft_model)]
    try:
        yield
    finally:
        for group in fused:
            group.undo()


def _find_groups(model: Any) -> Iterator[list[LoraLinear]]:
    for module in model.modules():
        single: dict[str, Any] = {}
        for name, layer in module.named_children():
            if _is_plain(layer):
                single[name] = layer
        for names in FUSED_LORA_GROUPS:
            if not single.keys() >= set(names):
                continue
            # One product adds one bias, so that all layers have to have one, or none.
            without_bias = {single[name].base_layer.bias is None for name in names}
            if len(without_bias) == 1:
                yield [single.pop(name) for name in names]
        for layer in single.values():
            yield [layer]


def _is_plain(layer: Any) -> bool:
    """Report whether a layer is a linear one on the CPU with one LoRA adapter, without DoRA or an
    adapter's bias.
    """
    return (
        type(layer) is LoraLinear
        and type(layer.base_layer) is nn.Linear
        and layer.base_layer.weight.device.type == "cpu"
        and not layer.fan_in_fan_out
        and len(layer.lora_A) == 1
        and not layer.lora_variant
        and not layer.lora_bias[next(iter(layer.lora_A))]
    )


class LoraGroup:
    """Computes its layers together when the first is called; the next ones, called with the same
    input, get theirs.
    """

    def __init__(self, layers: Sequence[LoraLinear]) -> None:
        self._layers = layers
        self._name = next(iter(layers[0].lora_A))
        self._weight = torch.cat([layer.base_layer.weight.data for layer in layers])
        self._bias: Tensor | None = None
        if layers[0].base_layer.bias is not None:
            self._bias = torch.cat([layer.base_layer.bias.data for layer in layers])
        self._sizes = [layer.out_features for layer in layers]
        self._scales = [layer.scaling[self._name] for layer in layers]
        self._outputs: tuple[Tensor, list[Tensor | None]] | None = None
        parts = torch.split(self._weight, self._sizes)
        for place, layer in enumerate(layers):
            layer.base_layer.weight.data = parts[place]  # a view, so that the weights are held once
            layer.forward = partial(self._forward, place)

    def undo(self) -> None:
        """Give the layers their own computation back."""
        self._outputs = None
        for layer in self._layers:
            del layer.forward

    def _forward(self, place: int, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self._layers[place]
        is_off = layer.disable_adapters or layer.merged or self._name not in layer.active_adapters
        # Without gradients too, so that held-out losses are peft's to the bit.
        if is_off or args or kwargs or not torch.is_grad_enabled():
            return LoraLinear.forward(layer, x, *args, **kwargs)  # type: ignore[no-any-return]
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
        inputs = (x, dropped, self._weight, self._bias, self._scales, *adapters)
        outputs: tuple[Tensor, ...] = _FusedLora.apply(*inputs)  # type: ignore[no-untyped-call]
        return outputs


class _FusedLora(torch.autograd.Function):
    """y = x Wᵀ + bias + scale · dropped Aᵀ Bᵀ for stacked W, A and block-diagonal B; only A, B and
    x have gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scales: list[float],
        *adapters: Tensor,
    ) -> Any:
        rows = x.reshape(-1, x.shape[-1]).to(weight.dtype)
        dropped_rows = dropped.reshape(-1, x.shape[-1]).to(weight.dtype)
        downs = adapters[::2]
        ups = adapters[1::2]
        down = torch.cat(downs).to(weight.dtype)
        # The scaled B of all layers as one block-diagonal matrix [all outputs, all ranks].
        scaled_ups = [scale * up for scale, up in zip(scales, ups, strict=True)]
        up = cast("Tensor", torch.block_diag(*scaled_ups)).to(weight.dtype)  # type: ignore[no-untyped-call]
        inner = dropped_rows @ down.T
        y = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        y.addmm_(inner, up.T)
        ctx.save_for_backward(dropped_rows, inner, down, up, weight)
        ctx.scales = scales
        ctx.shape = x.shape
        ctx.dtype = x.dtype
        ctx.is_dropped = dropped is not x
        ctx.adapter_dtype = downs[0].dtype
        ctx.ranks = [len(matrix) for matrix in downs]
        ctx.sizes = [len(matrix) for matrix in ups]
        return tuple(part.view(*x.shape[:-1], -1) for part in torch.split(y, ctx.sizes, 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        dropped, inner, down, up, weight = ctx.saved_tensors
        g = torch.cat([gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients], 1)
        g_inner = g @ up
        g_downs = torch.split((g_inner.T @ dropped).to(ctx.adapter_dtype), ctx.ranks)
        # `up` is block-diagonal, and its zeros need no gradient: a product for each layer.
        blocks = torch.split(g, ctx.sizes, 1)
        inners = inner.split(ctx.ranks, 1)
        adapters: list[Tensor] = []
        for place, scale in enumerate(ctx.scales):
            g_up = (blocks[place].T @ inners[place]).to(ctx.adapter_dtype) * scale
            adapters += [g_downs[place], g_up]
        g_x = g_dropped = None
        if ctx.needs_input_grad[0]:
            g_x = g @ weight
            if not ctx.is_dropped:
                g_x.addmm_(g_inner, down)
            g_x = g_x.view(ctx.shape).to(ctx.dtype)
        if ctx.is_dropped and ctx.needs_input_grad[1]:
            g_dropped = (g_inner @ down).view(ctx.shape).to(ctx.dtype)
        return g_x, g_dropped, None, None, None, *adapters
