"""Int8 weight-only quantisation of linear layers, one scale per output row."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

INT8_MAX = 127
MAX_PACKED_ROWS = 8
"""Up to so many rows torch's packed product is faster than a product with weights that are widened for it."""


class Int8Linear(torch.nn.Linear):
    """A linear layer made of another. `values` are int8 `[out, in]`, `factors` `[out]` of the model's precision.

    For serving: nothing is learned through it.
    """

    factors: Any

    def __init__(self, linear: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)  # `Linear` would make weights to throw away
        self.in_features, self.out_features = linear.in_features, linear.out_features
        values, factors = quantise_rows(linear.weight.detach())
        self.values = torch.nn.Parameter(values, requires_grad=False)  # as one of them, it moves with the others
        self.register_buffer("factors", factors)
        self.bias = linear.bias

    @property
    def weight(self) -> Any:  # type: ignore[override]
        """The weights that are computed with, `[out, in]` in the model's precision; made anew each time."""
        return self.values.to(self.factors.dtype) * self.factors[:, None]

    def forward(self, input: Any) -> Any:
        """As `Linear`."""
        rows = input.reshape(-1, self.in_features)
        if len(rows) <= MAX_PACKED_ROWS and rows.device.type == "cpu":
            out = torch._weight_int8pack_mm(rows, self.values, self.factors)
        else:
            out = F.linear(rows, self.values.to(rows.dtype)) * self.factors
        if self.bias is not None:
            out = out + self.bias
        return out.view(*input.shape[:-1], self.out_features)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """To others it is an ordinary layer: peft finds the weights here that an adapter brings of a whole layer."""
        destination[f"{prefix}weight"] = self.weight
        if self.bias is not None:
            destination[f"{prefix}bias"] = self.bias if keep_vars else self.bias.detach()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *_: Any) -> None:
        """And such weights are rounded, too."""
        if (weight := state_dict.get(f"{prefix}weight")) is not None:
            values, factors = quantise_rows(weight)
            self.values.data, self.factors = values, factors.to(self.factors.dtype)
        if (bias := state_dict.get(f"{prefix}bias")) is not None:
            self.bias.data.copy_(bias)


def quantise_rows(weight: Any) -> tuple[Any, Any]:
    """Weights `[out, in]` as int8 values and a factor for each output, in the weights' precision."""
    exact = weight.float()
    factors = (exact.abs().amax(1) / INT8_MAX).clamp(min=torch.finfo(torch.bfloat16).tiny).bfloat16()
    values = (exact / factors.float()[:, None]).round().clamp(-INT8_MAX, INT8_MAX).to(torch.int8)
    return values, factors.to(weight.dtype)


def quantise_model(model: Any) -> Any:
    """The model with its linear layers so, its head included; embeddings and norms stay as they are. Changes it."""
    for name, linear in list(model.named_modules()):
        if type(linear) is torch.nn.Linear:
            above, _, own = name.rpartition(".")
            setattr(model.get_submodule(above), own, Int8Linear(linear))
    model.config.tie_word_embeddings = False  # the head is int8, what is looked up is not
    return model


def is_int8_model(model: Any) -> bool:
    """Whether a model's linear layers are so."""
    return any(isinstance(module, Int8Linear) for module in model.modules())
