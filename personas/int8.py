"""Linear layers whose weights are int8, with a factor for each 64 of an output: half the bytes of bfloat16.

A factor is the largest of its weights divided by 127, rounded to bfloat16, so that all machines compute with the same
weights: whole number times factor. What is multiplied with them stays in the model's own precision.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

MOST, GROUP = 127, 64


class Int8Linear(torch.nn.Linear):
    """A linear layer made of another. `values` are int8 `[out, in]`, `factors` `[out, groups]` in the model's own.

    For serving: nothing is learned through it.
    """

    factors: Any

    def __init__(self, linear: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)  # `Linear` would make weights to throw away
        self.in_features, self.out_features = linear.in_features, linear.out_features
        values, factors = rounded(linear.weight.detach())
        self.values = torch.nn.Parameter(values, requires_grad=False)  # as one of them, it moves with the others
        self.register_buffer("factors", factors)
        self.bias = linear.bias

    @property
    def weight(self) -> Any:  # type: ignore[override]
        """The weights that are computed with, `[out, in]` in the model's precision; made anew each time."""
        return self.values * self.factors.repeat_interleave(GROUP, 1)[:, : self.in_features]

    def forward(self, input: Any) -> Any:
        """As `Linear`."""
        return F.linear(input, self.weight, self.bias)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """To others it is an ordinary layer: peft finds the weights here that an adapter brings of a whole layer."""
        destination[f"{prefix}weight"] = self.weight
        if self.bias is not None:
            destination[f"{prefix}bias"] = self.bias if keep_vars else self.bias.detach()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *_: Any) -> None:
        """And such weights are rounded, too."""
        if (weight := state_dict.get(f"{prefix}weight")) is not None:
            values, factors = rounded(weight)
            self.values.data, self.factors = values, factors.to(self.factors.dtype)
        if (bias := state_dict.get(f"{prefix}bias")) is not None:
            self.bias.data.copy_(bias)


def rounded(weight: Any) -> tuple[Any, Any]:
    """Weights `[out, in]` as int8 values and a factor for each group of an output, in the weights' precision."""
    outputs, width = weight.shape
    groups = F.pad(weight.float(), (0, -width % GROUP)).reshape(outputs, -1, GROUP)
    factors = (groups.abs().amax(2) / MOST).clamp(min=torch.finfo(torch.bfloat16).tiny).bfloat16()
    values = (groups / factors.float()[..., None]).round().clamp(-MOST, MOST).to(torch.int8)
    return values.flatten(1)[:, :width].contiguous(), factors.to(weight.dtype)


def to_int8(model: Any) -> Any:
    """The model with its linear layers so, its head included; embeddings and norms stay as they are. Changes it."""
    for name, linear in list(model.named_modules()):
        if type(linear) is torch.nn.Linear:
            above, _, own = name.rpartition(".")
            setattr(model.get_submodule(above), own, Int8Linear(linear))
    model.config.tie_word_embeddings = False  # the head is int8, what is looked up is not
    return model


def is_int8(model: Any) -> bool:
    """Whether a model's linear layers are so."""
    return any(isinstance(module, Int8Linear) for module in model.modules())
