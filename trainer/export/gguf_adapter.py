"""Writes a model's LoRA adapter as GGUF, and compares the file with peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor

from personas.errors import ExportError
from personas.models.gguf_format import Array, architecture_of
from personas.models.gguf_lora import LoraModule, read_gguf_lora, write_gguf_lora

MAX_DELTA_ERROR = 1e-5
"""Allowed difference of a delta after reading, as a share of its largest value."""


def list_lora_modules(adapted: Any) -> list[LoraModule]:
    """Return the adapter's modules as peft applies them. Raises `ExportError` if GGUF cannot
    express one.
    """
    config = adapted.peft_config[adapted.active_adapter]
    active = adapted.active_adapter
    _require_plain(config)
    modules = []
    for name, layer in adapted.get_base_model().named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        if not isinstance(layer, Linear) or active not in layer.lora_A:
            raise ExportError(
                f"{name} is adapted in a way that a GGUF adapter has no place for.",
                "Export --to gguf.",
            )
        if name == "lm_head" and adapted.get_base_model().config.tie_word_embeddings:
            raise ExportError(
                "lm_head is adapted and tied to the embedding.", "Export --to adapter."
            )
        a = layer.lora_A[active].weight.detach().float().cpu().numpy()
        b = layer.lora_B[active].weight.detach().float().cpu().numpy()
        modules.append(LoraModule(name, a, b, float(layer.scaling[active])))
    return modules


def write_adapter(path: Path, modules: list[LoraModule], config: Any, name: str) -> None:
    """Write the adapter file in float32, as trained. Raises `ExportError`, `OSError`."""
    write_gguf_lora(path, modules, architecture_of(config), config, name=name)


def read_adapter(path: Path, config: Any, names: list[str]) -> dict[str, Array]:
    """Return each weight's delta by module name, of which `names` are looked for: (alpha / r)·B·A,
    [out, in]. Raises `ExportError` for damaged files.
    """
    deltas = {}
    for name, module in read_gguf_lora(path, architecture_of(config), config, names).items():
        deltas[name] = module.b @ module.a * module.scale
    return deltas


def require_same_deltas(adapted: Any, deltas: dict[str, Array]) -> None:
    """Require that the deltas are peft's. Raises `ExportError`."""
    names = {module.name for module in list_lora_modules(adapted)}
    if names != set(deltas):
        raise ExportError(
            f"The file lacks {', '.join(sorted(names ^ set(deltas))[:3])}.", "Report this fault."
        )
    for name, delta in deltas.items():
        layer = adapted.get_base_model().get_submodule(name)
        theirs = layer.get_delta_weight(adapted.active_adapter).detach().float().cpu().numpy()
        largest = float(np.abs(theirs).max()) or 1.0
        error = float(np.abs(theirs - delta).max()) / largest
        if not error <= MAX_DELTA_ERROR:  # so that NaN fails
            fault = f"Read back, {name} changes by {error:.2g} of its largest value too much."
            raise ExportError(fault, "Nothing was kept.")


def add_deltas(model: Any, deltas: dict[str, Array]) -> Any:
    """Add the file's deltas to the float32 weights of a base model; return the model."""
    with torch.no_grad():
        for name, delta in deltas.items():
            weight: Tensor = model.get_submodule(name).weight
            weight += torch.from_numpy(delta)
    return model


def _require_plain(config: Any) -> None:
    """Refuse anything beyond A and B on linear layers."""
    beyond = {
        "DoRA": config.use_dora,
        "biases": config.bias != "none" or config.lora_bias,
        f"whole modules ({config.modules_to_save})": config.modules_to_save,
        "trained tokens": config.trainable_token_indices,
        "parameters": config.target_parameters,
        "repeated layers": config.layer_replication,
    }
    unsupported = [name for name, is_used in beyond.items() if is_used]
    if unsupported:
        raise ExportError(
            f"This adapter holds {' and '.join(unsupported)}, for which a GGUF adapter has no "
            "place.",
            "Export --to gguf, with the adapter merged into the model.",
        )
