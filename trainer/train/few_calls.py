"""RMSNorm and rotary embeddings in a few calls of torch: a GPU waits for the host to start each.

For GPUs on which Liger, whose kernels do the same, cannot be used.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.train.collator import causal_model

ROTARY_FUNCTION = "apply_rotary_pos_emb"
"""Function of transformers' models that rotates queries and keys."""


@contextmanager
def norms_in_one_call(model: Any) -> Iterator[None]:
    """Compute RMSNorm by torch's own for a `with` block.

    It is for norms that multiply by their weight: those of Gemma, which add 1 to it, give other
    losses then.
    """
    norms = [module for module in causal_model(model).modules() if _is_rms_norm(module)]
    for norm in norms:
        norm.forward = partial(_rms_norm, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _is_rms_norm(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return (
        type(module).__name__.endswith("RMSNorm")
        and isinstance(weight, nn.Parameter)
        and weight.dim() == 1
        and _epsilon(module) is not None
    )


def _epsilon(norm: Any) -> float | None:
    epsilon: float | None = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    return epsilon


def _rms_norm(norm: Any, hidden: Tensor) -> Tensor:
    if hidden.dtype != norm.weight.dtype:  # torch's kernel takes one precision
        computed: Tensor = type(norm).forward(norm, hidden)
        return computed
    # Autocast would have it computed and returned in float32; the kernel itself sums up in that.
    with torch.autocast(hidden.device.type, enabled=False):
        return functional.rms_norm(hidden, norm.weight.shape, norm.weight, _epsilon(norm))


@contextmanager
def rotation_in_few_calls(model: Any) -> Iterator[None]:
    """Rotate queries and keys by fewer calls for a `with` block, where the model's own function
    rotates halves.
    """
    modelling = sys.modules[type(causal_model(model)).__module__]
    original = getattr(modelling, ROTARY_FUNCTION, None)
    if original is not None:
        setattr(modelling, ROTARY_FUNCTION, _Rotary())
    try:
        yield
    finally:
        if original is not None:
            setattr(modelling, ROTARY_FUNCTION, original)


class _Rotary:
    """Replaces `apply_rotary_pos_emb`; the layers of a pass share `cos` and `sin`."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(
        self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Rotate q and k [rows, heads, tokens, d] by `cos` and `sin` [rows, tokens, d]."""
        if self._last is None or self._last[0] is not sin:
            first, second = sin.chunk(2, -1)
            signed = torch.cat((-first, second), -1).unsqueeze(unsqueeze_dim)
            self._last = (sin, cos.unsqueeze(unsqueeze_dim), signed)
        _, cosines, sines = self._last
        rotate: Callable[..., Tensor] = _Rotation.apply
        return rotate(q, cosines, sines), rotate(k, cosines, sines)


class _Rotation(torch.autograd.Function):
    """x · cos + (x with its halves exchanged) · sin, whose first half is negative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        gradient = gradients[0]
        rolled = (gradient * sin).roll(gradient.shape[-1] // 2, -1)
        return rolled.addcmul_(gradient, cos), None, None
