"""Counts the calls that reach torch's operators: what a host does for a step on a GPU."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = frozenset(
    "view _unsafe_view reshape transpose t permute expand slice select unsqueeze squeeze alias detach "
    "split split_with_sizes as_strided chunk unbind diagonal empty empty_like new_empty "
    "_reshape_alias lift_fresh empty_strided new_empty_strided narrow view_as expand_as".split()
)
"""Calls that start no kernel on a GPU."""
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal")
"""Calls for which a host waits for a GPU."""


class CallCounter(TorchDispatchMode):
    """Counts the calls that reach torch's operators, by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator._overloadpacket.__name__
        self.calls[name] += 1
        if name.startswith("index") and len(args) > 1 and isinstance(args[1], list | tuple):
            indices = [it for it in args[1] if isinstance(it, torch.Tensor)]
            self.calls["nonzero"] += sum(it.dtype == torch.bool for it in indices)
        return operator(*args, **(kwargs or {}))

    @property
    def dispatches(self) -> int:
        return self.calls.total()

    @property
    def waits(self) -> int:
        return sum(self.calls[name] for name in WAITS)

    @property
    def kernels(self) -> int:
        return sum(count for name, count in self.calls.items() if name not in VIEWS)


@contextmanager
def one_call_norms() -> Iterator[None]:
    """For a `with` block, let torch's RMSNorm be one operator each way, as on CUDA; a CPU composes
    it of others.
    """
    library = torch.library.Library("understudy_tests", "FRAGMENT")
    library.define("norm(Tensor x, Tensor weight, float epsilon) -> Tensor")
    library.define(
        "norm_backward(Tensor gradient, Tensor x, Tensor weight, float epsilon) -> Tensor"
    )
    library.impl("norm", _norm, "CPU")
    library.impl("norm_backward", _norm_backward, "CPU")
    rms_norm = functional.rms_norm
    functional.rms_norm = lambda x, _shape, weight, epsilon: _OneCallNorm.apply(x, weight, epsilon)
    try:
        yield
    finally:
        functional.rms_norm = rms_norm
        library._destroy()


class _OneCallNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, epsilon):
        ctx.save_for_backward(x, weight)
        ctx.epsilon = epsilon
        return torch.ops.understudy_tests.norm(x, weight, epsilon)

    @staticmethod
    def backward(ctx, gradient):
        computed = torch.ops.understudy_tests.norm_backward(
            gradient, *ctx.saved_tensors, ctx.epsilon
        )
        return computed, None, None


def _norm(x, weight, epsilon):
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (normed * weight).to(x.dtype)


def _norm_backward(gradient, x, weight, epsilon):
    wide = x.float()
    factor = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    normed = wide * factor
    own = gradient.float() * weight
    return ((own - normed * (own * normed).mean(-1, keepdim=True)) * factor).to(x.dtype)
