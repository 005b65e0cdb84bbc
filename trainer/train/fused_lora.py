"""LoRA layers that take the same input (q, k, v; gate, up) as one product with a backward pass of its own, on a CPU.

Peft computes each layer apart, and autograd keeps and adds up every part. With short samples such passes over the
activations take longer than the matrix products.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of a module that take the same input; any other layer is a group of its own."""


@contextmanager
def fused_lora(peft_model: Any) -> Iterator[None]:
    """Fuse the LoRA layers of a model, where they are plain ones, for a `with` block."""
    fused = [LoraGroup(layers) for layers in _find_groups(peft_model)]
    try:
        yield
    finally:
        for group in fused:
            group.undo()


def _find_groups(model: Any) -> Iterator[list[LoraLinear]]:
    for module in model.modules():
        own: dict[str, Any] = {name: layer for name, layer in module.named_children() if _is_plain(layer)}
        for names in GROUPS:
            if all(name in own for name in names) and len({own[name].base_layer.bias is None for name in names}) == 1:
                yield [own.pop(name) for name in names]
        yield from ([layer] for layer in own.values())


def _is_plain(layer: Any) -> bool:
    """Report whether a layer is a linear one on the CPU with one LoRA adapter, without DoRA or an adapter's bias."""
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
    """Computes its layers together when the first is called; the next ones, called with the same input, get theirs."""

    def __init__(self, layers: Sequence[LoraLinear]) -> None:
        self._layers = layers
        self._name = next(iter(layers[0].lora_A))
        self._weight = torch.cat([layer.base_layer.weight.data for layer in layers])
        biases = [layer.base_layer.bias for layer in layers]
        self._bias = None if biases[0] is None else torch.cat([bias.data for bias in biases])
        self._sizes = [layer.out_features for layer in layers]
        self._scales = [layer.scaling[self._name] for layer in layers]
        self._outputs: tuple[Tensor, list[Tensor | None]] | None = None
        for place, (layer, rows) in enumerate(zip(layers, torch.split(self._weight, self._sizes), strict=True)):
            layer.base_layer.weight.data = rows  # so that the weights are held once
            layer.forward = partial(self._forward, place)

    def undo(self) -> None:
        """Give the layers their own computation back."""
        self._outputs = None
        for layer in self._layers:
            del layer.forward

    def _forward(self, place: int, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self._layers[place]
        is_off = layer.disable_adapters or layer.merged or self._name not in layer.active_adapters
        if is_off or args or kwargs or not torch.is_grad_enabled():  # held-out losses are peft's to the bit
            return LoraLinear.forward(layer, x, *args, **kwargs)  # type: ignore[no-any-return]
        if self._outputs is None or self._outputs[0] is not x or self._outputs[1][place] is None:
            self._outputs = (x, list(self._compute(x)))
        output, self._outputs[1][place] = self._outputs[1][place], None
        if not any(it is not None for it in self._outputs[1]):
            self._outputs = None
        assert output is not None
        return output

    def _compute(self, x: Tensor) -> tuple[Tensor, ...]:
        adapters = [part[self._name].weight for layer in self._layers for part in (layer.lora_A, layer.lora_B)]
        dropped = self._layers[0].lora_dropout[self._name](x)
        inputs = (x, dropped, self._weight, self._bias, self._scales, *adapters)
        outputs: tuple[Tensor, ...] = _FusedLora.apply(*inputs)  # type: ignore[no-untyped-call]
        return outputs


class _FusedLora(torch.autograd.Function):
    """y = x Wᵀ + bias + scale · dropped Aᵀ Bᵀ for stacked W, A and block-diagonal B; only A, B and x have gradients."""

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
        rows, dropped_rows = (it.reshape(-1, x.shape[-1]).to(weight.dtype) for it in (x, dropped))
        downs, ups = adapters[::2], adapters[1::2]
        down = torch.cat(downs).to(weight.dtype)
        up = _stack_ups(ups, scales).to(weight.dtype)
        inner = dropped_rows @ down.T
        y = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        y.addmm_(inner, up.T)
        ctx.save_for_backward(dropped_rows, inner, down, up, weight)
        ctx.scales, ctx.shape, ctx.dtype, ctx.is_dropped = scales, x.shape, x.dtype, dropped is not x
        ctx.adapter_dtype, ctx.ranks, ctx.sizes = downs[0].dtype, [len(it) for it in downs], [len(it) for it in ups]
        return tuple(it.view(*x.shape[:-1], -1) for it in torch.split(y, ctx.sizes, 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        dropped, inner, down, up, weight = ctx.saved_tensors
        g = torch.cat([it.reshape(-1, it.shape[-1]) for it in gradients], 1)
        g_inner = g @ up
        g_down = torch.split((g_inner.T @ dropped).to(ctx.adapter_dtype), ctx.ranks)
        g_up = [
            (block.T @ part).to(ctx.adapter_dtype) * scale
            for scale, block, part in zip(
                ctx.scales, torch.split(g, ctx.sizes, 1), inner.split(ctx.ranks, 1), strict=True
            )
        ]
        adapters = [it for pair in zip(g_down, g_up, strict=True) for it in pair]
        g_x = g_dropped = None
        if ctx.needs_input_grad[0]:
            g_x = g @ weight
            if not ctx.is_dropped:
                g_x.addmm_(g_inner, down)
            g_x = g_x.view(ctx.shape).to(ctx.dtype)
        if ctx.is_dropped and ctx.needs_input_grad[1]:
            g_dropped = (g_inner @ down).view(ctx.shape).to(ctx.dtype)
        return g_x, g_dropped, None, None, None, *adapters


def _stack_ups(ups: Sequence[Tensor], scales: Sequence[float]) -> Tensor:
    """Return the scaled B of all layers as one block-diagonal matrix [all outputs, all ranks]."""
    stacked = torch.block_diag(*(scale * up for scale, up in zip(scales, ups, strict=True)))  # type: ignore[no-untyped-call]
    return cast(Tensor, stacked)
