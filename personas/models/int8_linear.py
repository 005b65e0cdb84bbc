"""Int8 weight-only quantisation of linear layers, with one scale per output row."""

from typing import Any

import torch
import torch.nn.functional as F

INT8_MAX = 127
MAX_PACKED_ROWS = (
    8  # up to this many rows torch's packed product is faster than widening the weights first
)


class Int8Linear(torch.nn.Linear):
    """Int8 serving copy of a linear layer: int8 `values` `[out, in]`, `factors` `[out]` in the
    model's precision.
    """

    factors: Any

    def __init__(self, linear: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)  # `Linear` would allocate weights
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        values, factors = quantise_rows(linear.weight.detach())
        self.values = torch.nn.Parameter(
            values, requires_grad=False
        )  # a parameter moves between devices with the others
        self.register_buffer("factors", factors)
        self.bias = linear.bias

    @property
    def weight(self) -> Any:  # type: ignore[override]
        """Dequantised weights, `[out, in]` in the model's precision; computed on each access."""
        return self.values.to(self.factors.dtype) * self.factors[:, None]

    def forward(self, input: Any) -> Any:
        rows = input.reshape(-1, self.in_features)
        if len(rows) <= MAX_PACKED_ROWS and rows.device.type == "cpu":
            out = torch._weight_int8pack_mm(rows, self.values, self.factors)
        else:
            out = F.linear(rows, self.values.to(rows.dtype)) * self.factors
        if self.bias is not None:
            out = out + self.bias
        return out.view(*input.shape[:-1], self.out_features)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Save as an ordinary layer: peft looks here for the weights of whole layers that an
        adapter replaces.
        """
        destination[f"{prefix}weight"] = self.weight
        if self.bias is not None:
            destination[f"{prefix}bias"] = self.bias if keep_vars else self.bias.detach()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *_: Any) -> None:
        if (weight := state_dict.get(f"{prefix}weight")) is not None:
            values, factors = quantise_rows(weight)
            self.values.data, self.factors = values, factors.to(self.factors.dtype)
        if (bias := state_dict.get(f"{prefix}bias")) is not None:
            self.bias.data.copy_(bias)


def quantise_rows(weight: Any) -> tuple[Any, Any]:
    """Quantise weights `[out, in]` into int8 values and a factor per output row, in the weights'
    precision.
    """
    exact = weight.float()
    factors = (
        (exact.abs().amax(1) / INT8_MAX).clamp(min=torch.finfo(torch.bfloat16).tiny).bfloat16()
    )
    values = (exact / factors.float()[:, None]).round().clamp(-INT8_MAX, INT8_MAX).to(torch.int8)
    return values, factors.to(weight.dtype)


def quantise_model(model: Any) -> Any:
    """Replace the linear layers of a model in place, its head included; embeddings and norms are
    unchanged.
    """
    for name, linear in list(model.named_modules()):
        if type(linear) is torch.nn.Linear:
            above, _, own = name.rpartition(".")
            setattr(model.get_submodule(above), own, Int8Linear(linear))
    model.config.tie_word_embeddings = False  # the head is int8, the embedding is not
    return model


def is_int8_model(model: Any) -> bool:
    return any(isinstance(module, Int8Linear) for module in model.modules())
